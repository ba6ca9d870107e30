"""Factor graphs: what is built, what is refused, the score, evidence, and files."""

import itertools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain as chain_inference
from gasn_jax.structured import enumeration, graph, grid

REGIONS = [(0, 1), (2, 0, 3), (1, 2), (3, 2, 1, 0), (1, 3, 2)]


def random_potentials(structure, seed=0, forbidden=0.0):
    rng = np.random.default_rng(seed)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    unary, *factors = (
        np.where(rng.random(shape) < forbidden, -np.inf, rng.normal(size=shape)).astype(np.float32)
        for shape in shapes
    )
    return jnp.asarray(unary), tuple(jnp.asarray(table) for table in factors)


def test_states_may_be_a_list():
    structure, unary = graph.chain(2, 2), jnp.asarray([[0.0, 1.0], [2.0, 3.0]])
    pairs = (jnp.zeros((1, 2, 2)),)
    assert graph.score(structure, [1, 0], unary, pairs) == 3.0
    assert grid.log_prob(structure, [1, 0], unary, pairs, height=1) < 0
    np.testing.assert_array_equal(graph.clamp(unary, [-1, 0]), [[0.0, 1.0], [2.0, -np.inf]])
    with pytest.raises(ValueError, match=r"states must have shape \(2,\), got \(3,\)"):
        graph.score(structure, [1, 0, 0], unary, pairs)


def test_builders_by_hand():
    assert graph.chain(4, 2).factors[0].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert graph.chain(1, 2).factors == ()
    assert graph.tree(2, [-1, 0, 0, 1, -1]).factors[0].tolist() == [[0, 1], [0, 2], [1, 3]]
    assert graph.tree(2, [1, 2, -1]).factors[0].tolist() == [[1, 0], [2, 1]]
    rightward, downward = [[0, 1], [1, 2], [3, 4], [4, 5]], [[0, 3], [1, 4], [2, 5]]
    assert graph.grid(2, 3, 2).factors[0].tolist() == rightward + downward
    diagonal = [[0, 4], [1, 5], [1, 3], [2, 4]]
    eight = graph.grid(2, 3, 2, neighbours=8)
    assert eight.factors[0].tolist() == rightward + downward + diagonal
    mixed = graph.from_regions(4, 3, REGIONS)
    assert mixed.arities == (2, 3, 4)
    assert [rows.tolist() for rows in mixed.factors] == [
        [[0, 1], [1, 2]],
        [[2, 0, 3], [1, 3, 2]],
        [[3, 2, 1, 0]],
    ]
    assert mixed.factor_shapes == ((2, 3, 3), (2, 3, 3, 3), (1, 3, 3, 3, 3))


def test_equal_graphs_are_one_key_and_compile_once():
    first, again = graph.grid(3, 3, 2), graph.grid(3, 3, 2)
    assert first == again and hash(first) == hash(again) and first is not again
    others = [
        graph.grid(3, 3, 3),
        graph.grid(3, 3, 2, neighbours=8),
        graph.from_edges(9, 2, first.factors[0][::-1]),
        graph.from_edges(9, 2, first.factors[0][:, ::-1]),
        "grid",
    ]
    assert all(first != other for other in others)
    numbers = graph.from_edges(np.int64(9), np.int64(2), first.factors[0])
    assert numbers == graph.from_edges(9, 2, first.factors[0])
    run = jax.jit(graph.score, static_argnums=0)
    for structure in (first, again, graph.grid(3, 3, 2)):
        run(structure, jnp.zeros(9, int), *random_potentials(structure))
    assert run._cache_size() == 1


def test_a_graph_cannot_be_changed():
    edges = np.array([[0, 1], [1, 2]])
    structure = graph.from_edges(3, 2, edges)
    edges[0] = 2
    assert structure.factors[0].tolist() == [[0, 1], [1, 2]]
    with pytest.raises(ValueError, match="read-only"):
        structure.factors[0][0] = 0
    assert repr(structure) == "FactorGraph(3 variables with 2 states, 2 factors of 2)"


