"""Segmentation networks: shapes, what they see, and their parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import segmentation

KEY = jax.random.key(0)
IMAGE = jax.random.normal(KEY, (16, 12, 3))


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize(("num_classes", "shape"), [(0, (16, 12)), (3, (16, 12, 3))])
def test_every_pixel_gets_logits(num_classes, shape, skips):
    network = segmentation.SegmentationNetwork((4, 5, 6), skips, 0.5, num_classes=num_classes)
    params = network.init(KEY, IMAGE)
    logits = network.apply(params, IMAGE)
    assert logits.shape == shape
    dropped = network.apply(params, IMAGE, deterministic=False, rngs={"dropout": KEY})
    assert np.any(np.asarray(dropped) != np.asarray(logits))


def test_groups_of_channels_are_normalised():
    """Logits then do not depend on the contrast of the photograph, but for the bias of a layer."""
    logits = {}
    for size in (0, 2):
        network = segmentation.SegmentationNetwork((4, 6, 6), group_size=size)
        params = network.init(KEY, IMAGE)
        logits[size] = [network.apply(params, scale * IMAGE) for scale in (1.0, 8.0)]
    np.testing.assert_allclose(*logits[2], rtol=1e-3, atol=1e-4)
    assert np.abs(logits[0][1]).max() > 4 * np.abs(logits[0][0]).max()


@pytest.mark.parametrize(("by_rows", "axes"), [(False, (0, 1, 3)), (True, (1, 3))])
def test_what_is_normalised_together(by_rows, axes):
    """The first norm's output has mean 0 and variance 1 in each group of channels."""
    network = segmentation.FullyConvolutional((4, 6, 6), group_size=2, group_rows=by_rows)
    params = network.init(KEY, IMAGE)
    _, found = network.apply(params, IMAGE, capture_intermediates=True)
    (image,) = found["intermediates"]["GroupNorm_0"]["__call__"]
    image = image.reshape(*IMAGE.shape[:2], 2, 2)
    np.testing.assert_allclose(np.mean(image, axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(image, axis=axes), 1, rtol=1e-3)
    rows = np.abs(np.mean(image, axis=(1, 3))).max()
    assert rows < 1e-5 if by_rows else rows > 0.01


def test_sides_that_cannot_be_halved_twice_are_named():
    with pytest.raises(ValueError, match=r"sides divisible by 4, got \(30, 32, 3\)"):
        segmentation.SegmentationNetwork((4, 5, 6)).init(KEY, jnp.ones((30, 32, 3)))


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)])
def test_a_value_is_the_mean_of_a_matrix_of_scores(shape):
    value = segmentation.SegmentationValue((4, 5, 6))
    y = jax.random.uniform(KEY, shape)
    params = value.init(KEY, IMAGE, y)
    trunk = segmentation.FullyConvolutional((4, 5, 6))
    inner = {"params": params["params"]["FullyConvolutional_0"]}
    stacked = jnp.concatenate([IMAGE, (2 * y - 1).reshape(16, 12, -1)], axis=-1)
    scores = trunk.apply(inner, stacked)
    assert scores.shape == (16, 12, 1)
    np.testing.assert_allclose(value.apply(params, IMAGE, y), np.mean(scores), rtol=1e-5)
    assert np.any(np.asarray(jax.grad(lambda y: value.apply(params, IMAGE, y))(y)) != 0)


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)])
def test_a_value_is_how_well_an_output_overlaps_the_mask_of_its_scores(shape):
    value = segmentation.SegmentationValue((4, 5, 6), energy="overlap")
    y = jax.random.uniform(KEY, shape)
    params = value.init(KEY, IMAGE, y)
    trunk = segmentation.FullyConvolutional((4, 5, 6), num_outputs=1 if len(shape) == 2 else 3)
    inner = {"params": params["params"]["FullyConvolutional_0"]}
    columns = y.reshape(16, 12, -1)
    scores = trunk.apply(inner, jnp.concatenate([IMAGE, 2 * columns - 1], axis=-1))
    mask = jax.nn.sigmoid(scores) if len(shape) == 2 else jax.nn.softmax(scores)
    both = np.sum(columns * mask)
    wanted = both / (np.sum(columns) + np.sum(mask) - both)
    found = jax.nn.sigmoid(value.apply(params, IMAGE, y))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)])
def test_a_value_of_every_pixel_is_how_likely_its_label_is_by_the_scores(shape):
    value = segmentation.SegmentationValue((4, 5, 6), energy="pixels")
    y = jax.nn.softmax(jax.random.normal(KEY, (16, 12, 3)))
    y = y if len(shape) == 3 else y[..., 0]
    params = value.init(KEY, IMAGE, y)
    trunk = segmentation.FullyConvolutional((4, 5, 6), num_outputs=1 if len(shape) == 2 else 3)
    inner = {"params": params["params"]["FullyConvolutional_0"]}
    scores = trunk.apply(inner, jnp.concatenate([IMAGE, (2 * y - 1).reshape(16, 12, -1)], axis=-1))
    if len(shape) == 2:
        mask = jax.nn.sigmoid(scores[..., 0])
        wanted = y * mask + (1 - y) * (1 - mask)
    else:
        wanted = np.sum(y * jax.nn.softmax(scores), axis=-1)
    found = jax.nn.sigmoid(value.apply(params, IMAGE, y))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for certain in (jnp.zeros(shape), jnp.ones(shape)):
        gradient = jax.grad(lambda y: jnp.mean(value.apply(params, IMAGE, y)))(certain)
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_empty_masks_have_a_value_and_other_energies_an_error():
    value = segmentation.SegmentationValue((4, 5, 6), energy="overlap")
    empty = jnp.zeros((16, 12))
    params = value.init(KEY, IMAGE, empty)
    found, gradient = jax.value_and_grad(lambda y: value.apply(params, IMAGE, y))(empty)
    assert np.isfinite(found) and np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    whole = (jax.random.uniform(KEY, (16, 12)) < 0.5).astype(jnp.uint8)
    np.testing.assert_array_equal(
        value.apply(params, IMAGE, whole), value.apply(params, IMAGE, whole.astype(jnp.float32))
    )
    with pytest.raises(
        ValueError, match="energy must be one of scores, overlap, pixels, got 'mean'"
    ):
        segmentation.SegmentationValue((4, 5, 6), energy="mean").init(KEY, IMAGE, empty)
