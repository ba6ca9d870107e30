"""Belief propagation: exact in forests, bounds, fixed points, gradients, forbidden states, size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import belief_propagation as bp
from gasn_jax.structured import counting, enumeration, graph, grid, tree

KINDS = {
    "bethe": counting.bethe,
    "tree_reweighted": counting.tree_reweighted,
    "convex": counting.convex,
}
# Parallel: one block of messages compiles in half the time of several colours.
TIGHT = bp.Solver(tolerance=1e-12, num_steps=4000, schedule="parallel")
FOREST = graph.from_edges(7, 3, [(1, 0), (0, 2), (3, 0), (6, 5), (3, 4)])
GRID = graph.grid(3, 3, 2)
DIAGONAL = graph.grid(2, 3, 3, neighbours=8)
REGIONS = graph.from_regions(6, 2, [(0, 1, 2), (2, 3), (3, 4, 5, 0), (1, 4), (5, 2, 3)])


def potentials(structure, seed=0, scale=1.0, forbid=0.0):
    rng = np.random.default_rng(seed)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    arrays = [scale * rng.normal(size=shape) for shape in shapes]
    for array in arrays if forbid else ():
        mask = rng.random(array.shape) < forbid
        mask[(slice(None), *(0,) * (array.ndim - 1))] = False  # state 0 stays possible
        array[mask] = -np.inf
    return jnp.asarray(arrays[0]), tuple(jnp.asarray(array) for array in arrays[1:])


def ising(size, coupling, seed):
    """Fields N(0, 1) and couplings N(0, coupling^2): states -1 and 1."""
    rng = np.random.default_rng(seed)
    structure, signs = graph.grid(size, size, 2), np.array([-1.0, 1.0])
    fields = rng.normal(size=(size * size, 1)) * signs
    couplings = rng.normal(size=(len(structure.factors[0]), 1, 1)) * coupling
    return structure, jnp.asarray(fields), (jnp.asarray(couplings * np.outer(signs, signs)),)


def exact_log_partition(structure, unary, factors):
    sizes = (structure.num_states,) * structure.num_variables
    return enumeration.log_partition(lambda x: graph.score(structure, x, unary, factors), sizes)


def product(structure, weights_seed=7, **options):
    """<marginals, w> as a function of the potentials."""
    w_unary, w_factors = potentials(structure, weights_seed)

    def function(unary, factors):
        result = bp.marginals(structure, unary, factors, **options)
        terms = zip((result.unary, *result.factors), (w_unary, *w_factors), strict=True)
        return sum(jnp.sum(a * b) for a, b in terms)

    return function


def solve(structure, unary, factors, **options):
    """``bp.marginals``, compiled."""
    return jax.jit(functools.partial(bp.marginals, structure, **options))(unary, factors)


def worst(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), a, b)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", [pytest.param("coloured", marks=pytest.mark.slow), "parallel"])
@pytest.mark.parametrize("kind", ["bethe", "tree_reweighted"])
def test_forests_are_exact_with_gradients_and_forbidden_states(kind, schedule):
    solver = dataclasses.replace(TIGHT, schedule=schedule)
    options = dict(counting=KINDS[kind](FOREST), solver=solver)
    run = jax.jit(functools.partial(bp.marginals, FOREST, **options))
    slope = jax.jit(jax.grad(product(FOREST, **options), argnums=(0, 1)))
    w_unary, w_factors = potentials(FOREST, 7)

    def of_tree(unary, factors):
        m = tree.marginals(FOREST, unary, factors)
        return jnp.sum(m.unary * w_unary) + jnp.sum(m.factors[0] * w_factors[0]), m

    exact_slope = jax.jit(jax.grad(of_tree, (0, 1), has_aux=True))
    for seed in range(4):
        unary, factors = potentials(FOREST, seed, scale=2.0, forbid=0.15 * (seed % 2))
        wanted, exact = exact_slope(unary, factors)
        result = run(unary, factors)
        assert worst((result.log_partition, result.unary, result.factors), tuple(exact)) < 1e-10
        assert result.upper_bound and result.converged and abs(result.gap) < 1e-10
        assert worst(slope(unary, factors), wanted) < 1e-9


def textbook(structure, unary, factors, num_steps=300):
    """Loopy sum-product in numpy dictionaries of probabilities: beliefs of the variables."""
    regions = [
        (tuple(r), np.exp(np.asarray(t)))
        for rows, table in zip(structure.factors, factors, strict=True)
        for r, t in zip(rows.tolist(), table, strict=True)
    ]
    own = np.exp(np.asarray(unary))
    received = {
        (f, i): np.ones(structure.num_states) for f, (r, _) in enumerate(regions) for i in r
    }

    def belief(i, but=None):
        p = own[i].copy()
        for (f, j), message in received.items():
            if j == i and f != but:
                p = p * message
        return p / p.sum()

    for _ in range(num_steps):
        new = {}
        for f, (region, table) in enumerate(regions):
            for axis, i in enumerate(region):
                joint = table.copy()
                for other, j in enumerate(region):
                    if other != axis:
                        shape = [1] * len(region)
                        shape[other] = -1
                        joint = joint * belief(j, but=f).reshape(shape)
                message = joint.sum(tuple(a for a in range(len(region)) if a != axis))
                new[f, i] = message / message.sum()
        received.update(new)
    return np.stack([belief(i) for i in range(structure.num_variables)])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", [GRID, REGIONS], ids=["grid", "regions"])
def test_bethe_is_textbook_sum_product(structure):
    unary, factors = potentials(structure, 3, scale=0.5)
    wanted = textbook(structure, unary, factors)
    for schedule in ("coloured", "parallel"):
        solver = dataclasses.replace(TIGHT, schedule=schedule)
        options = dict(counting=counting.bethe(structure), solver=solver)
        result = solve(structure, unary, factors, **options)
        np.testing.assert_allclose(result.unary, wanted, atol=1e-9)
        assert np.isnan(result.gap) and not result.upper_bound


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("structure", [GRID, REGIONS], ids=["grid", "regions"])
def test_beliefs_maximise_the_free_energy(structure):
    """Against a general optimiser over the local polytope's own parameters."""
    unary, factors = potentials(structure, 5)
    numbers = counting.convex(structure)
    result = solve(structure, unary, factors, counting=numbers, solver=TIGHT)
    for rows, table in zip(structure.factors, result.factors, strict=True):
        for axis in range(rows.shape[1]):
            others = tuple(a + 1 for a in range(rows.shape[1]) if a != axis)
            np.testing.assert_allclose(table.sum(others), result.unary[rows[:, axis]], atol=1e-9)

    def entropy(p):
        return -jnp.sum(p * jnp.log(p), axis=tuple(range(1, p.ndim)))

    value = jnp.sum(unary * result.unary) + jnp.sum(numbers.variables * entropy(result.unary))
    for table, belief, c in zip(factors, result.factors, numbers.factors, strict=True):
        value += jnp.sum(table * belief) + jnp.sum(c * entropy(belief))
    assert float(value) == pytest.approx(float(result.log_partition), abs=1e-9)
    # Any other messages are a bound from above, and the beliefs of other potentials are below.
    assert abs(float(result.gap)) < 1e-9


