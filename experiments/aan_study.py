"""Does a learned memory help a generator? The AAN against noise of equal size, on MNIST.

    python -m experiments.aan_study --workdir=DIR

trains both at 100 and at 1000 dimensions, over seeds, with the same layers and number of steps.
Each has the settings that were best for it on the validation part; noise also has the memory's. It
judges samples in the feature space of a classifier (`experiments.digit_classifier`, trained first),
and draws the paper's Figure 2 (how closely the generator follows the discriminator) and Figure 3
(Gibbs steps from the features of real digits), with the numbers that the paper only tells in words:
how fast a chain forgets its start, and how often it changes class.

3 seeds, 4000 steps, 5000 samples against as many test digits; samples of a memory once from chains
that need no data (100 steps from where those of training ended), once as in training (two steps
from features of training digits):

| paints from            | Frechet distance | as in training | classes covered | log D ratio |
|------------------------|------------------|----------------|-----------------|-------------|
| memory, 100            | 97 +- 7          | 94 +- 7        | 1.0             | 0.83 +- .02 |
| memory with entropy    | 105 +- 30        | 92 +- 27       | 1.0             | 0.81 +- .05 |
| noise                  | 54 +- 6          |                | 1.0             | 0.38 +- .01 |
| noise, memory's D      | 428 +- 464       |                | 0.7 +- .5       | 0.50 +- .43 |
| memory, 1000           | 484 +- 67        | 259 +- 71      | 0.7 +- .2       | 0.91 +- .01 |
| memory with entropy    | 481 +- 10        | 291 +- 92      | 0.7 +- .2       | 0.93 +- .04 |
| noise                  | 75 +- 7          |                | 1.0             | 0.25 +- .01 |
| noise, memory's D      | 735 +- 394       |                | 0.4 +- .5       | 0.18 +- .26 |
| training digits        | 4                |                | 1.0             |             |

So the generator follows the discriminator more closely with a memory, and 1000 dimensions do not
set it back as they do with noise, which is the paper's Figure 2. A part of that is the
discriminator: with the memory's (normalised features, no penalty) noise collapses in 3 of 6 runs,
but has ratios of 0.80 and 0.70 at 100 and 0.47 at 1000 in the others. And samples are no better for
it: noise with the settings tuned for it (R1 penalty, features as printed) gives the best ones.
Three seeds say less of the spread than they seem to: a later run of the same seeds, on another
machine, gave memories of 100 distances of 61, 65 and 136 (51, 63 and 133 as in training) where
these have 97 +- 7; of one seed, noise had 46, a memory of 1000 had 540, noise of 1000 had 79.

The features of a chain of 100 units have a correlation with the start of .37 after one step and of
.15 after ten; of 1000 .40 and .34: after its first step it hardly moves (the paper's Figure 3). Its
images change class in 63 % and 40 % of the steps after the first (in the later run 61 % and, one
seed, 52 %), but not by the chain alone: what is painted from the very features of a digit, before
any step, shows its class in 23 +- 14 % only (3 seeds; of 1000, one seed, 23 %), where chance is 10.
At 1000 the classes are those of broken digits.

Other choices for a memory of 100, chosen by `"--config.arms=('memory as noise','ten Gibbs
steps','persistent chains')" "--config.sizes=(100,)"` (50 minutes on one core of a slower machine)
and `"--config.arms=('memory as printed','noise as printed','saturating loss')"` (30 minutes):

| memory, 100            | Frechet distance | as in training | classes covered | log D ratio |
|------------------------|------------------|----------------|-----------------|-------------|
| persistent chains      | 114 +- 36        | the same       | 1.0             | 0.75 +- .05 |
| ten Gibbs steps        | 459 +- 329       | 467 +- 325     | 0.7 +- .3       | 0.33 +- .41 |
| noise's D              | 945 +- 15        | 945 +- 15      | 0.1             | 0.52 +- .42 |
| saturating loss        | 215 +- 51        | 193 +- 37      | 1.0             | 0.93 +- .03 |
| as printed             | 1041 +- 132      | 1041 +- 132    | 0.1             | 0.01 +- .01 |
| noise, as printed      | 767 +- 50        |                | 0.4 +- .2       | 0.10 +- .17 |

Persistent chains change little. Of three runs of ten steps two collapsed, and one is as good as any
of two steps (84). With the discriminator that suits noise, features as printed and a penalty, all
three paint nothing: the features of all digits are alike, and so are the memory's. As printed
(the loss of Equation 1, means, features not normalised, no penalty, the learning rates of DCGAN)
all three have one class, and noise fares little better in so many steps; with normalised features
the printed loss is enough for all classes.

On the validation part, one seed and 1500 to 3000 steps of 100 dimensions, were tried: R1 weights
0 to 10, learning rates 0.0002 to 0.002, features normalised or not for both kinds; means or spins,
2 and 10 Gibbs steps, memory's rates 0.001 and 0.01 and entropy weights 0, 0.1 and 1 for the memory;
not each with each. Time: 75 minutes on one CPU core.

Files: `study.csv` (class entropies too) and `samples.png`; `figure3.png`; `figure2.png` and
`mixing.png` with their CSV; and the folders of the runs.
"""

