"""Engines: each gives what its module gives, under one interface."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import belief_propagation, chain, engine, graph, grid, tree

GRID = graph.grid(2, 3, 2)
ENGINES = {
    "chain": engine.Chain(6, 2),
    "tree": engine.Tree(graph.tree(2, [1, -1, 1, 2, 2, -1])),
    "grid": engine.Grid(GRID, 2),
    "loopy": engine.Loopy(GRID),
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


def test_exact_engines_are_those_of_their_modules():
    unary, pairwise = potentials(ENGINES["chain"])
    wanted = chain.marginals(unary, pairwise, temperature=0.5, length=4)
    got = ENGINES["chain"].marginals(unary, pairwise, temperature=0.5, length=4)
    np.testing.assert_array_equal(got.pairwise, wanted.pairwise)
    for name, wanted_fn in (
        ("tree", tree.marginals),
        ("grid", functools.partial(grid.marginals, height=2)),
    ):
        model = ENGINES[name]
        unary, pairwise = potentials(model)
        wanted = wanted_fn(model.graph, unary, (pairwise,))
        got = model.marginals(unary, pairwise)
        np.testing.assert_array_equal(got.unary, wanted.unary)
        np.testing.assert_array_equal(got.pairwise, wanted.factors[0])


@pytest.mark.parametrize("kind", [engine.Tree, lambda g: engine.Grid(g, 1), engine.Loopy])
def test_variables_without_factors_are_on_their_own(kind):
    model = kind(graph.from_edges(1, 3, []))
    unary, pairwise = potentials(model)
    assert model.num_factors == 0 and pairwise.shape == (0, 3, 3)
    result = model.marginals(unary, pairwise)
    np.testing.assert_allclose(result.unary, jax.nn.softmax(unary), atol=1e-6)
    assert result.pairwise.shape == (0, 3, 3)
    assert model.argmax(unary, pairwise) == jnp.argmax(unary)
    assert 0 <= model.sample(jax.random.key(0), unary, pairwise)[0] < 3


def test_known_beliefs_give_the_same_sample():
    model = ENGINES["loopy"]
    unary, pairwise = potentials(model)
    beliefs = model.marginals(unary, pairwise).unary
    alone, given = (
        jax.vmap(lambda key, b=b: model.sample(key, unary, pairwise, beliefs=b))(
            jax.random.split(jax.random.key(0), 50)
        )
        for b in (None, beliefs)
    )
    np.testing.assert_array_equal(alone, given)


def test_engines_are_static_and_say_when_they_did_not_converge():
    assert hash(engine.Loopy(graph.grid(4, 4, 2))) == hash(engine.Loopy(graph.grid(4, 4, 2)))
    hasty = belief_propagation.Solver(num_steps=2, acceleration=0)
    model = engine.Loopy(graph.grid(3, 3, 2), solver=hasty)
    unary, pairwise = potentials(model, scale=5.0)
    result = jax.jit(model.marginals)(unary, pairwise)
    assert not result.converged and np.all(np.isfinite(result.unary))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: engine.Chain(0, 2), "num_variables must be >= 1, got 0"),
        (lambda: engine.Grid(graph.grid(13, 13, 2), 13), "which must have at most 4096 states"),
        (
            lambda: engine.Loopy(graph.from_regions(3, 2, [(0, 1, 2)])),
            r"factors must join 2 variables, got arities \(3,\)",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
