"""Masks and minus infinity: values, first and second derivatives where JAX's own give NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax import numerics

INF = np.inf
ROWS = {
    "ordinary": [0.3, -1.2, 2.0],
    "one forbidden": [0.3, -INF, 2.0],
    "one left": [-INF, -1.2, -INF],
    "all forbidden": [-INF, -INF, -INF],
    "huge": [1e4, 1e4 - 1, -1e4],
    "hugely negative": [-3e38, -3e38, -INF],
    "underflowing": [0.0, -200.0, -800.0],
}


def probabilities(x):
    x = np.asarray(x, np.float64)
    weight = np.exp(x - x.max()) if np.isfinite(x.max()) else np.zeros_like(x)
    return weight / max(weight.sum(), 1e-300)


@jax.jit
def derivatives(x):
    """Values, gradients and second derivatives of logsumexp and softmax."""
    return (
        *jax.value_and_grad(numerics.logsumexp)(x),
        jax.hessian(numerics.logsumexp)(x),
        numerics.softmax(x),
        jax.jacrev(numerics.softmax)(x),
        jax.hessian(numerics.softmax)(x),
    )


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logsumexp_and_softmax(row, dtype):
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    p = probabilities(row)
    covariance = np.diag(p) - np.outer(p, p)
    third = np.einsum("ij,ik->ijk", covariance, np.eye(3)) - np.einsum("ij,k->ijk", covariance, p)
    third -= np.einsum("i,jk->ijk", p, covariance)
    with jax.enable_x64(dtype == np.float64):
        value, slope, curvature, soft, soft_slope, soft_curvature = jax.tree.map(
            np.asarray, derivatives(np.asarray(row, dtype))
        )
    assert value.dtype == soft.dtype == dtype
    top = np.max(np.asarray(row, dtype)).astype(np.float64)
    wanted = top + np.log(np.exp(np.asarray(row, dtype) - top).sum()) if top > -INF else top
    np.testing.assert_allclose(value, wanted, rtol=tolerance)
    np.testing.assert_allclose(slope, p, atol=tolerance)
    np.testing.assert_allclose(curvature, covariance, atol=tolerance)
    np.testing.assert_allclose(soft, p, atol=tolerance)
    np.testing.assert_allclose(soft_slope, covariance, atol=tolerance)
    np.testing.assert_allclose(soft_curvature, third, atol=tolerance)
    for result in (slope, soft):
        assert (result[np.isneginf(row)] == 0).all()


def test_any_axis():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    x[:, 1] = -INF
    for axis in (0, 1, -1):
        with np.errstate(divide="ignore"):
            wanted = np.log(np.exp(x).sum(axis=axis))
        np.testing.assert_allclose(numerics.logsumexp(x, axis), wanted, atol=1e-6)
        p = np.exp(x) / np.maximum(np.exp(x).sum(axis=axis, keepdims=True), 1e-30)
        np.testing.assert_allclose(numerics.softmax(x, axis), p, atol=1e-6)
        np.testing.assert_array_equal(
            numerics.finite_max(x, axis), np.where(np.isneginf(x.max(axis)), 0, x.max(axis))
        )


def second(function):
    return jax.grad(jax.grad(function))


@pytest.mark.parametrize(
    ("x", "value", "slope", "curvature"),
    [(0.0, -INF, 0, 0), (1.0, 0, 1, -1), (2.0, np.log(2), 0.5, -0.25), (1e30, 69.07755, 1e-30, 0)],
)
def test_log(x, value, slope, curvature):
    np.testing.assert_allclose(numerics.log(jnp.float32(x)), value, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(numerics.log)(x), slope, rtol=1e-6)
    np.testing.assert_allclose(second(numerics.log)(x), curvature, rtol=1e-6, atol=1e-30)


def test_divide():
    x, y = jnp.array([6.0, 1.0, 0.0, 0.0]), jnp.array([3.0, 0.0, 0.0, 2.0])
    np.testing.assert_array_equal(numerics.divide(x, y), [2, 0, 0, 0])

    def total(x, y):
        return jnp.sum(numerics.divide(x, y))

    in_x, in_y = jax.grad(total, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(in_x, [1 / 3, 0, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(in_y, [-2 / 3, 0, 0, 0], rtol=1e-6)
    in_yy = jnp.diag(jax.hessian(total, argnums=1)(x, y))
    np.testing.assert_allclose(in_yy, [4 / 9, 0, 0, 0], rtol=1e-6)


def test_multiply_log():
    p, log_q = jnp.array([0.5, 0.0, 0.0, 0.25]), jnp.array([-1.0, -INF, 2.0, -INF])
    np.testing.assert_array_equal(numerics.multiply_log(p, log_q), [-0.5, 0, 0, -INF])

    def total(p, log_q):
        return jnp.sum(numerics.multiply_log(p[:3], log_q[:3]))

    in_p, in_q = jax.grad(total, argnums=(0, 1))(p, log_q)
    np.testing.assert_array_equal(in_p, [-1, 0, 0, 0])
    np.testing.assert_array_equal(in_q, [0.5, 0, 0, 0])
    for block in jax.tree.leaves(jax.hessian(total, argnums=(0, 1))(p, log_q)):
        assert np.isfinite(block).all()


def test_scale():
    x = jnp.array([3.0, -INF, 0.0, -1e4])
    np.testing.assert_allclose(numerics.scale(x, 0.5), [6, -INF, 0, -2e4])
    weights = jnp.array([1.0, 2.0, 3.0, 0.5])

    def total(x, t):
        scaled = numerics.scale(x, t)
        return jnp.sum(weights * jnp.where(scaled == -INF, 0.0, scaled))

    def through_exp(x, t):
        return jnp.sum(jnp.exp(numerics.scale(x, t)))

    in_x, in_t = jax.grad(total, argnums=(0, 1))(x, 0.5)
    np.testing.assert_allclose(in_x, [2, 0, 6, 1])
    np.testing.assert_allclose(in_t, -(3 - 0.5e4) / 0.25, rtol=1e-6)
    np.testing.assert_allclose(second(lambda t: total(x, t))(0.5), 2 * (3 - 5e3) / 0.125, rtol=1e-6)
    in_x, in_t = jax.grad(through_exp, argnums=(0, 1))(x, 2.0)
    np.testing.assert_allclose(in_x, [np.exp(1.5) / 2, 0, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(in_t, -np.exp(1.5) * 0.75, rtol=1e-6)
    assert np.isfinite(jax.hessian(through_exp)(x, 2.0)).all()
    np.testing.assert_array_equal(numerics.scale(np.array([1, -2]), 2.0), [0.5, -1])


@pytest.mark.parametrize(
    "function",
    [
        numerics.log,
        numerics.logsumexp,
        numerics.softmax,
        numerics.finite_max,
        lambda x: numerics.scale(x, 1.0),
        lambda x: numerics.divide(x, jnp.ones_like(x)),
        lambda x: numerics.divide(jnp.ones_like(x), x),
        lambda x: numerics.multiply_log(x, jnp.zeros_like(x)),
        lambda x: numerics.multiply_log(jnp.ones_like(x), x),
    ],
)
def test_a_nan_is_let_through(function):
    assert np.isnan(function(jnp.array([1.0, np.nan]))).any()