import dataclasses
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from experiments import aan, common, digit_classifier, gasn, images
from gasn_jax.data import mnist
from gasn_jax.evaluation import features
from gasn_jax.systems import aan as systems
from gasn_jax.training import loop, pictures
from gasn_jax.training.errors import require

# What each paints from, with its own tuned discriminator or with the other's, and other choices for
# the memory. The entropy's weight is divided by the size: its gradient grows with it.
_OF_MEMORY, _OF_NOISE = dict(normalised=True, r1=0.0), dict(normalised=False, r1=1.0)
_MEMORY, _NOISE = dict(memory="rbm", visible="spin"), dict(memory="uniform")
_PRINTED = dict(
    visible="mean",
    normalised=False,
    r1=0.0,
    loss="saturating",
    discriminator_rate=2e-4,
    generator_rate=2e-4,
)
ARMS: dict[str, dict[str, Any]] = {
    "memory": _MEMORY | _OF_MEMORY,
    "memory with entropy": _MEMORY | _OF_MEMORY | dict(entropy_weight=10.0),
    "noise": _NOISE | _OF_NOISE,
    "noise as memory": _NOISE | _OF_MEMORY,
    "memory as noise": _MEMORY | _OF_NOISE,
    "ten Gibbs steps": _MEMORY | _OF_MEMORY | dict(num_gibbs_steps=10),
    "persistent chains": _MEMORY | _OF_MEMORY | dict(persistent=True),
    "saturating loss": _MEMORY | _OF_MEMORY | dict(loss="saturating"),
    "memory as printed": _MEMORY | _PRINTED,
    "noise as printed": _NOISE | _PRINTED,
}
_SHOWN, _WALKS, _COLUMNS = 40, 8, 5
# Figure 2 is a running mean over so many logged steps.
_SMOOTHED = 10


@dataclasses.dataclass(frozen=True)
class Config(loop.LoopConfig):
    # Training steps of each model.
    num_steps: int = 4000
    log_every: int = 20
    checkpoint_every: int = 1000
    # Folder that holds mnist/; empty for the environment variable GASN_DATA, then ../shared/data.
    data_dir: str = ""
    # The part that samples are compared with: test, or validation, on which settings were chosen.
    held_out: str = "test"
    # Models of each arm, of the seeds `seed`, `seed + 1`, ...
    num_seeds: int = 3
    # Which of ARMS are trained.
    arms: tuple[str, ...] = ("memory", "memory with entropy", "noise", "noise as memory")
    # Units of the memory, visible and hidden; the noise has as many numbers.
    sizes: tuple[int, ...] = (100, 1000)
    # Real images, and as many generated ones, in each step.
    batch_size: int = 64
    # Adam's learning rates.
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3
    # Channels of the discriminator's convolutions, each of which halves the image.
    channels: tuple[int, ...] = (16, 32)
    # Widths of the discriminator's layers after the features.
    hidden: tuple[int, ...] = (128,)
    # Images that are drawn from each model to be compared.
    num_eval_samples: int = 5000
    # Chains that start at real images.
    num_walks: int = 1000
    # Training steps of the classifier.
    num_classifier_steps: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.held_out in ("test", "validation")
        require(known, "held_out", "test or validation", self.held_out)
        for name, least in (("num_seeds", 1), ("num_eval_samples", 2), ("num_walks", 8)):
            require(getattr(self, name) >= least, name, f">= {least}", getattr(self, name))
        require(min(self.sizes, default=0) >= 1, "sizes", "numbers >= 1", self.sizes)
        known = len(self.arms) > 0 and set(self.arms) <= set(ARMS)
        require(known, "arms", f"some of {', '.join(ARMS)}", self.arms)
        self.runs()

    def runs(self) -> dict[str, list[aan.Config]]:
        """Returns every arm's configs, one a seed; a ValueError names the field out of range."""
        names = {field.name for field in dataclasses.fields(aan.Config)}
        shared = {name: x for name, x in dataclasses.asdict(self).items() if name in names}

        def run(own: dict[str, Any], size: int, seed: int) -> aan.Config:
            given: dict[str, Any] = {"num_visible": size, "num_hidden": size, "seed": seed}
            given["entropy_weight"] = own.get("entropy_weight", 0.0) / size
            return aan.Config(**shared | own | given)

        seeds = range(self.seed, self.seed + self.num_seeds)
        return {
            f"{arm}, {size}": [run(ARMS[arm], size, seed) for seed in seeds]
            for size in self.sizes
            for arm in self.arms
        }


