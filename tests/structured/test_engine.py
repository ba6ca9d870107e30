"""Engines: each gives what its module gives, under one interface."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import belief_propagation, chain, engine, graph, grid

ENGINES = {
    "chain": engine.Chain(6, 2),
    "grid": engine.Grid(2, 3, 2),
    "loopy": engine.LoopyGrid(2, 3, 2),
}


def potentials(model, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (model.num_variables, model.num_states), (model.num_factors, *(model.num_states,) * 2)
    return [jnp.float32(scale * rng.normal(size=shape)) for shape in shapes]


@pytest.mark.parametrize("name", ENGINES)
def test_samples_follow_the_marginals(name):
    model = ENGINES[name]
    unary, pairwise = potentials(model, scale=0.5)
    result = jax.jit(model.marginals)(unary, pairwise, temperature=0.7)
    assert result.converged
    keys = jax.random.split(jax.random.key(0), 8000)
    draw = functools.partial(model.sample, temperature=0.7)
    states = np.asarray(jax.jit(jax.vmap(draw, in_axes=(0, None, None)))(keys, unary, pairwise))
    assert states.shape == (8000, 6) and states.dtype == np.int32
    # Loopy samples come from the model, whose marginals the beliefs only approximate.
    exact = result.unary
    if name == "loopy":
        exact = ENGINES["grid"].marginals(unary, pairwise, temperature=0.7).unary
        assert 1e-4 < np.abs(exact - result.unary).max() < 0.05
    np.testing.assert_allclose(states.mean(0), exact[:, 1], atol=0.03)


@pytest.mark.parametrize("name", ENGINES)
def test_argmax_is_the_best_of_all_assignments(name):
    model = ENGINES[name]
    unary, pairwise = potentials(model)
    structure = graph.chain(6, 2) if name == "chain" else model.graph
    every = jnp.asarray(np.indices((2,) * 6).reshape(6, -1).T)
    score = jax.vmap(lambda x: graph.score(structure, x, unary, (pairwise,)))
    best = every[jnp.argmax(score(every))]
    np.testing.assert_array_equal(jax.jit(model.argmax)(unary, pairwise), best)


def test_chains_and_grids_are_those_of_their_modules():
    unary, pairwise = potentials(ENGINES["chain"])
    wanted = chain.marginals(unary, pairwise, temperature=0.5, length=4)
    got = ENGINES["chain"].marginals(unary, pairwise, temperature=0.5, length=4)
    np.testing.assert_array_equal(got.pairwise, wanted.pairwise)
    model = ENGINES["grid"]
    unary, pairwise = potentials(model)
    wanted = grid.marginals(graph.grid(2, 3, 2), unary, (pairwise,), height=2)
    np.testing.assert_array_equal(model.marginals(unary, pairwise).unary, wanted.unary)
    assert engine.Grid(1, 1, 3).num_factors == 0 and engine.Chain(1, 3).num_factors == 0


def test_engines_are_static_and_say_when_they_did_not_converge():
    assert hash(engine.LoopyGrid(4, 4, 2)) == hash(engine.LoopyGrid(4, 4, 2))
    hasty = belief_propagation.Solver(num_steps=2, acceleration=0)
    model = engine.LoopyGrid(3, 3, 2, solver=hasty)
    unary, pairwise = potentials(model, scale=5.0)
    result = jax.jit(model.marginals)(unary, pairwise)
    assert not result.converged and np.all(np.isfinite(result.unary))
