"""Engines: each gives what its module gives, under one interface."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import (
    belief_propagation,
    chain,
    counting,
    engine,
    fixed_point,
    graph,
    grid,
    tree,
)

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
    unary, pairwise = potentials(model, scale=0.3)
    pairwise += 0.6 * jnp.eye(2)[None]  # neighbours like to agree
    result = jax.jit(model.marginals)(unary, pairwise, temperature=0.7)
    assert result.converged
    keys = jax.random.split(jax.random.key(0), 8000)
    draw = functools.partial(model.sample, temperature=0.7)
    found = jax.jit(jax.vmap(draw, in_axes=(0, None, None)))(keys, unary, pairwise)
    states = np.asarray(found.states)
    assert states.shape == (8000, 6) and states.dtype == np.int32 and np.all(found.reliable)
    exact = result
    rows = graph.chain(6, 2).factors[0] if name == "chain" else model.graph.factors[0]
    together = np.mean((states[:, rows] == 1).all(axis=2), axis=0)
    # Loopy samples come from the model, whose marginals the beliefs only approximate; and
    # independent draws of the beliefs, without sweeps, would not come in pairs.
    if name == "loopy":
        exact = ENGINES["grid"].marginals(unary, pairwise, temperature=0.7)
        alone = np.asarray(result.unary)[rows, 1].prod(axis=1)
        assert np.abs(alone - exact.pairwise[:, 1, 1]).max() > 0.1
    np.testing.assert_allclose(states.mean(0), exact.unary[:, 1], atol=0.03)
    np.testing.assert_allclose(together, exact.pairwise[:, 1, 1], atol=0.03)


@pytest.mark.parametrize("name", ENGINES)
def test_argmax_is_the_best_of_all_assignments(name):
    model = ENGINES[name]
    unary, pairwise = potentials(model)
    structure = graph.chain(6, 2) if name == "chain" else model.graph
    every = jnp.asarray(np.indices((2,) * 6).reshape(6, -1).T)
    score = jax.vmap(lambda x: graph.score(structure, x, unary, (pairwise,)))
    best = every[jnp.argmax(score(every))]
    found = jax.jit(model.argmax)(unary, pairwise)
    np.testing.assert_array_equal(found.states, best)
    assert found.reliable


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [engine.Tree, lambda g: engine.Grid(g, 1), engine.Loopy])
def test_variables_without_factors_are_on_their_own(kind):
    model = kind(graph.from_edges(1, 3, []))
    unary, pairwise = potentials(model)
    assert model.num_factors == 0 and pairwise.shape == (0, 3, 3)
    result = model.marginals(unary, pairwise)
    np.testing.assert_allclose(result.unary, jax.nn.softmax(unary), atol=1e-6)
    assert result.pairwise.shape == (0, 3, 3)
    assert model.argmax(unary, pairwise).states == jnp.argmax(unary)
    assert 0 <= model.sample(jax.random.key(0), unary, pairwise).states[0] < 3


@pytest.mark.slow
def test_known_beliefs_give_the_same_sample():
    model = ENGINES["loopy"]
    unary, pairwise = potentials(model)
    beliefs = model.marginals(unary, pairwise)
    alone, given = (
        jax.vmap(lambda key, b=b: model.sample(key, unary, pairwise, beliefs=b))(
            jax.random.split(jax.random.key(0), 50)
        )
        for b in (None, beliefs)
    )
    np.testing.assert_array_equal(alone.states, given.states)


@pytest.mark.slow
def test_what_is_impossible_is_not_drawn():
    model = ENGINES["loopy"]
    unary, pairwise = potentials(model)
    nothing = unary.at[2].set(-jnp.inf)
    found = model.sample(jax.random.key(0), nothing, pairwise)
    assert np.all(found.states == -1) and not found.reliable
    # Integers are scores too.
    found = model.sample(jax.random.key(0), jnp.ones((6, 2), int), jnp.zeros((7, 2, 2), int))
    assert np.all(found.states >= 0) and found.reliable


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nothing_is_reliable_of_scores_that_are_no_scores(name, bad):
    model = ENGINES[name]
    unary, pairwise = potentials(model)
    for scores in ((unary.at[1, 0].set(bad), pairwise), (unary, pairwise.at[0, 1, 1].set(bad))):
        assert not model.marginals(*scores).converged
        assert not model.argmax(*scores).reliable
        assert not model.sample(jax.random.key(0), *scores).reliable


@pytest.mark.slow
def test_what_stands_in_the_padding_is_no_score():
    model = ENGINES["chain"]
    unary, pairwise = potentials(model)
    scores = unary.at[-1].set(jnp.nan), pairwise.at[-1].set(jnp.inf)
    length = model.num_variables - 1
    assert model.marginals(*scores, length=length).converged
    for found in (
        model.argmax(*scores, length=length),
        model.sample(jax.random.key(0), *scores, length=length),
    ):
        assert found.reliable and found.states[-1] == -1 and np.all(found.states[:-1] >= 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tree_reweighted", "convex", "bethe"])
def test_loopy_takes_the_free_energy_of_choice(name):
    model = engine.Loopy(GRID, free_energy=name)
    unary, pairwise = potentials(model)
    numbers = getattr(counting, name)(GRID)
    options = dict(counting=numbers, solver=model.solver)
    wanted = belief_propagation.marginals(GRID, unary, (pairwise,), **options)
    np.testing.assert_array_equal(model.marginals(unary, pairwise).unary, wanted.unary)


def test_what_conditioning_tells_is_right_where_the_free_run_does_not_converge_either():
    structure = graph.grid(2, 2, 2)
    unary = jax.random.normal(jax.random.key(0), (4, 2))
    pairwise = 3 * jax.random.normal(jax.random.key(1), (4, 2, 2))
    solver = fixed_point.Solver(num_steps=1, acceleration=0, num_gradient_steps=0)
    model = engine.Loopy(structure, solver=solver)
    run = jax.jit(model.marginals)
    free = run(unary, pairwise)
    assert not free.converged
    lost = 0.0
    for i, s in np.ndindex(4, 2):
        given = unary.at[i].set(jnp.where(jnp.arange(2) == s, unary[i], -jnp.inf))
        lost += free.unary[i, s] * (1 - run(given, pairwise).converged) / 4

    def first(probe, temperature):
        options = dict(gradient="conditioning", probe=probe, temperature=temperature)
        return engine.marginals(model, unary, pairwise, **options).unary[0, 0]

    told = jax.jit(jax.grad(first))(0.0, 1.0)
    assert lost > 0.5
    np.testing.assert_allclose(told, lost, rtol=1e-5)


@pytest.mark.parametrize("gradient", ["jacobian", "conditioning"])
def test_a_matrix_route_has_the_gradient_in_the_temperature(gradient):
    unary = jax.random.normal(jax.random.key(0), (4, 3)).at[1, 0].set(-jnp.inf)
    pairwise = jax.random.normal(jax.random.key(1), (3, 3, 3))

    def first(temperature, gradient):
        options = dict(temperature=temperature, gradient=gradient)
        return engine.marginals(engine.Chain(4, 3), unary, pairwise, **options).unary[0, 0]

    given = [jax.jit(jax.grad(first), static_argnums=1)(0.7, g) for g in (gradient, "product")]
    assert abs(given[1]) > 1e-3
    np.testing.assert_allclose(*given, rtol=1e-4)


@pytest.mark.parametrize("gradient", ["jacobian", "conditioning"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 2)])
def test_a_matrix_route_is_of_the_unary_marginals(gradient, shape):
    """Also of a chain of one variable, which has no pairs; of pairs it says NaN, not 0."""
    model = engine.Chain(*shape)
    num_variables, num_states = shape
    unary = jax.random.normal(jax.random.key(0), shape)
    pairwise = jax.random.normal(jax.random.key(1), (num_variables - 1, num_states, num_states))

    def total(unary, of_pairs, gradient):
        found = engine.marginals(model, unary, pairwise, gradient=gradient)
        weights = jnp.arange(unary.size, dtype=float).reshape(unary.shape)
        return jnp.sum(weights * found.unary) + of_pairs * jnp.sum(found.pairwise[..., 0, 0])

    wanted = jax.grad(total)(unary, 0.0, "product")
    np.testing.assert_allclose(jax.grad(total)(unary, 0.0, gradient), wanted, atol=1e-6)
    if num_variables > 1:
        assert np.all(np.isnan(jax.grad(total)(unary, 1.0, gradient)))


@pytest.mark.slow
def test_conditioning_tells_how_many_of_its_runs_did_not_converge():
    """Free beliefs that converge say nothing of conditioned ones; enough sweeps settle all."""
    structure, signs = graph.grid(4, 4, 2), np.array([-1.0, 1.0])
    rng = np.random.default_rng(0)
    unary = jnp.asarray(2 * rng.normal(size=(16, 1)) * signs, jnp.float32)
    pairwise = jnp.asarray(rng.normal(size=(24, 1, 1)) * np.outer(signs, signs), jnp.float32)

    def share(num_steps):
        solver = belief_propagation.Solver(num_steps=num_steps, acceleration=0)
        model = engine.Loopy(structure, solver=solver)

        def first(probe):
            found = engine.marginals(model, unary, pairwise, gradient="conditioning", probe=probe)
            return found.unary[0, 0], found.converged

        (slope, converged) = jax.jit(jax.grad(first, has_aux=True))(0.0)
        return float(slope), bool(converged)

    runs = {num_steps: share(num_steps) for num_steps in (*range(4, 40, 4), 1000)}
    assert runs[1000] == (0.0, True)
    assert any(slope > 0 and converged for slope, converged in runs.values())
    assert all(0 <= slope <= 1 for slope, _ in runs.values())


@pytest.mark.slow
def test_engines_are_static_and_say_when_they_did_not_converge():
    assert hash(engine.Loopy(graph.grid(4, 4, 2))) == hash(engine.Loopy(graph.grid(4, 4, 2)))
    hasty = belief_propagation.Solver(num_steps=2, acceleration=0)
    model = engine.Loopy(graph.grid(3, 3, 2), solver=hasty)
    unary, pairwise = potentials(model, scale=5.0)
    result = jax.jit(model.marginals)(unary, pairwise)
    assert not result.converged and np.all(np.isfinite(result.unary))
    assert not model.sample(jax.random.key(0), unary, pairwise).reliable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: engine.Chain(0, 2), "num_variables must be an integer >= 1, got 0"),
        (lambda: engine.Tree(GRID), "cycle"),
        (lambda: engine.Loopy(GRID, num_sweeps=0), "num_sweeps must be >= 1, got 0"),
        (
            lambda: engine.Loopy(GRID, free_energy="kikuchi"),
            "free_energy must be one of tree_reweighted, convex, bethe, got 'kikuchi'",
        ),
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
