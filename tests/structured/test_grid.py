"""Grids beyond the laws: agreement with chains, trees and enumeration, sizes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain, enumeration, graph, grid, tree


def potentials(structure, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    unary, *factors = (jnp.float32(scale * rng.normal(size=shape)) for shape in shapes)
    return unary, tuple(factors)


@pytest.mark.slow
def test_a_row_is_a_chain_and_a_column_a_variable_of_it():
    structure = graph.grid(1, 6, 3)
    unary, factors = potentials(structure)
    wanted = chain.marginals(unary, *factors, temperature=0.8)
    got = grid.marginals(structure, unary, factors, height=1, temperature=0.8)
    np.testing.assert_allclose(got.unary, wanted.unary, atol=1e-6)
    np.testing.assert_allclose(got.factors[0], wanted.pairwise, atol=1e-6)
    structure = graph.grid(6, 1, 3)
    got = grid.marginals(structure, unary, factors, height=6, temperature=0.8)
    np.testing.assert_allclose(got.unary, wanted.unary, atol=1e-6)
    np.testing.assert_allclose(got.factors[0], wanted.pairwise, atol=1e-6)


@pytest.mark.slow
def test_a_grid_without_most_factors_is_a_tree():
    whole = graph.grid(4, 5, 2)
    kept = np.isin(np.arange(31), [0, 3, 5, 9, 16, 18, 21, 24, 30])
    structure = graph.from_edges(20, 2, whole.factors[0][kept])
    unary, factors = potentials(structure)
    wanted = tree.marginals(structure, unary, factors)
    got = grid.marginals(structure, unary, factors, height=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-6), got, wanted)


def test_factors_may_reach_farther_than_the_neighbouring_column():
    structure = graph.from_edges(6, 2, [(5, 0), (0, 1), (4, 1), (2, 3)])
    unary, factors = potentials(structure)
    got = grid.marginals(structure, unary, factors, height=2)
    wanted = enumeration.marginals(lambda x: graph.score(structure, x, unary, factors), [2] * 6)
    np.testing.assert_allclose(got.unary, wanted, atol=1e-6)


def test_a_frustrated_model_of_ten_by_ten():
    structure = graph.grid(10, 10, 2)
    spins = jnp.float32([[1.0, -1.0], [-1.0, 1.0]])
    couplings = jnp.float32(2 * np.random.default_rng(0).normal(size=(180, 1, 1)))
    unary, factors = jnp.zeros((100, 2)), (couplings * spins[None],)
    run = jax.jit(lambda t: grid.log_partition(structure, unary, factors, height=10, temperature=t))
    states, score = jax.jit(lambda: grid.argmax(structure, unary, factors, height=10))()
    # Both signs of the best assignment are best; the cold limit counts just them.
    cold = 0.02
    np.testing.assert_allclose(cold * run(cold), score, rtol=1e-4)
    assert score < run(1.0) < score + 100 * np.log(2)
    drawn = grid.sample(
        jax.random.key(0), structure, unary, factors, height=10, num_samples=4, temperature=cold
    )
    for one in drawn:
        value = graph.score(structure, one, unary, factors)
        assert score - 1 < value <= score + 1e-3


def test_float32_at_size():
    structure = graph.grid(8, 8, 2)
    batch = [potentials(structure, seed, scale=2.0) for seed in range(8)]
    unary, factors = jax.tree.map(lambda *x: np.stack(x), *batch)
    weights = np.random.default_rng(9).normal(size=(64, 2)).astype(np.float32)

    def both(unary, factors):
        def product(unary, factors):
            result = grid.marginals(structure, unary, factors, height=8)
            return jnp.sum(weights * result.unary), result

        return jax.grad(product, argnums=(0, 1), has_aux=True)(unary, factors)

    narrow = jax.jit(jax.vmap(both))(unary, factors)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (unary, factors))
        wide = jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(*wide))
    for ours, exact in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert ours.dtype == np.float32 and exact.dtype == np.float64
        np.testing.assert_allclose(ours, exact, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("structure", "height", "message"),
    [
        (graph.grid(3, 4, 2), 5, "height must divide 12 variables, got 5"),
        (
            graph.grid(13, 2, 2),
            13,
            r"in columns of 13, factor 0 of the variables \(0, 1\) reaches 13 variables back, "
            r"which must have at most 4096 states, got 2\*\*13",
        ),
        (graph.from_regions(4, 2, [(0, 1, 2)]), 2, r"must join 2 variables, got arities \(3,\)"),
    ],
)
def test_what_is_no_grid_is_refused(structure, height, message):
    with pytest.raises(ValueError, match=message):
        grid.log_partition(structure, *potentials(structure), height=height)


@pytest.mark.usefixtures("x64")
def test_log_prob_is_the_score_less_the_log_partition_function():
    structure = graph.grid(2, 3, 3)
    rng = np.random.default_rng(0)
    unary, pairwise = rng.normal(size=(6, 3)), rng.normal(size=(7, 3, 3))
    unary[4, 1] = -np.inf
    arguments = (jnp.asarray(unary), (jnp.asarray(pairwise),))
    log_z = grid.log_partition(structure, *arguments, height=2, temperature=0.5)
    run = jax.jit(lambda x: grid.log_prob(structure, x, *arguments, height=2, temperature=0.5))
    for states in rng.integers(0, 3, size=(20, 6)):
        wanted = graph.score(structure, jnp.asarray(states), *arguments) / 0.5 - log_z
        np.testing.assert_allclose(run(jnp.asarray(states)), wanted, atol=1e-12)
    assert run(jnp.asarray([0, 0, 0, 0, 3, 0])) == run(jnp.asarray([-1, 0, 0, 0, 0, 0])) == -np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_score_makes_numbers_nan_and_states_none(bad):
    structure = graph.grid(2, 2, 2)
    unary, factors = potentials(structure)
    unary = unary.at[1, 0].set(bad)
    states, score = grid.argmax(structure, unary, factors, height=2)
    assert np.all(states == -1) and np.isnan(score)
    assert np.isnan(grid.entropy(structure, unary, factors, height=2))
    states, score = tree.argmax(graph.chain(4, 2), unary, (factors[0][:3],))
    assert np.all(states == -1) and np.isnan(score)
    assert np.isnan(tree.entropy(graph.chain(4, 2), unary, (factors[0][:3],)))
