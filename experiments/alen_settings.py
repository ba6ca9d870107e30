"""Settings of every method on every data set of `experiments.alen`, and how they were chosen.

Bibtex (one training example of five is its validation part; one seed where no spread is given;
example F1 of the best settings, each method with its own best number of steps, threshold and number
of refinements). Widths of 150 and 400 were tried for all; 400 is better for all. Further:

* ALEN 47.3 (seeds 47.6, 46.8, 47.4): weights of the adversarial loss 0.001 (45.2 at width 150) to
  30, best 10; of the refined term 1 and 3; rates of g 0.001 to 0.003; value decay 0 to 5;
* AEN 46.5 and InfNet baseline 43.7 with ALEN's; ALEN without L_task 45.9, which needs proposals
  that start near no label, else v is 0 everywhere (31.9);
* DVN 45.3 after 9000 steps (45.1 after 6000, and with half of the outputs adversarial 44.4, with
  dropout 0.5 44.8). Adversarial ascents of three steps 44.4, of twenty 44.1; where their gradient
  is also that of the oracle, 43.0. With an earlier gradient there: step sizes 0.5 to 5, normalised
  or not, momentum 0 and 0.9, dropout 0 to 0.3, shares of adversarial outputs 0.25 to 0.5;
* SPEN 44.3: costs 0.05 to 1, unary steps 0 to 30 %; end to end 43.4: steps of 1 to 20 by 3 or 5;
* inference network 44.4: costs 0.1 and 1, adversarial weights 0.001 to 0.03;
* two layers 43.6: dropout 0 to 0.5, decay, rates 0.001 and 0.003; with the threshold at one half
  37.4: also widths of 150 and 1000, rate 0.01, up to 12000 steps; logistic regression 38.6.

Horses (40 validation images, one seed, mean IOU in %; at the threshold that was best where it says
so):

* crops of 24x24, the published practice for DVN, cost half of whole images: an FCN has, at the best
  threshold, 76.6 after 1200 steps of 16 crops, 74.5 of whole images, and 78.4 and 78.7 after 2400
  steps of 8 and 4800 of 4. Then also: groups of channels normalised 79.7, dropout 0, not 0.3, 79.2,
  channels (32, 64, 64) 78.9, rate 0.001 77.7 (0.004, of 16, 73.8), layer normalisation, of 16,
  76.5;
* steps of 8 crops matter more than any of these. FCN: 85.2 after 12000 (83.2 after 8000 from more
  augmentation). ALEN, at one half and at the best threshold, 0.6: 85.1 and 85.3 after 6000, 85.8
  and 86.0 after 9000, 85.8 and 86.2 after 12000; its inference network's best are 84.1, 84.9 and
  85.0. DVN, over crops at every 2, at the best threshold: with no true outputs 82.8 after 8000 and
  83.6 after 12000, with one in eight 83.6 after 12000, which is in use;
* predictions are means over crops at every pixel and their mirror images: of ALEN after 12000
  steps 86.2 where those at every 2 pixels give 85.8 and at every 4 85.4;
* augmentation, ALEN after 3000 steps over crops at every 2: half of the turns and stretches, a
  third of the bends and weaker tints, which are in use, 83.6 (its inference network 82.3), more
  82.8 (81.4), of which without normalisation 81.1 (80.4);
* what a value is decides most. One number a mask teaches a value network slowly where the mask
  errs: the mean of the scores only learns how sharp masks are, and its ascent loses IOU; an overlap
  with the mask of the scores is 1.3 behind its own inference network after 2000 steps of 16 whole
  images, and ahead after 5000 (84.9 and 84.7, over 18 views). A value of every pixel with an oracle
  of its own is 0.6 ahead after 2000 (82.5 and 81.9), and DVN by pixels has 75.1 after 2500 steps
  where by overlaps it has 63.1 after 6000;
* and of whole images, where ALEN valued overlaps: few ascents of large steps, 2 of 6, whose masks
  are as sharp as true ones, beside 3 of 1; rates 0.002, beside 0.004, 0.003 with a cosine; weights
  of the adversarial loss 1, beside 10; three ascents and value dropout 0.5; the ascent from the
  mean of all views' proposals, which is worse than one from each. By pixels, rates of 0.003 that
  fall to zero as a cosine are worse by 1;
* FCN (with Adam's b1 of 0.5) of whole images 83.8 after 4000 steps of 16, 84.6 with channels (32,
  64, 64);
* DVN by pixels, of whole images, 78.8 over 2 views after 5000 steps of 16 with shares of
  adversarial outputs of 0.25, and 6 refinements (24 lose 1); by overlaps true shares 0.06 to 0.5,
  adversarial ones 0.1 to 0.44, and 3 to 8 ascents were tried.

Also, of FCNs of 12000 steps from crops and their 85.2: more augmentation 84.8, a running mean over
four times as many steps 84.9. An ALEN of channels (32, 64, 64) has 86.1 after 9000 steps, its
inference network 85.3, for 1.7 times the cost. Crops' masks joined with less weight near their
edges, or by logits, are no better.

LFW parts (500 validation images, one seed, pixel accuracy in %), with the horses' settings: FCN of
whole images 94.1 after 8000 steps and 94.5 after 16000, of crops of 24x24 93.8 after 8000; ALEN of
such crops 93.2 after 4000 steps and three refinements (93.1 after eight and before any).

Wide networks of masks, (64, 128, 128), after 12000 steps, one seed, the same validation parts.
Horses: FCN 85.8, ALEN 87.1 at 0.6 and 87.2 at 0.55, the best, its inference network 86.4; DVN with
no true outputs 85.1 at 0.3, the best, with one in eight, which is in use, 84.8 at 0.35, the best.
LFW: FCN 94.8, ALEN 95.0 after three to eight refinements, 94.9 before any, DVN with no true outputs
93.4, of which seven refinements or more make no difference. Nothing else was tried at this width.
(ALENs were then trained with the same units dropped in both networks; now each drops its own.)

All numbers of masks above are of channels normalised over each row of pixels. Over the image narrow
networks of horses have (one seed, at the best threshold) 85.6 (FCN, by rows 85.2), ALEN 86.5 after
9000 steps (86.0), its inference network 85.2 (84.9), and DVN 83.4 (83.6, from fewer crops): so FCN
and ALEN of horses are normalised over the image. Of LFW an FCN has 94.1 either way, a DVN 91.4 by
rows and 91.2 over the image, and an ALEN 94.2 over the image after 8000 steps and 94.5 by rows
after 16000 (its inference network 94.2 and 94.4). Others, and wide networks, keep the rows,
untried.

DVNs of masks above learnt from adversarial outputs of four steps, whose gradient took that of the
oracle in and had it wrong at the true output. With it right, narrow DVNs of horses, which have it
in use, have 84.4, 84.5 and 84.1 at thresholds of 0.2 to 0.25 (three seeds; over the image 83.7 and
after 24000 steps 84.4, one seed), a wide one 84.9 at 0.25. With one step and the oracle a constant,
as in the authors' code, they have 83.7, 83.4, 83.5 and 84.0 (four seeds), at 0.25 to 0.35. Narrow
DVNs of faces have 90.5 with the former and 91.4 with the latter, which they have in use (one seed).
Of one trained DVN of horses, ascents of 8 to 24 steps of 2.5 to 8 are alike (84.0 to 84.1).

Not chosen on a validation part: all of Bookmarks, which has Bibtex's settings; ablations of ALEN on
masks, which have ALEN's; narrow ALENs and DVNs of LFW, which have what suits wide ones, of whole
images; wide DVNs' share of true outputs, which is that of narrow ones.
"""