def enumerated(structure, unary, tables):
    """The exact log-partition functions of a batch of pairwise models, in numpy."""
    sizes = (structure.num_states,) * structure.num_variables
    states = np.indices(sizes).reshape(len(sizes), -1)
    first, second = structure.factors[0].T
    scores = np.asarray(unary)[:, np.arange(len(sizes))[:, None], states].sum(1)
    edges = np.arange(len(first))[:, None]
    scores += np.asarray(tables)[:, edges, states[first], states[second]].sum(1)
    top = scores.max(1)
    return np.log(np.exp(scores - top[:, None]).sum(1)) + top


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_edges", range(6, 22))
def test_concave_free_energies_are_never_below_the_exact_value(num_edges):
    """250 models on each of 16 random graphs, weak to strong; messages are not sent to the end."""
    rng = np.random.default_rng(num_edges)
    pairs = np.array([(i, j) for i in range(7) for j in range(i)])
    structure = graph.from_edges(7, 2, pairs[rng.permutation(len(pairs))[:num_edges]])
    unary = jnp.asarray(rng.normal(size=(250, 7, 2)))
    scales = np.geomspace(0.1, 5, 250)[:, None, None, None]
    tables = jnp.asarray(scales * rng.normal(size=(250, num_edges, 2, 2)))
    exact = enumerated(structure, unary, tables)
    for kind in ("tree_reweighted", "convex"):
        options = dict(counting=KINDS[kind](structure), solver=bp.Solver(num_steps=40))
        run = jax.jit(jax.vmap(lambda u, t, o=options: bp.marginals(structure, u, (t,), **o)))
        result = run(unary, tables)
        assert np.all(result.upper_bound) and np.all(np.asarray(result.gap) >= -1e-9)
        assert np.all(np.asarray(result.log_partition) >= exact - 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_a_frustrated_model_converges_where_ordinary_propagation_does_not():
    structure, unary, factors = ising(10, 2.0, seed=1)
    exact = float(grid.log_partition(structure, unary, factors, height=10))
    values = {}
    for kind in ("tree_reweighted", "convex"):
        solver = bp.Solver(num_steps=500, tolerance=1e-12, gap_tolerance=1e-5, num_newton_steps=20)
        options = dict(counting=KINDS[kind](structure), solver=solver)
        result = solve(structure, unary, factors, **options)
        assert result.converged and 0 <= result.gap < 1e-5
        values[kind] = float(result.log_partition)
    assert exact < values["tree_reweighted"] < values["convex"]
    for damping in (0.0, 0.5, 0.9):
        plain = bp.Solver(
            num_steps=2000, schedule="parallel", damping=damping, acceleration=0, tolerance=1e-3
        )
        options = dict(counting=counting.bethe(structure), solver=plain)
        result = solve(structure, unary, factors, **options)
        assert not result.converged and result.residual > 1e-2
    # Edges that matter in more trees: a tighter bound.
    solver = dataclasses.replace(solver, gap_tolerance=1e-4)
    tightened, bounds, converged = bp.tighten(
        structure, unary, factors, num_rounds=8, solver=solver
    )
    assert exact < bounds.min() < values["tree_reweighted"] - 4
    assert converged.shape == bounds.shape and converged.dtype == bool
    result = solve(structure, unary, factors, counting=tightened, solver=solver)
    assert exact < result.log_partition < bounds.min() + 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_gap_encloses_the_optimum_from_the_first_sweep_on():
    structure, unary, factors = ising(4, 1.5, seed=1)
    numbers = counting.tree_reweighted(structure)
    best = solve(structure, unary, factors, counting=numbers, solver=TIGHT)
    for num_steps in (1, 3, 16):
        solver = dataclasses.replace(TIGHT, num_steps=num_steps)
        result = solve(structure, unary, factors, counting=numbers, solver=solver)
        assert result.num_steps == num_steps and not result.converged
        assert result.log_partition >= best.log_partition - 1e-9
        assert result.log_partition - result.gap <= best.log_partition + 1e-9


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("structure", "kind"),
    [(GRID, "bethe"), (DIAGONAL, "tree_reweighted"), (REGIONS, "convex")],
    ids=["grid", "8", "regions"],
)
def test_the_implicit_gradient_is_that_of_finite_differences(structure, kind):
    options = dict(counting=KINDS[kind](structure), solver=TIGHT)
    function = product(structure, **options)
    point, direction = potentials(structure, 1), potentials(structure, 2)
    step = 1e-5

    @jax.jit
    def along(t):
        moved = jax.tree.map(lambda p, d: p + t * d, point, direction)
        return function(*moved)

    difference = (along(step) - along(-step)) / (2 * step)
    slope = jax.jit(jax.grad(function, argnums=(0, 1)))(*point)
    terms = jax.tree.map(lambda s, d: jnp.sum(s * d), slope, direction)
    reverse = sum(jax.tree.leaves(terms))
    forward = jax.jit(lambda p, d: jax.jvp(function, p, d)[1])(point, direction)
    assert abs(reverse - difference) < 1e-6 * (1 + abs(difference))
    assert abs(forward - difference) < 1e-6 * (1 + abs(difference))
    unrolled = dataclasses.replace(TIGHT, num_steps=300, gradient="unrolled", damping=0.4)
    other = product(structure, counting=KINDS[kind](structure), solver=unrolled)
    assert worst(jax.jit(jax.grad(other, argnums=(0, 1)))(*point), slope) < 1e-8