def test_a_hundred_thousand_factors_take_milliseconds():
    edges = graph.grid(225, 225, 2).factors[0]
    assert len(edges) > 100_000
    start = time.perf_counter()
    graph.from_edges(225 * 225, 2, edges)
    assert time.perf_counter() - start < 0.5  # about 0.02 on a quiet machine


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: graph.from_edges(0, 2, []), "num_variables must be an integer >= 1, got 0"),
        (lambda: graph.from_edges(2, 0, []), "num_states must be an integer >= 1, got 0"),
        (
            lambda: graph.from_edges(3, 2, [(0, 1), (1, 3)]),
            r"factor 1 \(of 2 variables\) must join variables in 0\.\.2, got \(1, 3\)",
        ),
        (
            lambda: graph.from_edges(3, 2, [(0, 1), (-1, 2)]),
            r"factor 1 \(of 2 variables\) must join .* got \(-1, 2\)",
        ),
        (
            lambda: graph.from_edges(3, 2, [(0, 1), (2, 2)]),
            r"factor 1 \(of 2 variables\) must name each variable once, got \(2, 2\)",
        ),
        (
            lambda: graph.from_edges(4, 2, [(2, 3), (0, 1), (1, 2), (1, 0)]),
            r"factor 3 \(of 2 variables\) must join other variables than factor 1, "
            r"got \(1, 0\) and \(0, 1\)",
        ),
        (lambda: graph.from_edges(3, 2, [(0.0, 1.0)]), "factors must be integers, got float64"),
        (
            lambda: graph.from_edges(6, 2, [(0, 1, 2), (3, 4, 5)]),
            r"edges must have shape \[F, 2\], got \[2, 3\]",
        ),
        (
            lambda: graph.from_edges(6, 2, [0, 1, 2, 3]),
            r"edges must have shape \[F, 2\], got \[4\]",
        ),
        (lambda: graph.from_edges(6, 2, [(0, 1), (2,)]), "or uneven rows"),
        (lambda: graph.grid(-1, -3, 2), "height and width must be >= 1, got -1 and -3"),
        (
            lambda: graph.from_regions(6, 2, [(0, 1), (0, 1, 2, 3, 4)]),
            r"region 1 must join 2 to 4 variables, got \(0, 1, 2, 3, 4\)",
        ),
        (
            lambda: graph.FactorGraph(3, 2, (np.array([[0, 1]]), np.array([[1, 2]]))),
            r"factors must have one array for each arity, got arities \[2, 2\]",
        ),
        (
            lambda: graph.FactorGraph(3, 2, (np.array([0, 1]),)),
            r"factors must have shape \[F, 2..4\], got \[2\]",
        ),
        (lambda: graph.grid(2, 2, 2, neighbours=6), "neighbours must be 4 or 8, got 6"),
        (
            lambda: graph.tree(2, [1, 2, 0, -1]),
            "parents must not form a cycle, variable 0 never meets",
        ),
        (
            lambda: graph.tree(2, [-1, 7]),
            r"factor 0 \(of 2 variables\) must join variables in 0\.\.1, got \(7, 1\)",
        ),
    ],
)
def test_what_is_no_graph_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_score_is_the_sum_of_its_terms():
    structure = graph.from_regions(4, 3, REGIONS)
    unary, factors = random_potentials(structure, forbidden=0.05)
    run = jax.jit(graph.score, static_argnums=0)
    for states in itertools.product(range(3), repeat=4):
        wanted = sum(float(unary[i, states[i]]) for i in range(4))
        for rows, table in zip(structure.factors, factors, strict=True):
            for row, scores in zip(rows, table, strict=True):
                wanted += float(scores[tuple(states[v] for v in row)])
        np.testing.assert_allclose(run(structure, jnp.array(states), unary, factors), wanted, 1e-5)


def test_the_score_of_a_chain_is_the_chains():
    structure = graph.chain(5, 3)
    unary, factors = random_potentials(structure)
    states = jnp.array([0, 2, 1, 1, 0])
    wanted = chain_inference.score(states, unary, *factors)
    np.testing.assert_allclose(graph.score(structure, states, unary, factors), wanted, 1e-6)


@pytest.mark.parametrize("states", [[0, 1, 3, 0], [0, -1, 0, 0], [1, 1, 1, 1]])
def test_an_impossible_assignment_has_no_slope(states):
    structure = graph.from_regions(4, 3, REGIONS)
    unary, factors = random_potentials(structure)
    factors = (factors[0].at[1, 1, 1].set(-jnp.inf), *factors[1:])
    value, slope = jax.value_and_grad(graph.score, argnums=2)(
        structure, jnp.array(states), unary, factors
    )
    assert value == -jnp.inf and np.all(np.asarray(slope) == 0)


def test_evidence_conditions():
    structure = graph.from_regions(4, 3, REGIONS)
    unary, factors = random_potentials(structure)
    clamped = graph.clamp(unary, jnp.array([-1, 2, -1, 0]))
    for states in itertools.product(range(3), repeat=4):
        value = graph.score(structure, jnp.array(states), clamped, factors)
        if (states[1], states[3]) == (2, 0):
            assert value == graph.score(structure, jnp.array(states), unary, factors)
        else:
            assert value == -jnp.inf
    with pytest.raises(ValueError, match=r"evidence must have shape \(4,\), got \(1,\)"):
        graph.clamp(unary, jnp.array([1]))
    with pytest.raises(ValueError, match="evidence must be integers, got float32"):
        graph.clamp(unary, jnp.zeros(4))