from typing import Any


def of(dataset: str, method: str, *, wide: bool = False) -> dict[str, Any]:
    """The fields of `experiments.alen.Config` that are not its defaults; none for unknown names.

    With ``wide``, of masks by wide networks.

    Raises:
      ValueError: wide, for labels.
    """
    kinds = {"bibtex": "labels", "bookmarks": "labels", "lfw_superpixels": "lfw_parts"}
    kind = kinds.get(dataset, dataset)
    found = _SHARED.get(kind, {}) | _OWN.get((kind, method), {})
    if not wide:
        return found
    if kind == "labels":
        raise ValueError(f"wide networks are of masks, not of {dataset}'s labels")
    return found | _WIDE | _WIDE_OWN.get((kind, method), {})


_SHARED: dict[str, dict[str, Any]] = {
    "labels": dict(hidden=400, value_hidden=400, dropout_rate=0.5),
    "horses": dict(
        batch_size=8,
        channels=(24, 48, 48),
        value_channels=(24, 48, 48),
        group_size=8,
        energy="pixels",
        num_steps=9000,
        average_decay=0.998,
        dropout_rate=0.1,
        network_rate=2e-3,
        network_decay=0.1,
        value_rate=2e-3,
        value_decay=0.1,
        mirrored=True,
        crop=24,
        crop_step=1,
    ),
}
_SHARED["lfw_parts"] = _SHARED["horses"] | dict(
    num_steps=8000, crop=32, crop_step=4, group_rows=True
)