def beside_a_forbidden_edge():
    """Unary potentials, and the function of these that solves a small cycle."""
    structure = graph.grid(2, 2, 2)
    unary, (pairs,) = potentials(structure, 1)
    pairs = pairs.at[0, 0, 1].set(-jnp.inf)
    return unary, lambda u: bp.marginals(structure, u, (pairs,), solver=TIGHT)


@pytest.mark.usefixtures("x64")
def test_forward_mode_beside_a_forbidden_edge():
    unary, result = beside_a_forbidden_edge()
    run = jax.jit(lambda u, d: jax.jvp(lambda u: result(u).unary, (u,), (d,)))
    step = jnp.zeros_like(unary).at[2, 1].set(1.0)
    moved = [run(unary + t * step, step)[0] for t in (1e-5, -1e-5)]
    assert worst(run(unary, step)[1], (moved[0] - moved[1]) / 2e-5) < 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_second_derivatives_beside_a_forbidden_edge():
    unary, result = beside_a_forbidden_edge()
    hessian = jax.jit(jax.hessian(lambda u: result(u).log_partition))(unary)
    assert worst(hessian, jax.jit(jax.jacrev(lambda u: result(u).unary))(unary)) < 1e-9


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_second_derivatives_and_the_gradient_of_the_log_partition_function():
    unary, factors = potentials(GRID, 1)

    def result(u):
        return bp.marginals(GRID, u, factors, solver=TIGHT)

    unary_marginals = jax.jit(lambda u: result(u).unary)
    slope = jax.jit(jax.grad(lambda u: result(u).log_partition))
    assert worst(slope(unary), unary_marginals(unary)) == 0
    hessian = jax.jit(jax.hessian(lambda u: result(u).log_partition))(unary)
    assert worst(hessian, hessian.transpose(2, 3, 0, 1)) < 1e-9
    step = 1e-5
    there, back = unary.at[4, 1].add(step), unary.at[4, 1].add(-step)
    moved = unary_marginals(there) - unary_marginals(back)
    assert worst(hessian[:, :, 4, 1], moved / (2 * step)) < 1e-8

    @jax.jit
    @jax.value_and_grad
    def of_slope(u):
        return jnp.sum(jax.grad(lambda v: jnp.sum(result(v).unary ** 3))(u)[2])

    difference = (of_slope(there)[0] - of_slope(back)[0]) / (2 * step)
    assert abs(of_slope(unary)[1][4, 1] - difference) < 1e-6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
