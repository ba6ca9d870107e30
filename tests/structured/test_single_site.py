"""Gibbs sampling and iterated conditional modes: kernels as matrices, local optima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import graph, single_site

REGIONS = graph.from_regions(5, 2, [(0, 1, 2), (1, 3), (2, 3)])  # variable 4 is alone


def potentials(seed, forbid=0.0):
    rng = np.random.default_rng(seed)
    shapes = ((5, 2), *REGIONS.factor_shapes)
    arrays = [rng.normal(size=shape) for shape in shapes]
    for array in arrays if forbid else ():
        array[rng.random(array.shape) < forbid] = -np.inf
    return jnp.asarray(arrays[0]), tuple(jnp.asarray(array) for array in arrays[1:])


STATES = np.indices((2,) * 5).reshape(5, -1).T


def scores(unary, factors):
    score = jax.vmap(functools.partial(graph.score, REGIONS), in_axes=(0, None, None))
    return np.asarray(jax.jit(score)(jnp.asarray(STATES), unary, factors))


@pytest.mark.parametrize("forbid", [0.0, 0.15])
def test_the_distribution_is_stationary_under_a_gibbs_sweep(forbid):
    """Sixty thousand chains that start in the distribution are still there a sweep later."""
    unary, factors = potentials(3, forbid)
    weights = np.exp(scores(unary, factors) / 0.7)
    p = weights / weights.sum()
    start_key, sweep_key = jax.random.split(jax.random.key(0))
    start = STATES[np.asarray(jax.random.choice(start_key, 32, (60_000,), p=jnp.asarray(p)))]
    keys = jax.random.split(sweep_key, len(start))

    @jax.jit
    @jax.vmap
    def sweep(key, states):
        return single_site.gibbs_sweep(key, REGIONS, states, unary, factors, temperature=0.7)

    end = np.asarray(sweep(keys, jnp.asarray(start)))
    found = np.bincount(end @ [16, 8, 4, 2, 1], minlength=32) / len(end)
    assert np.all(found[p == 0] == 0)
    np.testing.assert_allclose(found, p, atol=5 * np.sqrt(p.max() / len(end)))
    # And it moves: every variable takes each possible state from one and the same start.
    ends = np.asarray(sweep(keys, jnp.tile(jnp.asarray(start[:1]), (len(start), 1))))
    reached = ends.std(axis=0) > 0
    np.testing.assert_array_equal(reached[[0, 4]], (p @ STATES * (1 - p @ STATES) > 0)[[0, 4]])


@pytest.mark.usefixtures("x64")
def test_conditional_modes_climb_to_where_no_single_change_helps():
    run = jax.jit(functools.partial(single_site.iterated_conditional_modes, REGIONS))
    for seed in range(5):
        unary, factors = potentials(seed)
        every = scores(unary, factors)
        for start in STATES[::7]:
            states, score, settled = run(jnp.asarray(start), unary, factors)
            number = int(np.asarray(states) @ [16, 8, 4, 2, 1])
            assert settled and score == every[number]
            assert score >= every[int(start @ [16, 8, 4, 2, 1])]
            assert all(score >= every[number ^ bit] for bit in (1, 2, 4, 8, 16))


@pytest.mark.parametrize("state", [-1, 2])
def test_a_state_that_is_none_is_told(state):
    unary, factors = potentials(0)
    states = jnp.zeros(5, int).at[3].set(state)
    got = single_site.gibbs_sweep(jax.random.key(0), REGIONS, states, unary, factors)
    assert np.all(got == -1)


def test_bad_input():
    unary, factors = potentials(0)
    with pytest.raises(ValueError, match="num_sweeps must be >= 1, got 0"):
        single_site.iterated_conditional_modes(
            REGIONS, jnp.zeros(5, int), unary, factors, num_sweeps=0
        )
    with pytest.raises(ValueError, match=r"unary must have shape \(5, 2\), got \(4, 2\)"):
        single_site.gibbs_sweep(jax.random.key(0), REGIONS, jnp.zeros(5, int), unary[1:], factors)
