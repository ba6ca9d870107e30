"""F1 and intersection over union: scikit-learn's numbers, relaxed values, empty sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from gasn_jax.evaluation import overlap

RNG = np.random.default_rng(0)
TRUE = RNG.random((50, 8)) < 0.3
PREDICTED = TRUE ^ (RNG.random((50, 8)) < 0.2)
TRUE[0] = PREDICTED[0] = False  # an example without labels, predicted so
PREDICTED[1] = False


@pytest.mark.parametrize(
    ("ours", "average"),
    [(overlap.example_f1, "samples"), (overlap.macro_f1, "macro"), (overlap.micro_f1, "micro")],
)
def test_f1_is_scikit_learns(ours, average):
    wanted = sklearn.metrics.f1_score(TRUE, PREDICTED, average=average, zero_division=1.0)
    assert ours(PREDICTED, TRUE) == pytest.approx(wanted)
    assert ours(TRUE, TRUE) == 1


def test_iou_is_scikit_learns():
    wanted = sklearn.metrics.jaccard_score(TRUE, PREDICTED, average="samples", zero_division=1.0)
    assert overlap.mean_iou(PREDICTED, TRUE) == pytest.approx(wanted)
    wanted = sklearn.metrics.jaccard_score(TRUE.ravel(), PREDICTED.ravel())
    masks = PREDICTED.reshape(50, 2, 4), TRUE.reshape(50, 2, 4)
    assert overlap.global_iou(*masks) == pytest.approx(wanted)
    assert overlap.mean_iou(*masks) == pytest.approx(overlap.mean_iou(PREDICTED, TRUE))
    assert overlap.global_iou(np.zeros((2, 3)), np.zeros((2, 3))) == 1


@pytest.mark.parametrize(
    ("relaxed", "whole"), [(overlap.f1, overlap.example_f1), (overlap.iou, overlap.mean_iou)]
)
def test_relaxed_values_of_sets_are_the_sets_own(x64, relaxed, whole):
    got = jax.vmap(relaxed)(jnp.asarray(PREDICTED, float), jnp.asarray(TRUE, float))
    assert got.mean() == pytest.approx(whole(PREDICTED, TRUE))
    y, true = RNG.random(8), RNG.random(8)
    both, either = np.minimum(y, true).sum(), np.maximum(y, true).sum()
    wanted = 2 * both / (both + either) if relaxed is overlap.f1 else both / either
    assert relaxed(y, true) == pytest.approx(wanted)
    empty = jnp.zeros(8)
    assert relaxed(empty, empty) == 1 and relaxed(empty, true) == 0 and relaxed(y, empty) == 0
    assert np.all(np.isfinite(jax.grad(relaxed)(empty, empty)))
    assert np.all(np.isfinite(jax.grad(relaxed)(empty, true)))


def test_overlaps_of_large_masks_in_half_precision():
    full = jnp.ones((300, 300), jnp.float16)
    for value in (overlap.f1, overlap.iou):
        found = value(full.at[:150].set(0.0), full)
        assert found.dtype == jnp.float16
        assert found == pytest.approx(2 / 3 if value is overlap.f1 else 1 / 2, rel=1e-3)


def test_float32_overlaps_agree_with_float64_at_size(x64):
    y, true = RNG.random((64, 64, 64)), (RNG.random((64, 64, 64)) < 0.3).astype(float)
    for value in (overlap.f1, overlap.iou):
        both = jax.jit(jax.vmap(jax.value_and_grad(value)))
        wanted, found = both(y, true), both(y.astype("f"), true.astype("f"))
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4)


def test_what_is_not_known_has_no_value():
    known, unknown = jnp.array([0.2, 1.0, 0.0]), jnp.array([jnp.nan, 1.0, 0.0])
    for relaxed in (overlap.f1, overlap.iou, overlap.variable_f1):
        assert np.isnan(relaxed(known, unknown)).any() and np.isnan(relaxed(unknown, known)).any()
        sets = jnp.array([True, False]), jnp.array([True, True])
        assert jnp.issubdtype(relaxed(*sets).dtype, jnp.floating)


def test_the_f1_of_a_variable_is_that_of_its_classes(x64):
    y, true = RNG.random(8), np.eye(2)[RNG.integers(0, 2, 8)]
    both = jnp.stack([1 - y, y], axis=-1)
    wanted = jax.vmap(overlap.f1)(both, jnp.asarray(true))
    np.testing.assert_allclose(overlap.variable_f1(both, true, classes=True), wanted, rtol=1e-12)
    np.testing.assert_allclose(overlap.variable_f1(y, true[:, 1]), wanted, rtol=1e-12)


@pytest.mark.parametrize("value", [overlap.f1, overlap.iou, overlap.variable_f1])
def test_at_the_true_output_the_derivative_is_that_into_the_box(x64, value):
    true = jnp.array([0.0, 0.0, 1.0, 1.0, 1.0])
    inward = 1 - 2 * true
    moved = [jnp.sum(value(true.at[i].add(1e-7 * inward[i]), true)) for i in range(5)]
    wanted = (jnp.stack(moved) - jnp.sum(value(true, true))) / (1e-7 * inward)
    assert np.all(wanted * inward < 0)
    got = jax.grad(lambda y: jnp.sum(value(y, true)))(true)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert np.isnan(value(true.at[1].set(jnp.nan), true)).any()
    classes = jnp.eye(3)[jnp.array([0, 2])]
    got = jax.grad(lambda y: jnp.sum(overlap.variable_f1(y, classes, classes=True)))(classes)
    np.testing.assert_array_equal(got, classes)


def test_the_best_threshold_is_the_best_of_the_candidates():
    scores = np.where(TRUE, 0.3, 0.1)
    candidates = np.array([0.05, 0.2, 0.25, 0.5])
    assert overlap.best_threshold(scores, TRUE, candidates) == (0.2, 1.0)
    found = overlap.best_threshold(scores, TRUE, candidates, lambda p, t: -np.sum(p))
    assert found == (0.5, 0.0)


def test_accuracies_count_pixels_and_superpixels():
    predicted = np.array([[[0, 0, 2], [1, 1, 2]]])
    assert overlap.pixel_accuracy(predicted, predicted + (predicted == 2)) == pytest.approx(4 / 6)
    regions = np.array([[[0, 0, 1], [0, 1, 1]]])
    for true, wanted in (([[0, 2]], 1.0), ([[0, 1]], 0.5), ([[0, 2, 1, -1]], 1.0), ([[1, 1]], 0.0)):
        assert overlap.superpixel_accuracy(predicted, regions, np.array(true)) == wanted
    for true, regions_, message in (
        ([[0]], regions, "superpixels must be 0 to 0"),
        ([[0, -1]], regions, "superpixels must have a label"),
        ([[0, 1]], regions - 1, "superpixels must be 0 to 1"),
        ([0, 1], regions, r"true must have shape \[1, S\]"),
        ([[0, 1]], regions[0], "wanted equal shapes"),
    ):
        with pytest.raises(ValueError, match=message):
            overlap.superpixel_accuracy(predicted, regions_, np.array(true))


@pytest.mark.parametrize("whole", [overlap.example_f1, overlap.mean_iou, overlap.global_iou])
def test_what_is_no_pair_of_sets_is_refused(whole):
    with pytest.raises(ValueError, match="wanted equal shapes"):
        whole(TRUE, TRUE[:3])
    with pytest.raises(ValueError, match="wanted equal shapes"):
        whole(TRUE[:0], TRUE[:0])
    with pytest.raises(ValueError, match="predicted must be 0 or 1"):
        whole(0.5 * TRUE, TRUE)


def test_other_arguments_that_mean_nothing_are_refused():
    for relaxed in (overlap.f1, overlap.iou, overlap.variable_f1):
        with pytest.raises(ValueError, match=r"equal shapes with entries, got \(4,\), \(\)"):
            relaxed(np.ones(4), np.ones(()))
    scores = np.zeros(TRUE.shape)
    with pytest.raises(ValueError, match="candidates must have at least one"):
        overlap.best_threshold(scores, TRUE, np.array([]))
    with pytest.raises(ValueError, match="y must not be NaN"):
        overlap.best_threshold(scores * np.nan, TRUE, np.array([0.5]))
    with pytest.raises(ValueError, match="candidates must not be NaN"):
        overlap.best_threshold(scores, TRUE, np.array([0.5, np.nan]))
    for whole in (overlap.example_f1, overlap.macro_f1):
        with pytest.raises(ValueError, match=r"true must have shape \[M, L\], got \(8,\)"):
            whole(TRUE[0], TRUE[0])
    whole = np.zeros((1, 2, 2), int)
    with pytest.raises(ValueError, match="true must be integers, got float"):
        overlap.superpixel_accuracy(whole, whole, np.zeros((1, 1)))