def test_forbidden_states_stay_impossible_without_nan(kind):
    solver = bp.Solver(num_steps=400, schedule="parallel", damping=0.3)
    options = dict(counting=KINDS[kind](DIAGONAL), solver=solver)
    function = product(DIAGONAL, **options)
    run = jax.jit(functools.partial(bp.marginals, DIAGONAL, **options))
    slope = jax.jit(jax.grad(function, argnums=(0, 1)))
    exact = jax.jit(functools.partial(exact_log_partition, DIAGONAL))
    for seed in range(12):
        unary, factors = potentials(DIAGONAL, seed, forbid=0.05 + 0.05 * seed)
        result = run(unary, factors)
        assert np.all(np.asarray(result.unary)[np.asarray(unary) == -np.inf] == 0)
        assert np.all(np.asarray(result.factors[0])[np.asarray(factors[0]) == -np.inf] == 0)
        np.testing.assert_allclose(result.unary.sum(1), 1, atol=1e-12)
        assert np.isfinite(result.log_partition)
        if result.upper_bound and result.converged:
            assert result.log_partition > exact(unary, factors) - 1e-4
        for leaf, potential in zip(
            jax.tree.leaves(slope(unary, factors)), (unary, *factors), strict=True
        ):
            assert np.all(np.isfinite(leaf))
            assert np.all(np.asarray(leaf)[np.asarray(potential) == -np.inf] == 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_an_infeasible_model():
    unary, factors = potentials(GRID)
    unary = unary.at[4].set(-jnp.inf)
    for kind in KINDS.values():
        options = dict(counting=kind(GRID), solver=TIGHT)
        result = solve(GRID, unary, factors, **options)
        assert result.log_partition == -np.inf and result.converged
        assert worst(result.unary, jnp.zeros_like(unary)) == 0
    slope = jax.jit(jax.grad(product(GRID, **options), argnums=(0, 1)))(unary, factors)
    assert worst(slope, jax.tree.map(jnp.zeros_like, slope)) == 0


@pytest.mark.usefixtures("x64")
def test_a_batch_is_a_loop_and_compiles_once():
    batch = [potentials(GRID, seed) for seed in range(5)]
    unary, factors = jax.tree.map(lambda *x: jnp.stack(x), *batch)
    traced = []

    @jax.jit
    def run(unary, factors):
        traced.append(None)
        return jax.vmap(functools.partial(bp.marginals, GRID, solver=TIGHT))(unary, factors)

    result = run(unary, factors)
    alone_run = jax.jit(functools.partial(bp.marginals, GRID, solver=TIGHT))
    for number, one in enumerate(batch):
        alone = alone_run(*one)
        assert worst(alone.unary, result.unary[number]) < 1e-12
        assert alone.num_steps == result.num_steps[number]
    for _ in range(9):
        run(unary, factors)
    assert len(traced) == 1


@pytest.mark.usefixtures("x64")
def test_a_warm_start_takes_fewer_sweeps_to_the_same_place():
    structure, unary, factors = ising(6, 1.0, seed=0)
    run = jax.jit(functools.partial(bp.marginals, structure, solver=TIGHT))
    cold = run(unary, factors)
    moved = run(unary + 1e-3, factors, messages=cold.messages)
    assert moved.num_steps < cold.num_steps
    assert worst(moved.unary, run(unary + 1e-3, factors).unary) < 1e-9
    # A forbidden state's messages do not stay when it is allowed again.
    blocked = run(unary.at[3, 0].set(-jnp.inf), factors)
    again = run(unary, factors, messages=blocked.messages)
    assert worst(again.unary, cold.unary) < 1e-9


def test_temperature_divides_the_potentials():
    unary, factors = potentials(GRID)
    one = solve(GRID, unary, factors, temperature=0.5)
    other = solve(GRID, 2 * unary, tuple(2 * t for t in factors))
    assert worst(one.unary, other.unary) < 1e-6


@pytest.mark.slow
def test_memory_of_the_implicit_gradient_does_not_grow_with_the_sweeps():
    structure, unary, factors = ising(4, 0.5, seed=0)

    def memory(**fields):
        solver = bp.Solver(acceleration=0, **fields)
        slope = jax.grad(product(structure, solver=solver))
        compiled = jax.jit(slope).lower(unary, factors).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(num_steps=2000) == memory(num_steps=20)
    unrolled = [memory(num_steps=n, gradient="unrolled") for n in (20, 2000)]
    assert unrolled[1] > 20 * unrolled[0]


@pytest.mark.slow
def test_float32_at_size():
    structure, unary, factors = ising(32, 0.5, seed=0)
    options = dict(counting=counting.tree_reweighted(structure))
    function = product(structure, **options)
    single = solve(structure, unary, factors, **options)
    slope = jax.jit(jax.grad(function, argnums=(0, 1)))(unary, factors)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (unary, factors))
        options |= dict(solver=TIGHT)
        double = solve(structure, *wide, **options)
        exact = jax.jit(jax.grad(product(structure, **options), argnums=(0, 1)))(*wide)
        assert worst(single.unary, double.unary) < 2e-5
        # The weights are float32 numbers in one and float64 in the other.
        assert worst(slope, exact) < 2e-4
        assert abs(single.log_partition / double.log_partition - 1) < 1e-5
    assert single.converged and single.gap < 1e-2


