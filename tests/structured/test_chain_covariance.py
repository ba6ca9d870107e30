"""The full Jacobian of the marginals: against enumeration, autodiff and conditioning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain, conditioning
from tests.laws.oracle import Chains
from tests.laws.random_chains import random_chains

BATCH = 200


def instances(num_variables, num_states, dtype, batch=BATCH):
    rng = np.random.default_rng([20, num_variables, num_states])
    unary, pairwise = random_chains(rng, batch, num_variables, num_states, dtype=dtype)
    temperature = rng.uniform(0.5, 2.0, size=batch).astype(dtype)
    return unary, pairwise, temperature, rng.integers(1, num_variables + 1, size=batch)


def flat(cov, num_variables, num_states):
    size = num_variables * num_states
    parts = (np.asarray(x).reshape(len(x), size, -1) for x in cov)
    return np.concatenate(list(parts), axis=2)


@jax.jit
@jax.vmap
def three_ways(unary, pairwise, temperature, length):
    def unary_marginals(u, w):
        return chain.marginals(u, w, temperature=temperature, length=length).unary

    return (
        chain.covariance(unary, pairwise, temperature=temperature, length=length),
        jax.jacrev(unary_marginals, argnums=(0, 1))(unary, pairwise),
        jax.jacfwd(unary_marginals, argnums=(0, 1))(unary, pairwise),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
@pytest.mark.parametrize("shape", [(1, 3), (4, 3), (3, 1)])
def test_covariance_equals_enumeration_and_autodiff(shape, dtype, tolerance):
    args = instances(*shape, dtype)
    oracle = Chains(*args)
    mean = oracle.marginals()
    size = shape[0] * shape[1]
    wanted = oracle.covariance()[:, :size]
    impossible = (mean[:, :size, None] == 0) | (mean[:, None, :] == 0)
    with jax.enable_x64(dtype == np.float64):
        results = jax.tree.map(np.asarray, three_ways(*args))
    for result in results:
        assert result[0].dtype == dtype
        actual = flat(result, *shape)
        np.testing.assert_allclose(actual, wanted, atol=tolerance)
        assert (actual[impossible] == 0).all()
    if shape == (4, 3):
        assert np.abs(wanted).max() > 0.3


@functools.partial(jax.jit, static_argnames="chunk_size")
def _both(unary, pairwise, temperature, chunk_size):
    def marginals_fn(u, w):
        m = chain.marginals(u, w)
        return m.unary, m.pairwise

    return chain.covariance(unary, pairwise, temperature=temperature), conditioning.covariance(
        marginals_fn, unary, pairwise, temperature=temperature, chunk_size=chunk_size
    )


@pytest.mark.parametrize("chunk_size", [1, 5, 12, 1000])
@pytest.mark.usefixtures("x64")
def test_conditioning_gives_the_covariance_of_a_chain(chunk_size):
    """Also chunks that do not divide N L = 12, and larger ones."""
    unary, pairwise, temperature, _ = instances(4, 3, np.float64, 30)
    infeasible = np.isneginf(Chains(unary, pairwise).log_partition())
    assert infeasible.any() and not infeasible.all()
    run = jax.vmap(functools.partial(_both, chunk_size=chunk_size))
    for a, b in zip(*run(unary, pairwise, temperature), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(("shape", "chunk_size"), [((1, 1), 64), ((1, 3), 2), ((3, 1), 64)])
@pytest.mark.usefixtures("x64")
def test_conditioning_gives_that_of_the_smallest_chains(shape, chunk_size):
    unary, pairwise, temperature, _ = instances(*shape, np.float64, 5)
    run = jax.jit(jax.vmap(functools.partial(_both, chunk_size=chunk_size)))
    for a, b in zip(*run(unary, pairwise, temperature), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_conditioning_keeps_the_dtype_of_the_potentials():
    def marginals_fn(unary, pairwise):
        return chain.marginals(unary, pairwise)[1:]

    for dtype in (jnp.bfloat16, jnp.float32):
        potentials = jnp.zeros((3, 2), dtype), jnp.zeros((2, 2, 2), dtype)
        temperature = jnp.float32(0.5)
        run = functools.partial(conditioning.covariance, marginals_fn, temperature=temperature)
        found = jax.eval_shape(run, *potentials)
        assert all(part.dtype == dtype for part in found)


@pytest.mark.parametrize(
    ("shape", "chunk_size", "message"),
    [
        ((0, 3), 64, r"unary must have shape \[N, L\], N and L >= 1, got \(0, 3\)"),
        ((3, 0), 64, r"N and L >= 1, got \(3, 0\)"),
        ((3, 2), 2.5, "chunk_size must be an integer >= 1, got 2.5"),
        ((3, 2), 0, "chunk_size must be an integer >= 1, got 0"),
    ],
)
def test_conditioning_names_what_it_cannot_use(shape, chunk_size, message):
    with pytest.raises(ValueError, match=message):
        conditioning.covariance(lambda u, w: (u, w), jnp.zeros(shape), (), chunk_size=chunk_size)


def test_covariance_of_a_longer_chain_in_float32():
    """Far-apart variables do not covary: what is left is far below the rounding of a joint."""
    rng = np.random.default_rng(21)
    unary, pairwise = random_chains(rng, 1, 40, 3, dtype=np.float32, forbid=False)
    run = jax.jit(chain.covariance)
    single = run(unary[0] / 2, pairwise[0] / 2)
    with jax.enable_x64(True):
        double = run(unary[0].astype(np.float64) / 2, pairwise[0].astype(np.float64) / 2)
    far = np.asarray(double.unary_unary)[0, :, 30]
    assert 0 < np.abs(far).max() < 1e-12
    np.testing.assert_allclose(single.unary_unary[0, :, 30], far, atol=2e-8)
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    # Rows sum to zero: probabilities still sum to one after any step.
    np.testing.assert_allclose(jnp.sum(single.unary_unary, axis=1), 0, atol=2e-6)