class Found(NamedTuple):
    """What a trained model shows.

    Attributes:
      statistics: of its samples and its training, by name.
      samples: uint8 [_SHOWN, 28, 28, 1].
      ratio: E[log D(x)] / E[log D(G)] at every logged step, a running mean.
      walk: of a memory: `correlation`, `changed` and `same_class` after each step, and `images`.
    """

    statistics: dict[str, float]
    samples: np.ndarray
    ratio: tuple[np.ndarray, np.ndarray]
    walk: dict[str, np.ndarray]


def train(config: Config, directory: str) -> dict[str, list[Found]]:
    """Trains (or restores) the classifier and every model; then writes the study's files."""
    judge = digit_classifier.train(
        digit_classifier.Config(
            seed=config.seed, num_steps=config.num_classifier_steps, data_dir=config.data_dir
        ),
        os.path.join(directory, "classifier"),
    )
    real = images.DATASETS["mnist"].load(config.data_dir or None, False)
    found = {}
    for arm, runs in config.runs().items():
        found[arm] = [
            _run_one(config, one, _folder(directory, arm, one), judge, real) for one in runs
        ]
        statistics = [one.statistics for one in found[arm]]
        logging.info(
            "%s: %s", arm, {k: [round(s[k], 3) for s in statistics] for k in statistics[0]}
        )
    _save_table(config, directory, judge, real, found)
    _save_figures(config, directory, real, found)
    return found


def _folder(directory, arm, run):
    return os.path.join(directory, f"{arm.replace(', ', '-').replace(' ', '-')}-{run.seed}")