def test_what_has_not_converged_says_so():
    """Forbidden pairs keep beliefs from agreeing: no gap, and no word of convergence by it."""
    structure = graph.from_edges(5, 3, [(i, j) for i in range(5) for j in range(i)])
    run = jax.jit(
        functools.partial(bp.marginals, structure, solver=bp.Solver(num_steps=3, acceleration=0))
    )
    early = 0
    for seed in range(20):
        result = run(*potentials(structure, seed, forbid=0.25))
        assert result.converged == (result.residual <= 1e-5) and result.gap >= 0
        early += int(result.residual > 1e-3)
    assert early > 10


@pytest.mark.slow
def test_damping_does_not_make_a_move_look_small():
    structure, unary, factors = ising(4, 0.3, seed=0)
    options = dict(counting=counting.bethe(structure))
    start = solve(structure, unary, factors, solver=bp.Solver(num_steps=3), **options).messages
    one = dict(num_steps=1, schedule="parallel", acceleration=0, tolerance=1e-3)
    residuals = []
    for damping in (0.0, 0.99):
        solver = bp.Solver(damping=damping, **one)
        run = functools.partial(solve, structure, unary, factors, messages=start, **options)
        result = run(solver=solver)
        unrolled = run(solver=dataclasses.replace(solver, gradient="unrolled"))
        np.testing.assert_allclose(unrolled.residual, result.residual, rtol=1e-3)
        assert not result.converged
        residuals.append(result.residual)
    # Relative to sizes before or after the move, so about.
    np.testing.assert_allclose(residuals[1], residuals[0], rtol=0.3)


