"""One method on one data set: its files, its predictions, its resumption, and bad input."""

import dataclasses
import functools
import gzip
import json
import os
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import alen, alen_convergence, alen_tables, energy_methods, structured_outputs
from gasn_jax import checks
from gasn_jax.data import horses, locate
from gasn_jax.energy import gradient_inference
from gasn_jax.nn import multi_label, segmentation
from tests import command_line
from tests.data.test_lfw_superpixels import write as write_faces

TINY: dict = dict(
    num_steps=3, log_every=1, batch_size=4, hidden=3, value_hidden=3, num_interactions=2,
    num_ascent_steps=2, num_refinements=4,
)  # fmt: skip
TINY_IMAGES = TINY | dict(channels=(2, 2, 2), value_channels=(2, 2, 2), group_size=2)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Few examples in the layout of Bibtex and of the horses."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = [f"@attribute w{i} {{0,1}}" for i in range(1836)]
    lines += [f"@attribute TAG_{i} {{0,1}}" for i in range(159)]
    (folder / "bibtex").mkdir()
    for part, count in (("train", 20), ("test", 7)):
        rows = [
            ",".join(f"{i} 1" for i in [*np.sort(rng.choice(1836, 9, False)), 1836 + row % 5])
            for row in range(count)
        ]
        text = "\n".join(["@relation bibtex", *lines, "@data", *(f"{{{row}}}" for row in rows)])
        path = folder / "bibtex" / f"bibtex-{part}.arff.gz"
        path.write_bytes(gzip.compress(f"{text}\n".encode(), mtime=0))

    def part(count):
        images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return horses.MaskedImages(images, rng.integers(0, 2, (count, 32, 32)))

    parts = horses.Horses(part(6), part(3), part(2))
    horses.write_npz(parts, folder / "weizmann_horses" / "weizmann_horse_32x32.npz")
    return str(folder)


def command(arguments):
    """Exit code of the module's command line, in this process."""
    config = alen._default(arguments)
    return command_line.outcome(alen.train, config, arguments, alen.MODES)


def flags(fields):
    return [f"--config.{name}={value}" for name, value in fields.items()]


def test_it_trains_resumes_and_predicts(tmp_path, data_dir):
    run, output = tmp_path / "run", tmp_path / "output"
    arguments = [f"--workdir={run}", f"--config.data_dir={data_dir}", *flags(TINY)]
    assert command(arguments) == 0
    files = {path.name for path in run.iterdir()}
    assert {"evaluation.json", "refinement.png", "refinement.csv", "metrics.jsonl"} <= files
    first = (run / "evaluation.json").read_text()
    found = json.loads(first)
    assert set(found["refined"]) == {"example F1", "micro F1", "macro F1"}
    assert command(arguments) == 0
    assert (run / "evaluation.json").read_text() == first

    _, held_out = structured_outputs.load("bibtex", data_dir, "test")
    np.savez(tmp_path / "new.npz", features=held_out.x)
    new = [f"--input={tmp_path / 'new.npz'}", f"--output={output}"]
    assert command([f"--workdir={run}", "--mode=predict", *new]) == 0
    assert (output / "predictions.png").stat().st_size > 500
    with np.load(output / "predictions.npz", allow_pickle=False) as archive:
        assert archive["trajectory"].shape == (7, 5, 159) and archive["values"].shape == (7, 5)
        threshold = alen.settled("bibtex", "alen").threshold
        decided = archive["trajectory"][:, -1] > threshold
        np.testing.assert_array_equal(archive["predicted"], decided)
        scores = structured_outputs.DATASETS["bibtex"].scores(decided, held_out)
    assert scores == pytest.approx(found["refined"])


@pytest.mark.parametrize("method", energy_methods.METHODS)
def test_every_method_predicts_relaxed_labels(method):
    config = alen.settled("bibtex", method, **TINY)
    state = alen.init(config, jax.random.key(0))
    batch = structured_outputs.Examples(jnp.ones((4, 1836)), jnp.zeros((4, 159)).at[:, :3].set(1.0))
    after, metrics = jax.jit(lambda *args: alen.train_step(config, *args))(
        state, batch, jax.random.key(1)
    )
    assert all(np.isfinite(value) for value in jax.tree.leaves(metrics))
    moved = jax.tree.map(lambda a, b: np.any(a != b), after["average"], state["average"])
    assert any(jax.tree.leaves(moved))
    found = alen.predict(config, after, np.ones((2, 1836), np.float32))
    assert found.trajectory.shape[::2] == (2, 159) and np.all(np.isfinite(found.values))
    assert np.all((found.trajectory >= 0) & (found.trajectory <= 1))


