"""Convolutional networks: shapes, what sees what, what pairwise=False drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import convolution
from gasn_jax.structured import graph

IMAGES = np.random.default_rng(0).normal(size=(5, 16, 8)).astype(np.float32)


@pytest.mark.parametrize("pairwise", [True, False])
def test_scores_of_each_image_are_its_own(pairwise):
    model = convolution.ImageChain(7, (3, 4), 6, pairwise=pairwise)
    params = model.init(jax.random.key(0), IMAGES)
    assert ("transitions" in params["params"]) == pairwise
    steps = np.random.default_rng(1).normal(size=(7, 7))
    if pairwise:
        params["params"]["transitions"] = jnp.asarray(steps, jnp.float32)
    unary, pair = model.apply(params, IMAGES)
    assert unary.shape == (5, 7) and pair.shape == (4, 7, 7)
    np.testing.assert_allclose(pair[2], steps if pairwise else 0.0, rtol=1e-6)
    alone, _ = model.apply(params, IMAGES[2:3])
    np.testing.assert_allclose(alone[0], unary[2], rtol=1e-4, atol=1e-6)


def test_the_layers_are_those_of_the_formula():
    """One channel of one convolution, pooled, by hand."""
    model = convolution.ImageChain(2, (1,), 3)
    params = model.init(jax.random.key(0), IMAGES)["params"]
    kernel, bias = params["Conv_0"]["kernel"][:, :, 0, 0], params["Conv_0"]["bias"]
    padded = np.pad(IMAGES[0], 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    felt = np.maximum((windows * np.asarray(kernel)).sum((2, 3)) + np.asarray(bias), 0)
    pooled = felt.reshape(8, 2, 4, 2).max((1, 3)).ravel()
    hidden = np.maximum(pooled @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    wanted = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, IMAGES)[0][0], wanted, rtol=1e-4)


def test_dropout_is_only_there_in_training():
    model = convolution.ImageChain(3, (2,), 8, dropout_rate=0.5)
    params = model.init(jax.random.key(0), IMAGES)

    def scores(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(params, IMAGES, deterministic=False, rngs=rngs)[0]

    assert np.any(scores(0) != scores(1))
    without = convolution.ImageChain(3, (2,), 8).apply(params, IMAGES)[0]
    np.testing.assert_array_equal(model.apply(params, IMAGES)[0], without)


@pytest.mark.parametrize("pairwise", [True, False])
def test_a_grids_scores_stand_where_its_factors_do(pairwise):
    model = convolution.GridPotentials(4, 8, 2, hidden=(3, 2), pairwise=pairwise)
    params = model.init(jax.random.key(0), jnp.ones(5))
    unary, pairs = model.apply(params, jnp.ones(5))
    structure = graph.grid(4, 8, 2)
    assert unary.shape == (32, 2) and pairs.shape == structure.factor_shapes[0]
    if not pairwise:
        assert np.all(pairs == 0)
        return
    # The last layer's biases alone: each kind of score has its own.
    layers = params["params"]
    layers["Conv_1"]["kernel"] = jnp.zeros_like(layers["Conv_1"]["kernel"])
    layers["Conv_1"]["bias"] = jnp.arange(10.0)
    unary, pairs = model.apply(params, jnp.ones(5))
    np.testing.assert_array_equal(unary, np.tile([0.0, 1.0], (32, 1)))
    rightward = np.diff(structure.factors[0])[:, 0] == 1
    np.testing.assert_array_equal(pairs[rightward], np.tile([[2.0, 3.0], [4.0, 5.0]], (28, 1, 1)))
    np.testing.assert_array_equal(pairs[~rightward], np.tile([[6.0, 7.0], [8.0, 9.0]], (24, 1, 1)))
    # Weights of one output that see one pixel: the score is that of its own place.
    kernel = jnp.zeros_like(layers["Conv_1"]["kernel"]).at[1, 1, 0, :].set(1.0)
    layers["Conv_1"] |= {"kernel": kernel, "bias": jnp.zeros(10)}
    unary, pairs = model.apply(params, jnp.ones(5))
    first = structure.factors[0][:, 0]
    np.testing.assert_array_equal(pairs[:, 0, 0], unary[first, 0])
    assert len(set(np.asarray(unary[:, 0]).tolist())) > 4


def test_a_generator_starts_as_small_as_it_is_told():
    z = jnp.ones(5)
    one, small = (
        convolution.GridPotentials(4, 4, 2, hidden=(3, 2), output_scale=scale)
        for scale in (1.0, 0.1)
    )
    params = [model.init(jax.random.key(0), z) for model in (one, small)]
    scores = [model.apply(p, z)[0] for model, p in zip((one, small), params, strict=True)]
    np.testing.assert_allclose(scores[1], 0.1 * scores[0], rtol=1e-5)


def test_the_critic_sees_every_pixel_in_its_place():
    model = convolution.ImageCritic(4, hidden=(3, 2))
    x = jax.random.uniform(jax.random.key(0), (32, 2))
    params = model.init(jax.random.key(1), x)
    shapes = jax.tree.map(jnp.shape, params["params"])
    assert shapes["Conv_0"]["kernel"] == (3, 3, 8, 3) and shapes["Dense_0"]["kernel"] == (4, 1)
    slope = jax.grad(lambda x: model.apply(params, x))(x)
    assert slope.shape == (32, 2) and np.all(slope != 0)
    turned = x.reshape(4, 8, 2)[:, ::-1].reshape(32, 2)
    assert model.apply(params, turned) != model.apply(params, x)


def test_a_classifier_has_features_before_its_logits():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(8, 12, 2)), jnp.float32)
    model = convolution.ImageClassifier(3, channels=(4, 5), num_features=6, dropout_rate=0.5)
    params = model.init(jax.random.key(0), image)
    features, logits = model.apply(params, image)
    last = params["params"]["Dense_1"]
    np.testing.assert_allclose(logits, features @ last["kernel"] + last["bias"], rtol=1e-5)
    assert features.shape == (6,) and logits.shape == (3,)
    rngs = {"dropout": jax.random.key(1)}
    _, dropped = model.apply(params, image, deterministic=False, rngs=rngs)
    assert np.any(np.asarray(dropped) != logits)


def test_a_deconvolution_is_the_transpose_of_a_convolution_with_stride_2():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 3)))
    layer = convolution.Deconvolution(2)
    variables = layer.init(jax.random.key(0), x)
    # [corner, corner, K, phase, phase, C]: taps of one output pixel are two apart.
    taps = variables["params"]["Dense_0"]["kernel"].reshape(2, 2, 3, 2, 2, 2)
    kernel = taps.transpose(0, 3, 1, 4, 2, 5).reshape(4, 4, 3, 2)
    wanted = jax.lax.conv_general_dilated(
        x[None],
        kernel,
        window_strides=(1, 1),
        padding=((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    found = layer.apply(variables, x)
    assert found.shape == (10, 12, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
