"""Best assignments: against enumeration, max-flow and trees; certificates and bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_array, csgraph

from gasn_jax.structured import counting, graph, grid, relaxation, tree

GRID = graph.grid(3, 3, 2)
REGIONS = graph.from_regions(6, 2, [(0, 1, 2), (2, 3), (3, 4, 5, 0), (1, 4), (5, 2, 3)])


def potentials(structure, seed, forbid=0.0):
    rng = np.random.default_rng(seed)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    arrays = [rng.normal(size=shape) for shape in shapes]
    for array in arrays if forbid else ():
        array[rng.random(array.shape) < forbid] = -np.inf
    return jnp.asarray(arrays[0]), tuple(jnp.asarray(array) for array in arrays[1:])


def enumerated(structure):
    states = np.indices((structure.num_states,) * structure.num_variables)
    states = jnp.asarray(states.reshape(structure.num_variables, -1).T)
    score = jax.vmap(functools.partial(graph.score, structure), in_axes=(0, None, None))
    return jax.jit(lambda unary, factors: jnp.max(score(states, unary, factors)))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", [GRID, REGIONS], ids=["grid", "regions"])
def test_bounds_scores_and_certificates_against_enumeration(structure):
    best_score = enumerated(structure)
    run = jax.jit(functools.partial(relaxation.argmax, structure))
    num_certified, num_best = 0, 0
    for seed in range(30):
        unary, factors = potentials(structure, seed, forbid=0.1 * (seed % 3 == 0))
        exact, best = best_score(unary, factors), run(unary, factors)
        assert best.score - 1e-9 <= exact <= best.bound + 1e-9
        if best.score > -np.inf:
            score = graph.score(structure, best.states, unary, factors)
            assert best.score == pytest.approx(float(score), rel=1e-12)
        else:
            assert np.all(best.states == -1)
        num_best += int(best.score > exact - 1e-9)
        if best.certified:
            num_certified += 1
            assert best.score >= exact - 1e-3
    assert num_best >= 28 and num_certified >= 20


def max_flow(height, width, fields, couplings):
    """The best score of an attractive binary grid, integers, as a minimal cut; scipy."""
    structure = graph.grid(height, width, 2)
    edges, count = structure.factors[0], height * width
    source, sink = count, count + 1
    # Score: fields[i] if x_i = 1, couplings[f] if the ends agree. A cut pays what is forgone.
    rows = [np.full(count, source), np.arange(count), edges[:, 0], edges[:, 1]]
    columns = [np.arange(count), np.full(count, sink), edges[:, 1], edges[:, 0]]
    weights = [np.maximum(fields, 0), np.maximum(-fields, 0), couplings, couplings]
    joined = (np.concatenate(x) for x in (weights, rows, columns))
    weights, rows, columns = joined
    matrix = coo_array((weights.astype(np.int32), (rows, columns)), (count + 2,) * 2).tocsr()
    cut = csgraph.maximum_flow(matrix, source, sink).flow_value
    return np.maximum(fields, 0).sum() + couplings.sum() - cut


@pytest.mark.usefixtures("x64")
def test_attractive_grids_are_solved_as_by_maximum_flow():
    structure = graph.grid(8, 9, 2)
    run = jax.jit(functools.partial(relaxation.argmax, structure))
    for seed in range(6):
        rng = np.random.default_rng(seed)
        fields = rng.integers(-60, 60, size=72)
        couplings = rng.integers(0, 40, size=len(structure.factors[0]))
        unary = jnp.asarray(np.stack([np.zeros(72), fields], axis=1))
        factors = (jnp.asarray(couplings[:, None, None] * np.eye(2)),)
        best = run(unary, factors)
        assert best.certified and best.score == max_flow(8, 9, fields, couplings)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_max_product_is_exact_in_forests():
    structure = graph.from_edges(7, 3, [(1, 0), (0, 2), (3, 0), (6, 5), (3, 4)])
    run = jax.jit(functools.partial(relaxation.max_product, structure))
    for seed in range(5):
        unary, factors = potentials(structure, seed)
        best, scores = run(unary, factors)
        states, score = tree.argmax(structure, unary, factors)
        np.testing.assert_array_equal(best.states, states)
        assert best.score == pytest.approx(float(score)) and best.converged
        # Max-marginals: the score lost by another state, by trees with that state clamped.
        evidence = jnp.full(7, -1).at[2].set((states[2] + 1) % 3)
        other = tree.argmax(structure, graph.clamp(unary, evidence), factors)[1]
        lost = scores[2, states[2]] - scores[2, evidence[2]]
        assert float(lost) == pytest.approx(float(score - other), abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_tighter_free_energy_and_infeasible_models():
    unary, factors = potentials(GRID, 0)
    numbers = counting.tree_reweighted(GRID)
    best = jax.jit(functools.partial(relaxation.argmax, GRID, counting=numbers))(unary, factors)
    assert best.bound >= enumerated(GRID)(unary, factors) - 1e-9
    best = relaxation.argmax(GRID, unary.at[4].set(-jnp.inf), factors)
    assert np.all(best.states == -1) and best.score == best.bound == -np.inf and best.certified


@pytest.mark.slow
def test_a_certificate_does_not_grow_with_an_offset():
    structure = graph.from_edges(6, 2, [(i, j) for i in range(6) for j in range(i)])
    best_score = enumerated(structure)
    run = jax.jit(functools.partial(relaxation.argmax, structure, temperatures=(1.0,)))
    product = jax.jit(functools.partial(relaxation.max_product, structure))
    for seed in range(30):
        unary, factors = potentials(structure, seed)
        exact = best_score(unary, factors)
        for best in (run(unary.at[0].add(2e4), factors), product(unary.at[0].add(2e4), factors)[0]):
            if best.certified:
                assert best.score - 2e4 > exact - 0.05


def test_scores_that_forbid_by_their_size_do_not_set_the_scale():
    """A user of other libraries writes -1e9 for -inf; the best assignment must not blur."""
    unary, factors = potentials(GRID, 1, forbid=0.1)
    run = jax.jit(functools.partial(relaxation.argmax, GRID))
    honest = run(unary, factors)
    large = run(*jax.tree.map(lambda x: jnp.where(x == -jnp.inf, -1e9, x), (unary, factors)))
    assert honest.certified
    np.testing.assert_array_equal(large.states, honest.states)
    np.testing.assert_allclose(large.score, honest.score, rtol=1e-5)


@pytest.mark.parametrize("large", [-1e2, -1e4, -1e6])
def test_what_is_certified_is_the_best_beside_scores_that_forbid_by_their_size(large):
    structure = graph.grid(3, 4, 3)
    exact = jax.jit(lambda u, f: grid.argmax(structure, u, f, height=3)[1])
    run = jax.jit(functools.partial(relaxation.argmax, structure))
    certified = 0
    for seed in range(8):
        unary, (pairs,) = potentials(structure, seed)
        pairs = (2 * pairs).at[:, 0, 2].set(large)
        unary = unary.at[5, 1].set(large)
        best = run(unary, (pairs,))
        if best.certified:
            certified += 1
            np.testing.assert_allclose(best.score, exact(unary, (pairs,)), atol=0.02)
    assert certified >= 2


def test_scores_near_zero_do_not_set_the_scale_either():
    """Half of the grid hardly matters; annealing must start at the scores of the other half."""
    structure = graph.grid(6, 6, 2)
    exact = jax.jit(lambda u, f: grid.argmax(structure, u, f, height=6)[1])
    run = jax.jit(functools.partial(relaxation.argmax, structure))
    left = np.arange(36) % 6 < 3
    lost = []
    for seed in range(6):
        unary, (pairs,) = potentials(structure, seed)
        inside = left[structure.factors[0]].all(axis=1)
        unary = unary * np.where(left, 1.0, 1e-4)[:, None]
        pairs = pairs * np.where(inside, 1.0, 1e-4)[:, None, None]
        lost.append(exact(unary, (pairs,)) - run(unary, (pairs,)).score)
    assert np.mean(lost) < 0.5


@pytest.mark.slow
def test_scores_too_large_for_the_dtype_are_not_certified():
    structure = graph.chain(12, 2)
    unary = jnp.zeros((12, 2)).at[:, 1].set(1.0).at[0].set(-3e36)
    best = relaxation.argmax(structure, unary, (jnp.zeros((11, 2, 2)),))
    assert not best.certified or best.bound > -np.inf
    nan, _ = relaxation.max_product(structure, unary.at[1].set(jnp.nan), (jnp.zeros((11, 2, 2)),))
    assert not nan.certified


def test_bad_input():
    unary, factors = potentials(GRID, 0)
    for wrong in ((1.0, 0.0), np.array([1.0, 0.0])):
        with pytest.raises(ValueError, match=r"must be some finite numbers > 0, got \[1.0, 0.0\]"):
            relaxation.argmax(GRID, unary, factors, temperatures=wrong)
    with pytest.raises(ValueError, match=r"unary must have shape \(9, 2\), got \(8, 2\)"):
        relaxation.max_product(GRID, unary[1:], factors)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["unary", "factors"])
def test_nothing_is_certified_of_scores_that_are_no_scores(bad, place):
    structure = graph.grid(3, 3, 2)
    rng = np.random.default_rng(0)
    unary, table = rng.normal(size=(9, 2)), rng.normal(size=(12, 2, 2))
    (unary if place == "unary" else table)[0, 0] = bad
    unary, factors = jnp.asarray(unary, jnp.float32), (jnp.asarray(table, jnp.float32),)
    for best in (
        relaxation.argmax(structure, unary, factors),
        relaxation.max_product(structure, unary, factors)[0],
    ):
        assert not best.certified and np.isnan(best.bound)


@pytest.mark.slow
def test_scores_of_half_precision_are_not_above_the_bound():
    structure, rng = graph.grid(4, 4, 2), np.random.default_rng(0)
    run = jax.jit(jax.vmap(lambda u, t: relaxation.argmax(structure, u, (t,))))
    unary = jnp.asarray(3 * rng.normal(size=(20, 16, 2)), jnp.bfloat16)
    tables = jnp.asarray(rng.normal(size=(20, 24, 2, 2)), jnp.bfloat16)
    best = run(unary, tables)
    assert np.all(best.score <= best.bound + 1e-4) and np.mean(best.certified) > 0.8
    single = run(unary.astype(jnp.float32), tables.astype(jnp.float32))
    np.testing.assert_array_equal(best.states, single.states)