def test_what_the_methods_are():
    def of(method, dataset="bibtex"):
        return energy_methods.learner(alen.settled(dataset, method)).system

    assert of("logistic").network.hidden == () and of("feed_forward").network.hidden == (400,)
    assert of("feed_forward").value is None and of("inference_network").value is not None
    assert of("spen").loss == "structured_hinge" and of("spen_end_to_end").loss == "end_to_end"
    names = ("network_weight", "refined_weight", "adversarial_weight", "surrogate_weight")
    left_out = {
        "alen": set(),
        "aen": {"refined_weight"},
        "alen_no_task": {"surrogate_weight"},
        "network_alone": {"network_weight", "refined_weight", "adversarial_weight"},
    }
    for dataset, oracle in (("bibtex", "f1"), ("horses", "variable_f1")):
        for method, zero in left_out.items():
            system, whole = of(method, dataset), of("alen", dataset)
            assert {name for name in names if getattr(system, name) == 0} == zero
            assert (system.ascent == whole.ascent) == (method != "network_alone")
            assert system.outputs == whole.outputs and whole.outputs.oracle == oracle
    assert of("network_alone").ascent.num_steps == 0
    assert of("dvn").outputs.oracle == "f1"
    assert energy_methods._outputs(alen.settled("horses", "dvn", energy="scores")).oracle == "iou"


def test_every_setting_reaches_its_method():
    """Of numbers that are all different."""
    settings: dict = dict(
        network_rate=0.011, value_rate=0.012, network_decay=0.013, value_decay=0.014,
        network_weight=0.15, refined_weight=0.16, adversarial_weight=0.17, cost_weight=0.18,
        unary_share=0.19, joint_share=0.21, true_share=0.22, adversarial_share=0.23, num_steps=100,
        num_ascent_steps=24, step_size=0.25, momentum=0.26, normalize=False, dropout_rate=0.27,
        value_dropout_rate=0.28, hidden=29, value_hidden=31, num_interactions=32,
        initial_logit=-0.33, num_adversarial_steps=34, constant_oracle=False,
    )  # fmt: skip
    decays = {"network_rate", "value_rate", "network_decay", "value_decay"}
    own = {
        "feed_forward": {"network_rate", "network_decay"},
        "inference_network": decays | {"cost_weight", "adversarial_weight"},
        "dvn": {"value_rate", "value_decay", "true_share", "adversarial_share"}
        | {"num_adversarial_steps", "constant_oracle"},
        "spen": {"value_rate", "value_decay", "cost_weight"},
        "alen": decays | {"network_weight", "refined_weight", "adversarial_weight"},
    }
    for method, names in own.items():
        system = energy_methods.learner(alen.Config(method=method, **settings)).system
        assert {name: getattr(system, name) for name in names} == {n: settings[n] for n in names}
        if network := getattr(system, "network", None):
            assert network == multi_label.LabelNetwork(159, (29,), 0.27, -0.33)
        if getattr(system, "value", None):
            assert system.value == multi_label.LabelValue(159, (31,), 32, 0.28)
        if ascent := getattr(system, "ascent", None):
            assert ascent == gradient_inference.Ascent(24, 0.25, momentum=0.26)
        if method == "spen":
            assert system.num_unary_steps == 19
        if method == "inference_network":
            assert system.num_joint_steps == 21
    images: dict = dict(
        channels=(2, 4, 6), value_channels=(4, 2, 8), skips=False, dropout_rate=0.1,
        value_dropout_rate=0.2, group_size=2, group_rows=True, energy="overlap",
    )  # fmt: skip
    for dataset, num_classes in (("horses", 0), ("lfw_parts", 3)):
        config = alen.settled(dataset, "alen", **images)
        system = energy_methods.learner(config).system
        network = (2, 4, 6), False, 0.1, 2, True, num_classes
        assert system.network == segmentation.SegmentationNetwork(*network)
        value = (4, 2, 8), False, 0.2, 2, True, "overlap"
        assert system.value == segmentation.SegmentationValue(*value)
        assert system.ascent.unroll == (jax.default_backend() == "cpu")
    assert not energy_methods.learner(alen.settled("bibtex", "alen")).system.ascent.unroll


