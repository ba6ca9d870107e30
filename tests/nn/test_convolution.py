"""The image chain's network: shapes, one network for all images, what pairwise=False drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import convolution

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

    assert np.any(scores(0) != scores(1)) and np.all(scores(0) == scores(0))
    assert np.all(model.apply(params, IMAGES)[0] == model.apply(params, IMAGES)[0])