_ALEN: dict[str, Any] = dict(
    num_steps=1500, network_rate=2e-3, value_decay=2.0, refined_weight=3.0, adversarial_weight=10.0,
    num_refinements=5, threshold=0.15, network_threshold=0.1,
)  # fmt: skip
_ALEN_OF_MASKS: dict[str, Any] = dict(
    num_ascent_steps=2, num_refinements=8, step_size=6.0, value_dropout_rate=0.1, refined_weight=3.0
)
_DVN_OF_MASKS: dict[str, Any] = dict(
    true_share=0.125, adversarial_share=0.25, num_ascent_steps=4, num_refinements=10,
    step_size=5.0, value_dropout_rate=0.2,
)  # fmt: skip
_ALENS = ("alen", "aen", "alen_no_task", "network_alone")
_PLAIN: dict[str, Any] = dict(normalize=False, num_refinements=30)

_OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("labels", "logistic"): dict(
        num_steps=2200, network_rate=3e-3, dropout_rate=0.0, threshold=0.1
    ),
    ("labels", "feed_forward"): dict(num_steps=1500, dropout_rate=0.2, threshold=0.1),
    ("labels", "feed_forward_half"): dict(
        hidden=1000, num_steps=3700, network_rate=3e-3, dropout_rate=0.0
    ),
    ("labels", "spen"): _PLAIN
    | dict(
        num_steps=3700, step_size=0.1, value_dropout_rate=0.5, value_decay=1.0, cost_weight=0.1,
        unary_share=0.2, threshold=0.1,
    ),
    ("labels", "spen_end_to_end"): dict(
        num_steps=1500, normalize=False, num_ascent_steps=5, num_refinements=1, step_size=5.0,
        momentum=0.5, value_dropout_rate=0.5, threshold=0.25,
    ),
    ("labels", "inference_network"): dict(
        num_steps=2200, value_dropout_rate=0.5, value_decay=1.0, cost_weight=0.1,
        adversarial_weight=0.03, threshold=0.1,
    ),
    ("labels", "dvn"): _PLAIN
    | dict(
        num_steps=9000, step_size=0.5, value_dropout_rate=0.3, value_decay=0.5, threshold=0.4
    ),
    ("labels", "network_alone"): _ALEN | dict(num_steps=1100, num_refinements=0, threshold=0.1),
    ("labels", "aen"): _ALEN | dict(num_steps=1800, threshold=0.25, network_threshold=0.15),
    ("labels", "alen_no_task"): _ALEN
    | dict(initial_logit=-4.0, network_rate=1e-3, num_refinements=20, threshold=0.45),
    ("labels", "alen"): _ALEN,
    ("horses", "feed_forward"): dict(num_steps=12000, threshold=0.55),
    ("horses", "dvn"): _DVN_OF_MASKS
    | dict(
        num_steps=12000, threshold=0.2, group_rows=True, num_adversarial_steps=4,
        constant_oracle=False,
    ),
    **{("horses", method): _ALEN_OF_MASKS | dict(threshold=0.55) for method in _ALENS},
    ("lfw_parts", "feed_forward"): dict(num_steps=16000),
    ("lfw_parts", "dvn"): _DVN_OF_MASKS,
    **{("lfw_parts", method): _ALEN_OF_MASKS | dict(num_refinements=3) for method in _ALENS},
}  # fmt: skip

_WIDE: dict[str, Any] = dict(
    channels=(64, 128, 128), value_channels=(64, 128, 128), num_steps=12000, group_rows=True
)  # fmt: skip
_WIDE_OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("horses", "feed_forward"): dict(threshold=0.5),
    ("horses", "dvn"): dict(threshold=0.25),
    ("horses", "alen"): dict(network_threshold=0.55),
}