def test_each_end_has_its_own_threshold():
    config = alen.settled("bibtex", "alen", threshold=0.6, network_threshold=0.2)
    y = np.array([[[0.3, 0.1], [0.7, 0.5]]], np.float32)
    true = structured_outputs.Examples(np.zeros(1), np.array([[1.0, 0.0]]))
    found = alen.evaluate(config, alen.Predicted(y, np.zeros((1, 2))), true)
    assert found["network"]["example F1"] == found["refined"]["example F1"] == 100
    config = dataclasses.replace(config, threshold=0.2, network_threshold=0.6)
    found = alen.evaluate(config, alen.Predicted(y, np.zeros((1, 2))), true)
    assert found["network"]["example F1"] == 0
    assert found["refined"]["example F1"] == pytest.approx(200 / 3)


def test_inputs_of_another_width_are_refused():
    config = alen.settled("bibtex", "alen", **TINY)
    for shape in ((0, 1836), (2, 1835), (1836,)):
        with pytest.raises(ValueError, match=r"x must have shape \[M, 1836\], M >= 1, got \["):
            alen.predict(config, None, np.zeros(shape, np.float32))


def test_more_steps_than_memory_holds_are_refused_before_training(tmp_path, data_dir, capsys):
    arguments = [f"--workdir={tmp_path / 'run'}", f"--config.data_dir={data_dir}"]
    assert command([*arguments, *flags(TINY | dict(num_refinements=2**31 - 1))]) == 2
    error = capsys.readouterr().err
    assert "num_refinements: wanted at most the" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    # the masks of two images would fit, those of all their crops do not
    config = alen.settled("horses", "alen", num_refinements=10**6)
    memory = mock.patch.object(checks.os, "sysconf", lambda name: 2**18)  # 64 GiB
    with memory, pytest.raises(ValueError, match="at most the 64 GiB of this machine, got 7"):
        alen.predict(config, None, np.zeros((2, 32, 32, 3), np.float32))


def test_data_of_another_width_are_refused(data_dir, monkeypatch):
    bibtex = structured_outputs.DATASETS["bibtex"]
    other = bibtex._replace(x_shape=(1837,))
    monkeypatch.setitem(structured_outputs.DATASETS, "bibtex", other)
    with pytest.raises(locate.DataError, match="wanted 1837 features.*got 1836"):
        structured_outputs.load("bibtex", data_dir, "test")


def test_the_validation_part_is_not_trained_on(data_dir):
    for dataset, count in (("bibtex", 20), ("horses", 9)):
        fit, validation = structured_outputs.load(dataset, data_dir, "validation")
        whole, test = structured_outputs.load(dataset, data_dir, "test")
        rows = [{row.tobytes() for row in part.x} for part in (fit, validation, whole, test)]
        assert len(fit.x) + len(validation.x) == len(whole.x) == count
        assert not rows[0] & rows[1] and rows[0] | rows[1] == rows[2] and not rows[2] & rows[3]


def test_a_batch_is_of_the_data_s_own_pairs():
    config = alen.settled("bibtex", "alen", **TINY)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 1836)), rng.integers(0, 2, (9, 159))
    data = structured_outputs.Examples(jnp.float32(x), jnp.float32(y))
    keys = jax.random.split(jax.random.key(0), 50)
    batches = jax.vmap(lambda key: alen.batch(config, data, key))(keys)
    rows = np.argmax(np.asarray(batches.x[:, :, :1]) == np.asarray(data.x[:, 0]), axis=-1)
    np.testing.assert_array_equal(batches.x, data.x[rows])
    np.testing.assert_array_equal(batches.y, data.y[rows])
    assert rows.shape == (50, 4) and set(rows.ravel()) == set(range(9))


def test_a_batch_of_images_is_of_moved_crops():
    config = alen.settled("horses", "alen", **TINY_IMAGES | dict(batch_size=3, crop=24))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (1, 32, 32, 3)), rng.integers(0, 2, (1, 32, 32))
    data = structured_outputs.Examples(jnp.float32(x), jnp.float32(y))
    found = alen.batch(config, data, jax.random.key(0))
    assert found.x.shape == (3, 24, 24, 3) and found.y.shape == (3, 24, 24)
    assert len({mask.tobytes() for mask in np.asarray(found.y)}) == 3


def test_a_step_moves_the_running_mean_by_its_share():
    config = alen.settled("bibtex", "alen", **TINY, average_decay=0.9)
    state = alen.init(config, jax.random.key(0))
    data = structured_outputs.Examples(jnp.ones((4, 1836)), jnp.ones((4, 159)))
    after, _ = alen.train_step(config, state, data, jax.random.key(1))
    for name in ("network", "value"):
        jax.tree.map(
            lambda mean, old, new: np.testing.assert_allclose(
                mean, 0.9 * old + 0.1 * new, rtol=1e-4, atol=1e-6
            ),
            after["average"][name],
            state["average"][name],
            getattr(after["system"], name),
        )