def test_wrong_shapes_and_values_are_named():
    structure = graph.from_regions(4, 3, REGIONS)
    unary, factors = random_potentials(structure, forbidden=0.1)
    graph.check_values(structure, unary, factors)
    states = jnp.zeros(4, int)
    with pytest.raises(ValueError, match=r"unary must have shape \(4, 3\), got \(4, 2\)"):
        graph.score(structure, states, unary[:, :2], factors)
    with pytest.raises(ValueError, match=r"factors\[1\] must have shape \(2, 3, 3, 3\), got \(1,"):
        graph.score(structure, states, unary, (factors[0], factors[1][:1], factors[2]))
    with pytest.raises(ValueError, match=r"factors must be 3 arrays, .* \(2, 3, 4\), got 1"):
        graph.score(structure, states, unary, factors[:1])
    with pytest.raises(ValueError, match=r"states must have shape \(4,\), got \(3,\)"):
        graph.score(structure, states[:3], unary, factors)
    with pytest.raises(ValueError, match="states must be integers, got bool"):
        graph.score(structure, states == 0, unary, factors)
    with pytest.raises(ValueError, match=r"got nan for variable 2, states \(1,\)"):
        graph.check_values(structure, unary.at[2, 1].set(jnp.nan), factors)
    broken = factors[1].at[1, 2, 0, 1].set(jnp.inf)
    with pytest.raises(ValueError, match=r"got inf for factor \(1, 3, 2\), states \(2, 0, 1\)"):
        graph.check_values(structure, unary, (factors[0], broken, factors[2]))


def test_files_hold_everything(tmp_path):
    for structure in (graph.from_regions(4, 3, REGIONS), graph.chain(1, 2)):
        unary, factors = random_potentials(structure, forbidden=0.2)
        graph.save(tmp_path / "model", structure, unary, factors)
        again = graph.load(tmp_path / "model")
        assert again[0] == structure
        jax.tree.map(np.testing.assert_array_equal, again[1:], (unary, factors))
    halves = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (unary, factors))
    graph.save(tmp_path / "model", structure, *halves)
    again = graph.load(tmp_path / "model")[1:]
    wanted = jax.tree.map(lambda x: np.asarray(x, np.float32), halves)
    jax.tree.map(np.testing.assert_array_equal, again, wanted)


@pytest.mark.parametrize("damage", ["json", "format", "field", "npz", "array", "factor"])
def test_damaged_files_are_one_line(tmp_path, damage):
    structure = graph.chain(3, 2)
    graph.save(tmp_path / "model", structure, *random_potentials(structure))
    description = json.loads((tmp_path / "model.json").read_text())
    text = {
        "json": "{",
        "format": json.dumps(description | {"format": 9}),
        "field": json.dumps({"format": 1}),
    }
    if damage in text:
        (tmp_path / "model.json").write_text(text[damage])
    elif damage == "npz":
        (tmp_path / "model.npz").write_bytes(b"junk")
    else:
        with np.load(tmp_path / "model.npz") as saved:
            arrays = dict(saved)
        if damage == "array":
            del arrays["factors_2"]
        else:
            arrays["variables_2"][0] = 7
        np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ValueError, match="model: no factor graph: ") as caught:
        graph.load(tmp_path / "model")
    assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        graph.load(tmp_path / "absent")


def test_the_oracle_takes_any_graph():
    structure = graph.from_regions(4, 2, REGIONS)
    unary, factors = random_potentials(structure)
    scores = [
        float(graph.score(structure, jnp.array(states), unary, factors))
        for states in itertools.product(range(2), repeat=4)
    ]
    got = enumeration.log_partition(
        lambda states: graph.score(structure, states, unary, factors), [2] * 4
    )
    np.testing.assert_allclose(got, np.logaddexp.reduce(scores), rtol=1e-5)


def test_log_prob_is_the_score_less_the_log_partition_function():
    structure = graph.from_regions(4, 2, [(0, 1), (1, 2, 3)])
    rng = np.random.default_rng(0)
    unary = jnp.asarray(rng.normal(size=(4, 2)))
    factors = tuple(jnp.asarray(rng.normal(size=shape)) for shape in structure.factor_shapes)
    factors = (factors[0].at[0, 1, 1].set(-jnp.inf), factors[1])
    states = np.array(list(itertools.product(range(2), repeat=4)))
    scores = np.array([graph.score(structure, x, unary, factors) for x in states]) / 0.5
    log_z = np.logaddexp.reduce(scores)
    options = dict(log_partition=log_z, temperature=0.5)
    got = jax.vmap(lambda x: graph.log_prob(structure, x, unary, factors, **options))(states)
    np.testing.assert_allclose(got, scores - log_z, rtol=1e-5)
    assert np.sum(np.isneginf(got)) == 4
    slope = jax.grad(lambda u: graph.log_prob(structure, states[-1], u, factors, **options))(unary)
    np.testing.assert_array_equal(slope, 0.0)  # forbidden


def test_files_hold_scores_and_factors_are_a_tuple(tmp_path):
    structure = graph.grid(2, 2, 2)
    unary, factors = np.zeros((4, 2)), (np.zeros((4, 2, 2)),)
    unary[1, 0] = np.nan
    with pytest.raises(ValueError, match="got nan for variable 1"):
        graph.save(tmp_path / "model", structure, unary, factors)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="factors must be a tuple of arrays, got ndarray"):
        graph.check_shapes(structure, unary, factors[0])