def _run_one(config, run, folder, judge, real):
    state = aan.train(run, folder)
    key = jax.random.key(config.seed)
    many = dataclasses.replace(run, num_samples=config.num_eval_samples)
    samples = aan.draw(many, state, key)
    judged = judge(_held_out(config, real))
    statistics = _statistics(judge(samples), judged)
    steps, ratio = aan.ratio(folder)
    statistics["ratio"] = float(np.mean(ratio[-len(ratio) // 5 :]))
    # Beside chains that need no data, those of training: a few steps from a real image's features,
    # unless they are persistent.
    statistics["trained_frechet_distance"] = statistics["frechet_distance"]
    statistics["painted_class"] = float("nan")
    walk = {}
    if run.memory == "rbm" and not run.persistent:
        starts = images.spread(real.train, config.num_eval_samples)
        short = aan.walk(run, state, key, starts).images[:, run.num_gibbs_steps - 1]
        trained = _statistics(judge(images.as_bytes(short)), judged)
        statistics["trained_frechet_distance"] = trained["frechet_distance"]
    if run.memory == "rbm":
        walk = _walk(run, state, key, _starts(config, real), judge)
        statistics["painted_class"] = walk.pop("painted_class")
    return Found(statistics, samples[:_SHOWN], (steps, _running_mean(ratio)), walk)


def _held_out(config, real):
    return images.spread(getattr(real, config.held_out), config.num_eval_samples)


def _starts(config, real):
    return images.spread(getattr(real, config.held_out), config.num_walks)


def _statistics(mine, theirs):
    return {
        "frechet_distance": features.frechet_distance(mine.features, theirs.features),
        "class_coverage": features.class_coverage(mine.classes, mnist.NUM_CLASSES),
        "class_entropy": features.class_entropy(mine.classes, mnist.NUM_CLASSES),
    }


def _walk(run, state, key, starts, judge):
    """How chains that start at real digits leave them, and what is painted before any step."""
    walk = jax.tree.map(np.asarray, aan.walk(run, state, key, starts))
    pixels = images.as_bytes(walk.images)
    start = images.as_bytes(systems.generate(run.system(), state.generator, walk.start))
    classes = np.stack([judge(step).classes for step in (start, *pixels.swapaxes(0, 1))], axis=1)
    same = classes == judge(starts).classes[:, None]
    return {
        "painted_class": float(np.mean(same[:, 0])),
        "correlation": features.correlation_with_start(walk.start, walk.visible),
        "changed": np.mean(classes[:, 1:] != classes[:, :-1], axis=0),
        "same_class": np.mean(same[:, 1:], axis=0),
        "images": pixels[:_WALKS],
    }


def _running_mean(values):
    width = min(_SMOOTHED, len(values))
    sums = np.cumsum(np.concatenate([np.zeros(width), values]))
    counts = np.minimum(np.arange(1, len(values) + 1), width)
    return (sums[width:] - sums[:-width]) / counts


def _save_table(config, directory, judge, real, found):
    """Rows: the arms, and training digits."""
    rows = {}
    for arm, ones in found.items():
        rows[arm] = {name: [one.statistics[name] for one in ones] for name in ones[0].statistics}
    training = judge(images.spread(real.train, config.num_eval_samples))
    floor = _statistics(training, judge(_held_out(config, real)))
    floor["trained_frechet_distance"] = floor["frechet_distance"]
    floor |= {"ratio": float("nan"), "painted_class": float("nan")}
    rows["training digits"] = {name: [x] for name, x in floor.items()}
    gasn.write_table(os.path.join(directory, "study.csv"), rows)


def _save_figures(config, directory, real, found):
    panels = {"real, held out": _held_out(config, real)[:_SHOWN]}
    panels |= {arm: ones[0].samples for arm, ones in found.items()}
    pictures.save_side_by_side(
        os.path.join(directory, "samples.png"),
        {name: images.shown(x) for name, x in panels.items()},
        columns=_COLUMNS,
    )
    _save_figure2(directory, {arm: [one.ratio for one in ones] for arm, ones in found.items()})
    walks = {arm: [one.walk for one in ones] for arm, ones in found.items() if ones[0].walk}
    if walks:
        _save_figure3(config, directory, real, walks)


def _save_figure3(config, directory, real, walks):
    """Walks of real digits, and how they leave their starts."""
    grids = {}
    for arm, ones in walks.items():
        rows = np.concatenate([_starts(config, real)[:_WALKS, None], ones[0]["images"]], axis=1)
        grids[arm] = images.shown(rows.reshape(-1, *rows.shape[2:]))
    columns = 1 + next(iter(walks.values()))[0]["images"].shape[1]
    title = "A real image, and ten Gibbs steps from its features"
    pictures.save_side_by_side(
        os.path.join(directory, "figure3.png"), grids, columns=columns, title=title
    )
    steps = np.arange(1, columns)
    curves = {
        "correlation of features with the start": "correlation",
        "share that change class in this step": "changed",
        "share of the start's class": "same_class",
    }
    pictures.save_panels(
        os.path.join(directory, "mixing.png"),
        steps,
        {
            title: {arm: pictures.band([one[name] for one in ones]) for arm, ones in walks.items()}
            for title, name in curves.items()
        },
        xlabel="Gibbs step",
        columns=3,
    )


def _save_figure2(directory, ratios):
    """A panel for each size."""
    panels: dict[str, dict[str, Any]] = {}
    for arm, ones in ratios.items():
        name, size = arm.split(", ")
        title = f"E[log D(x)] / E[log D(G)], {size} dimensions"
        panels.setdefault(title, {})[name] = pictures.band([values for _, values in ones])
    steps = next(iter(ratios.values()))[0][0]
    pictures.save_panels(os.path.join(directory, "figure2.png"), steps, panels, xlabel="step")


if __name__ == "__main__":
    common.run(train, Config())