def test_predictions_are_of_the_running_mean():
    config = alen.settled("bibtex", "alen", **TINY)
    state = alen.init(config, jax.random.key(0))
    x = np.ones((2, 1836), np.float32)
    found = alen.predict(config, state, x).trajectory
    shift = functools.partial(jax.tree.map, lambda leaf: leaf + 1)
    system = state["system"]._replace(network=shift(state["system"].network))
    same = alen.predict(config, state | {"system": system}, x).trajectory
    np.testing.assert_array_equal(same, found)
    moved = alen.predict(config, state | {"average": shift(state["average"])}, x).trajectory
    assert np.abs(moved - found).max() > 0.1


def test_many_inputs_are_predicted_part_by_part(monkeypatch):
    config = alen.settled("bibtex", "alen", **TINY)
    state = alen.init(config, jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(7, 1836)).astype(np.float32)
    whole = alen.predict(config, state, x)
    monkeypatch.setattr(alen, "_CHUNK", 3)
    for got, wanted in zip(alen.predict(config, state, x), whole, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_what_has_no_value_of_its_own_is_not_refined():
    for method in ("network_alone", "feed_forward"):
        config = alen.settled("bibtex", method, hidden=3, value_hidden=3)
        state = alen.init(config, jax.random.key(0))
        found = alen.predict(config, state, np.ones((2, 1836), np.float32))
        assert found.trajectory.shape == (2, 1, 159)
        config = alen.settled("horses", method, **TINY_IMAGES | dict(num_refinements=3))
        state = jax.eval_shape(lambda config=config: alen.init(config, jax.random.key(0)))
        squares = jax.ShapeDtypeStruct((2, 24, 24, 3), jnp.float32)
        found = jax.eval_shape(alen.predictor(config), state, squares)
        assert found.trajectory.shape == (2, 1, 24, 24)
    # an AEN's has learnt of proposals, with or without ascents
    config = alen.settled("bibtex", "aen", **TINY | dict(num_ascent_steps=0))
    state = alen.init(config, jax.random.key(0))
    found = alen.predict(config, state, np.ones((2, 1836), np.float32))
    assert found.trajectory.shape == (2, 5, 159)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "energy", "method"),
    [
        *(("horses", "pixels", name) for name in ("feed_forward", "dvn", "network_alone", "alen")),
        *(("lfw_parts", "pixels", name) for name in ("dvn", "alen_no_task", "aen")),
        ("lfw_parts", "overlap", "alen"),
        ("horses", "scores", "dvn"),
    ],
)
def test_every_method_of_images_has_a_step_and_a_prediction(dataset, method, energy):
    """Traced only: shapes and types; of whole images in training, of squares in predictions."""
    config = alen.settled(dataset, method, **TINY_IMAGES | dict(energy=energy))
    data = config.data
    state = jax.eval_shape(lambda: alen.init(config, jax.random.key(0)))
    x, y = (jax.ShapeDtypeStruct((4, *s), jnp.float32) for s in (data.x_shape, data.y_shape))
    batch = structured_outputs.Examples(x, y)
    after, metrics = jax.eval_shape(
        lambda s, b: alen.train_step(config, s, b, jax.random.key(1)), state, batch
    )
    assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))
    shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (after, state)]
    assert shapes[0] == shapes[1]
    squares = jax.ShapeDtypeStruct((4, 24, 24, 3), jnp.float32)
    found = jax.eval_shape(alen.predictor(config), state, squares)
    count, _, *shape = found.trajectory.shape
    assert (count, *shape) == (4, 24, 24, *data.y_shape[2:])
    assert found.values.shape == found.trajectory.shape[:2]


@pytest.mark.slow
def test_masks_are_segmented(tmp_path, data_dir):
    config = alen.settled("horses", "alen", **TINY_IMAGES, data_dir=data_dir)
    found = alen.train(config, str(tmp_path / "run"))
    assert set(found["network"]) == {"mean IOU", "global IOU", "pixel accuracy"}
    assert (tmp_path / "run" / "examples.png").stat().st_size > 500
    images = horses.load(data_dir).test.images
    np.savez(tmp_path / "new.npz", images=images)
    alen.predict_file(config, str(tmp_path / "run"), str(tmp_path / "new.npz"), str(tmp_path))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as archive:
        assert archive["predicted"].shape == (2, 32, 32)
    assert (tmp_path / "predictions.png").stat().st_size > 500