def test_a_front_of_impossible_states_is_a_move():
    """It travels along a chain from its first variable; messages elsewhere stand still."""
    structure = graph.chain(12, 2)
    tables = jnp.tile(jnp.asarray([[0.0, -jnp.inf], [-jnp.inf, 20.0]]), (11, 1, 1))
    unary = jnp.zeros((12, 2)).at[:, 1].set(-20.0).at[-1, 1].set(60.0)
    solver = bp.Solver(schedule="parallel", acceleration=0)
    options = dict(counting=counting.bethe(structure), solver=solver)
    before = solve(structure, unary, (tables,), **options)
    after = solve(
        structure, unary.at[0, 1].set(-jnp.inf), (tables,), messages=before.messages, **options
    )
    assert after.converged and np.all(after.unary[:, 1] == 0) and after.log_partition == 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_gradient_tells_how_far_its_linear_system_was_solved():
    """Undamped sweeps diverge here, and so does the power series: its first term stays."""
    structure, unary, factors = ising(4, 2.0, seed=1)
    solver = dataclasses.replace(TIGHT, damping=0.8, num_gradient_steps=0)
    options = dict(counting=counting.bethe(structure))

    def slope(solver):
        def function(unary, factors, probe):
            return product(structure, solver=solver, probe=probe, **options)(unary, factors)

        return jax.jit(jax.grad(function, argnums=(0, 2)))(unary, factors, 0.0)

    solved, small = slope(dataclasses.replace(solver, num_gradient_steps=600))
    rough, large = slope(solver)
    assert solve(structure, unary, factors, solver=solver, **options).converged
    assert small < 1e-9 and large > 0.01
    assert worst(rough, solved) > 1e3 * small

    # Alone it tells the same, and so it does of cotangents whose squares are no numbers.
    def scaled(probe, size):
        function = product(structure, solver=solver, probe=probe, **options)
        return size * function(unary.astype(jnp.float32), (factors[0].astype(jnp.float32),))

    alone = jax.jit(jax.grad(scaled))
    np.testing.assert_allclose(alone(jnp.float32(0), 1.0), large, rtol=1e-2)
    for size in (1e-25, 1e25):
        np.testing.assert_allclose(alone(jnp.float32(0), size), large, rtol=1e-2)
    # It has no effect, and exact derivatives nothing to tell.
    values = [
        product(structure, solver=solver, probe=p, **options)(unary, factors) for p in (0.0, 9.0)
    ]
    assert values[0] == values[1]
    unrolled = dataclasses.replace(solver, num_steps=3, gradient="unrolled")
    assert slope(unrolled)[1] == 0