@pytest.mark.slow
def test_mirrored_predictions_are_those_of_the_mirror_image():
    config = alen.settled("horses", "alen", **TINY_IMAGES, mirrored=True)
    state = alen.init(config, jax.random.key(0))
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    found, other = (alen.predict(config, state, given) for given in (x, x[:, :, ::-1]))
    np.testing.assert_allclose(
        found.trajectory, other.trajectory[:, :, :, ::-1], rtol=1e-4, atol=1e-5
    )
    plain = alen.predict(dataclasses.replace(config, mirrored=False), state, x)
    assert np.abs(found.trajectory - plain.trajectory).max() > 1e-3


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 32, 32, 3)])
def test_what_views_show_is_joined_again(shape):
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    views = structured_outputs.views(side=24, step=3, mirrored=True)
    assert len(set(views)) == 32 and {view.top for view in views} == {0, 3, 6, 8}
    seen = [view.of(images, axis=1) for view in views]
    np.testing.assert_allclose(structured_outputs.joined(seen, views, axis=1), images, rtol=1e-6)
    np.testing.assert_array_equal(seen[1], images[:, :24, 23::-1])
    assert structured_outputs.views(side=32, step=5, mirrored=False) == [(0, 0, 32, False)]


@pytest.mark.slow
def test_predictions_are_averaged_over_crops():
    options = dict(crop=24, crop_step=8, mirrored=False)
    config = alen.settled("horses", "feed_forward", **TINY_IMAGES, **options)
    state = alen.init(config, jax.random.key(0))
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    found = alen.predict(config, state, x).trajectory
    plain = jax.jit(alen.predictor(config))
    total, count = np.zeros((2, 1, 32, 32)), np.zeros((32, 32))
    for top, left in ((0, 0), (0, 8), (8, 0), (8, 8)):
        rows, columns = slice(top, top + 24), slice(left, left + 24)
        total[:, :, rows, columns] += plain(state, x[:, rows, columns]).trajectory
        count[rows, columns] += 1
    np.testing.assert_allclose(found, total / count, rtol=1e-4, atol=1e-5)


def test_superpixels_are_scored_where_they_are_known(tmp_path):
    """On made files in the published layout, whose superpixels are quarters and an eighth."""
    write_faces(tmp_path, size=64)
    fit, held_out = structured_outputs.load("lfw_superpixels", str(tmp_path), "test")
    assert fit.superpixels is None and fit.x.shape == (4, 32, 32, 3)
    right = held_out.y > 0.5
    scores = structured_outputs.DATASETS["lfw_superpixels"].scores
    assert scores(right, held_out) == {"superpixel accuracy": 100, "pixel accuracy": 100}
    wrong = right.copy()
    wrong[0, 16:, 16:] = np.roll(right[0, 16:, 16:], 1, axis=-1)
    wrong[1, :8, :4] = np.roll(right[1, :8, :4], 1, axis=-1)  # a quarter of a superpixel
    found = scores(wrong, held_out)
    assert found["superpixel accuracy"] == pytest.approx(90)
    assert found["pixel accuracy"] == pytest.approx(100 * (1 - (256 + 32) / 2048))
    unknown = held_out._replace(superpixels=None)
    assert scores(wrong, unknown) == {"pixel accuracy": found["pixel accuracy"]}


@pytest.mark.slow
def test_the_published_faces_are_learnt_and_scored(tmp_path):
    write_faces(tmp_path, size=64)
    shared = TINY_IMAGES | dict(data_dir=str(tmp_path))
    run = tmp_path / "run"
    alen.train(alen.settled("lfw_superpixels", "feed_forward", **shared), str(run))
    scores = json.loads((run / "evaluation.json").read_text())["refined"]
    assert list(scores) == ["superpixel accuracy", "pixel accuracy"]
    assert all(0 <= score <= 100 for score in scores.values())


def test_the_published_faces_have_the_settings_of_the_packed_ones():
    table = alen_tables.Config(table=2, dataset="lfw_superpixels")
    run = table.runs(alen_tables.TABLES[2].rows[-1])[0]
    packed = alen.settled("lfw_parts", run.method)
    assert dataclasses.replace(run, dataset="lfw_parts") == packed


@pytest.mark.parametrize("dataset", ["horses", "lfw_parts"])
def test_examples_are_moved_with_their_masks(dataset):
    """A mask that is the photograph's first channel stays so, but for the edges of its parts."""
    data = structured_outputs.DATASETS[dataset]
    blob = np.zeros((32, 32), np.float32)
    blob[8:20, 2:12] = 1  # on one side: seen whether it is mirrored alike
    x = np.repeat(blob[..., None], 3, axis=-1)
    y = blob if dataset == "horses" else np.stack([blob, 1 - blob, 0 * blob], axis=-1)
    assert data.augment is not None
    moved = []
    for seed in range(5):
        new_x, new_y = data.augment(jax.random.key(seed), x, y, side=32)
        assert new_x.shape == x.shape and new_y.shape == y.shape
        assert np.all((new_y == 0) | (new_y == 1))
        mask = np.asarray(new_y if new_y.ndim == 2 else new_y[..., 0])
        inside, outside = (np.asarray(new_x)[mask == k] for k in (1, 0))
        assert inside.mean() > outside.mean() + 0.4
        moved.append(mask)
        small_x, small_y = data.augment(jax.random.key(seed), x, y, side=24)
        assert small_x.shape == (24, 24, 3) and small_y.shape == (24, 24, *y.shape[2:])
    assert len({mask.tobytes() for mask in moved}) == 5