@pytest.mark.slow
def test_gradients_of_hard_models_are_finite_in_float32():
    structure = graph.from_edges(5, 3, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)])
    slope = jax.jit(jax.grad(product(structure, solver=TIGHT), argnums=(0, 1)))
    for seed in (17, 20, 44, 74, 88):
        unary, factors = potentials(structure, seed, scale=10.0)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope(unary, factors)))


def test_nan_and_infinity_are_not_taken_for_an_answer():
    unary, factors = potentials(GRID)
    for bad in (jnp.nan, jnp.inf):
        result = solve(GRID, unary.at[3, 0].set(bad), factors, solver=bp.Solver(num_steps=20))
        assert np.isnan(result.log_partition) and not result.converged and not result.upper_bound


@pytest.mark.slow
def test_without_factors_and_in_half_precision():
    alone = graph.FactorGraph(2, 3, ())
    unary = jnp.asarray([[0.0, 1.0, 2.0], [0.0, 0.0, -jnp.inf]])
    solver = bp.Solver(num_newton_steps=2, tolerance=0.0, num_steps=2)
    slope = jax.grad(lambda u: bp.marginals(alone, u, (), solver=solver).unary[0, 0])(unary)
    p = jax.nn.softmax(unary[0])
    np.testing.assert_allclose(slope[0], p[0] * (jnp.asarray([1.0, 0, 0]) - p), atol=1e-6)
    half = [x.astype(jnp.bfloat16) for x in (potentials(GRID)[0], potentials(GRID)[1][0])]
    result = solve(GRID, half[0], (half[1],))
    assert result.converged and result.unary.dtype == jnp.float32


def test_bad_input():
    unary, factors = potentials(GRID)
    with pytest.raises(ValueError, match=r"factors\[0\] must have shape \(12, 2, 2\), got \(11,"):
        bp.marginals(GRID, unary, (factors[0][:-1],))
    with pytest.raises(ValueError, match=r"messages must have shape \(2, 24\), got \(2, 3\)"):
        bp.marginals(GRID, unary, factors, messages=jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"counting numbers must have shapes \[\(9,\), \(12,\)\]"):
        bp.marginals(GRID, unary, factors, counting=counting.bethe(DIAGONAL))
    with pytest.raises(ValueError, match="num_rounds must be >= 1, got 0"):
        bp.tighten(GRID, unary, factors, num_rounds=0)
    for field, value, message in [
        ("num_steps", 0, "num_steps must be >= 1, got 0"),
        ("num_steps", 2.5, "num_steps must be an integer, got 2.5"),
        ("tolerance", -1.0, "tolerance must be >= 0, got -1.0"),
        ("damping", 1.0, r"damping must be in \[0, 1\), got 1.0"),
        ("acceleration", -1, "acceleration must be >= 0, got -1"),
        ("schedule", "random", r"schedule must be one of \('coloured', 'parallel'\), got 'random'"),
        ("gradient", "none", r"gradient must be one of \('implicit', 'unrolled'\), got 'none'"),
    ]:
        with pytest.raises(ValueError, match=message):
            bp.Solver(**{field: value})