def test_the_best_threshold_is_told_on_the_validation_part():
    config = alen.settled("bibtex", "feed_forward", held_out="validation")
    y = np.array([[[0.3, 0.1, 0.17]], [[0.1, 0.35, 0.12]]], np.float32)
    true = structured_outputs.Examples(np.zeros(2), np.array([[1.0, 0, 0], [0, 1, 0]]))
    found = alen.evaluate(config, alen.Predicted(y, np.zeros((2, 1))), true)
    assert found["best threshold of refined"] == [0.2, 100.0]
    config = dataclasses.replace(config, held_out="test")
    assert set(alen.evaluate(config, alen.Predicted(y, np.zeros((2, 1))), true)) == {
        "network", "refined",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.dataset=mnist"], "dataset: wanted one of bibtex"),
        (["--config.method=crf"], "method: wanted one of logistic"),
        (["--config.held_out=train"], "held_out: wanted one of test, validation"),
        (["--config.step_size=0.0"], "step_size: wanted > 0 and within float32"),
        (["--config.true_share=2"], "true_share: wanted in [0, 1], got 2.0"),
        (["--config.value_decay=inf"], "value_decay: wanted >= 0 and within float32"),
        (["--config.initial_logit=nan"], "initial_logit: wanted within float32, got nan"),
        (["--config.method=spen", "--config.num_ascent_steps=0"], "num_ascent_steps: wanted >= 1"),
        (
            ["--config.method=logistic", "--config.value_rate=nan"],
            "value_rate: wanted > 0 and within float32, got nan",
        ),
        (
            ["--config.method=dvn", "--config.batch_size=2"],
            "batch_size: wanted >= 3 for dvn, got 2",
        ),
        (["--config.channels=(1,2)"], "channels: wanted three numbers >= 1"),
        (["--config.threshold=1.0"], "threshold: wanted in [0, 1)"),
        (["--config.mirrored=true"], "mirrored: wanted false for labels"),
        (
            ["--config.dataset=horses", "--config.group_size=7"],
            "group_size: wanted 0, or a divisor",
        ),
        (["--config.energy=mean"], "energy: wanted one of scores, overlap, pixels"),
        (
            ["--config.dataset=horses", "--config.method=spen"],
            "method: wanted one of feed_forward, dvn, ",
        ),
        (["--config.crop=24"], "crop: wanted 32 for labels"),
        (["--config.num_ascent_steps=-1"], "bad config: num_ascent_steps: wanted >= 0, got -1"),
        (["--config.dataset=horses", "--config.crop=23"], "crop: wanted a multiple of 4"),
        (["--config.dataset=horses", "--config.crop_step=0"], "crop_step: wanted in [1, crop]"),
        (["--config.data_dir=/nowhere"], "data file bibtex/bibtex-train.arff.gz not found"),
        (["--mode=predict", "--output=x"], "missing --input"),
        (["--mode=predict", "--input=x", "--output=y", "--config.seed=1"], "leave --config out"),
        (["--mode=draw"], "--mode: wanted train or predict"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, capsys, arguments, message):
    assert command([f"--workdir={tmp_path / 'run'}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(features=np.zeros((2, 5))), "features: wanted [M, 1836], M >= 1, got [2, 5]"),
        (dict(features=np.zeros((0, 1836))), "wanted [M, 1836], M >= 1, got [0, 1836]"),
        (dict(features=np.full((1, 1836), np.nan)), "features: wanted finite numbers"),
        (
            dict(features=np.full((1, 1836), 1e39)),
            "features: wanted finite numbers of float32's range",
        ),
        (
            dict(images=np.zeros((1, 1836))),
            "cannot read field features: the archive holds images",
        ),
        (dict(features=np.array(["a"])), "field features must be an array of numbers"),
    ],
)
def test_bad_inputs_are_one_line(tmp_path, capsys, arrays, message):
    run, path = tmp_path / "run", tmp_path / "new.npz"
    run.mkdir()
    config = dataclasses.asdict(alen.settled("bibtex", "alen"))
    (run / "config.json").write_text(json.dumps(config))
    np.savez(path, **arrays)
    arguments = [f"--workdir={run}", "--mode=predict", f"--input={path}", f"--output={tmp_path}"]
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and str(path) in error
    path.write_bytes(b"no archive")
    assert command(arguments) == 2
    assert "is not an .npz archive" in capsys.readouterr().err
    assert command([*arguments[:2], f"--input={tmp_path}", arguments[3]]) == 2
    assert capsys.readouterr().err.startswith(f"cannot use {tmp_path}: Is a directory")
    for changed in (
        {"channels": 3}, {"batch_size": 0}, {"num_refinements": 3.5}, {"normalize": "yes"},
        {"channels": [1, 2.5, 3]}, {"num_steps": True}, {"dataset": None},
    ):  # fmt: skip
        (run / "config.json").write_text(json.dumps(config | changed))
        assert command(arguments) == 4
        assert "holds a damaged config.json" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_predicted(
    tmp_path, capsys, monkeypatch
):
    run, path = tmp_path / "run", tmp_path / "new.npz"
    run.mkdir()
    config = dataclasses.asdict(alen.settled("bibtex", "alen"))
    (run / "config.json").write_text(json.dumps(config))
    np.savez(path, features=np.zeros((1, 1836)))
    monkeypatch.setattr(os, "access", lambda folder, mode: "closed" not in str(folder))
    for output, problem in (
        (path, "File exists"),
        (path / "inside", "Not a directory"),
        (tmp_path / "closed", "permission denied"),
    ):
        assert (
            command([f"--workdir={run}", "--mode=predict", f"--input={path}", f"--output={output}"])
            == 2
        )
        wanted = f"output: wanted a folder to write to, got '{output} ({problem})' (see --help)\n"
        assert capsys.readouterr().err == wanted


@pytest.mark.slow
def test_a_table_trains_its_rows(tmp_path, data_dir, monkeypatch):
    """The last two, which are of one model, and the first; each method has its own tests above."""
    table = alen_tables.TABLES[1]
    rows = (table.rows[0], *table.rows[-2:])
    monkeypatch.setitem(alen_tables.TABLES, 1, table._replace(rows=rows))
    config = alen_tables.Config(table=1, num_seeds=2, num_steps=1, data_dir=data_dir)
    found = alen_tables.train(config, str(tmp_path))
    names = [row.name for row in rows]
    assert list(found) == names and all(len(v["example F1"]) == 2 for v in found.values())
    methods = {row.method for row in rows}
    folders = {f"{method}-{seed}" for method in methods for seed in (0, 1)}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == folders
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(names) and lines[-1].endswith("| 46.4 |")


def test_a_row_has_the_scores_of_its_own_runs_and_end(tmp_path, monkeypatch):
    """With made evaluations: of each method and seed another score, and of the network half."""
    methods = list(energy_methods.METHODS)

    def train(run, place):
        score = float(100 * methods.index(run.method) + run.seed)
        assert place == str(tmp_path / f"{run.method}-{run.seed}")
        assert (run.held_out, run.data_dir, run.log_every) == ("validation", "there", 7)
        return {"refined": {"example F1": score}, "network": {"example F1": score / 2}}

    monkeypatch.setattr(alen, "train", train)
    config = alen_tables.Config(
        table=1, num_seeds=2, seed=3, held_out="validation", data_dir="there", log_every=7
    )
    found = alen_tables.train(config, str(tmp_path))
    for row in alen_tables.TABLES[1].rows:
        half = row.name in ("InfNet baseline", "InfNet (ALEN)")
        scores = [100.0 * methods.index(row.method) + seed for seed in (3, 4)]
        assert found[row.name]["example F1"] == [score / 2 if half else score for score in scores]


@pytest.mark.parametrize("table", [2, 3])
def test_a_wide_table_has_the_paper_s_networks_and_steps_of_their_own(table):
    config = alen_tables.Config(table=table, wide=True)
    runs = [run for row in alen_tables.TABLES[table].rows for run in config.runs(row)]
    assert {(run.channels, run.value_channels) for run in runs} == {((64, 128, 128),) * 2}
    narrow = alen_tables.Config(table=table).runs(alen_tables.TABLES[table].rows[-1])[0]
    assert narrow.channels != runs[-1].channels and narrow.num_steps != runs[-1].num_steps
    assert narrow.num_refinements == runs[-1].num_refinements
    with pytest.raises(ValueError, match="wide networks are of masks, not of bibtex's labels"):
        alen.settled("bibtex", "alen", wide=True)


@pytest.mark.parametrize(
    ("table", "dataset", "line"),
    [
        (1, "bibtex", "| ALEN | 1.50 | 0.71 | 46.4 |"),
        (1, "bookmarks", "| ALEN | 1.50 | 0.71 | 38.3 |"),
        (2, "lfw_parts", "| ALEN | 1.50 | 0.71 | 96.47 |"),
        (2, "lfw_superpixels", "| ALEN | 1.50 | 0.71 | 96.47 |"),
        (3, "horses", "| ALEN | 1.50 | 0.71 | 85.5 | 1.50 | 0.71 | 85.4 |"),
    ],
)
def test_a_table_has_the_paper_s_numbers_of_its_data_set(tmp_path, table, dataset, line):
    config = alen_tables.Config(table=table, dataset=dataset, num_seeds=2)
    scores = alen_tables.TABLES[table].scores[dataset]
    rows = alen_tables.TABLES[table].rows
    found = {row.name: {score: [1.0, 2.0] for score in scores} for row in rows}
    alen_tables._save(config, str(tmp_path), found)
    assert (tmp_path / "table.md").read_text().splitlines()[-1] == line


def test_settings_are_found_however_a_flag_is_given():
    one = alen._default(["--config.dataset=horses", "--config.method=dvn"])
    two = alen._default(["--config.dataset", "horses", "-config.method", "dvn"])
    assert one == two == alen.settled("horses", "dvn")


@pytest.mark.slow
def test_convergence_draws_both_figures(tmp_path, data_dir):
    num_refinements = alen.settled("bibtex", "alen").num_refinements
    config = alen_convergence.Config(
        num_seeds=2, num_steps=3, num_refinements=num_refinements, data_dir=data_dir
    )
    found = alen_convergence.train(config, str(tmp_path))
    assert set(found) == {"ALEN", "DVN"}
    # both curves end with the same prediction
    for steps, epochs in found["ALEN"]:
        assert len(steps) == num_refinements + 1 and epochs[-1] == pytest.approx(steps[-1])
    assert {path.name for path in tmp_path.glob("figure*")} == {
        "figure3.png", "figure3.csv", "figure4.png", "figure4.csv",
    }  # fmt: skip
    steps, epochs = found["DVN"][0]
    assert len(epochs) == 3 and np.all((steps >= 0) & (steps <= 100))
    assert set(json.loads((tmp_path / "steps.json").read_text())) == {"ALEN", "DVN"}


def test_convergence_is_the_first_step_near_the_best(tmp_path):
    config = alen_convergence.Config(num_epochs=5)
    alen_tail, dvn_tail = np.array([40.0, 45]), np.array([10.0, 30, 44])
    curves = {
        "ALEN": [
            (np.array([44.0, 45.4, 45.6, 46, 30]), alen_tail),
            (np.array([46.0, 45, 44, 43, 42]), alen_tail),
        ],
        "DVN": [(np.array([0.0, 20, 44, 44.4, 44]), dvn_tail)],
    }
    alen_convergence._save(config, str(tmp_path), curves)
    found = json.loads((tmp_path / "steps.json").read_text())
    assert found == {"ALEN": {"steps": [2, 0], "mean": 1.0}, "DVN": {"steps": [2], "mean": 2.0}}
    lines = (tmp_path / "figure4.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["5", "10", "15"]
    studied = alen_convergence.Config(held_out="validation", data_dir="there", num_epochs=2)
    for run in studied.runs("alen", 640):
        assert (run.held_out, run.data_dir, run.log_every) == ("validation", "there", 20)


@pytest.mark.parametrize(
    ("module", "argument", "message"),
    [
        (alen_tables, "--config.table=4", "table: wanted 1, 2 or 3, got 4"),
        (alen_tables, "--config.dataset=horses", "dataset: wanted one of bibtex, bookmarks"),
        (alen_tables, "--config.num_seeds=0", "num_seeds: wanted >= 1"),
        (alen_tables, "--config.wide=true", "wide: wanted false for labels"),
        (alen_convergence, "--config.dataset=horses", "dataset: wanted bibtex or bookmarks"),
        (alen_convergence, "--config.num_epochs=0", "num_epochs: wanted >= 1"),
        (alen_convergence, "--config.num_refinements=0", "num_refinements: wanted >= 1"),
    ],
)
def test_bad_flags_of_studies_are_one_line(tmp_path, capsys, module, argument, message):
    arguments = [f"--workdir={tmp_path / 'run'}", argument]
    assert command_line.outcome(module.train, module.Config(), arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
