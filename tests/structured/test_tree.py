"""Trees beyond the laws: shapes of trees, agreement with chains, refusals, float32 at size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain, enumeration, forest, graph, tree

RANDOM = [-1 if i == 0 else int(np.random.default_rng(i).integers(i)) for i in range(60)]
SHAPES = {
    "path": graph.chain(40, 3),
    "star": graph.tree(3, [-1] + [0] * 30),
    "balanced": graph.tree(3, [-1] + [(i - 1) // 2 for i in range(1, 63)]),
    "caterpillar": graph.tree(3, [i - 1 if i < 20 else i - 20 for i in range(40)]),
    "random": graph.tree(3, RANDOM),
    "forest": graph.tree(3, [-1, 0, 1, -1, 3, 3, -1]),
    "alone": graph.FactorGraph(3, 3, ()),
}


def potentials(structure, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    unary, *factors = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return unary, tuple(factors)


@pytest.mark.parametrize("name", SHAPES)
def test_the_plan_takes_every_edge_once_after_those_below(name):
    structure = SHAPES[name]
    plan = forest.plan(structure)
    edges = plan.chunks.edge[plan.chunks.real[..., 0]]
    num_edges = sum(map(len, structure.factors))
    assert sorted(edges.tolist()) == list(range(num_edges))
    assert np.array_equal(plan.chunks.edge.ravel()[plan.position], np.arange(num_edges))
    step = np.zeros(structure.num_variables, int)  # when a variable's own edge is taken
    row = plan.position // max(plan.chunks.edge.shape[1], 1)
    step[:] = len(plan.chunks.edge) + 1
    step[plan.child] = row
    assert np.all(row < step[plan.parent])
    assert len(plan.roots) == structure.num_variables - num_edges


def test_a_star_and_a_balanced_tree_are_few_steps():
    steps = {name: len(forest.plan(structure).chunks.edge) for name, structure in SHAPES.items()}
    assert steps["path"] == 20 and steps["star"] <= 2 and steps["balanced"] <= 6
    wide = graph.tree(2, [-1] + [0] * 100_000)
    assert len(forest.plan(wide).chunks.edge) < 100


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_a_path_is_a_chain(length):
    structure = graph.chain(length, 3)
    unary, factors = potentials(structure)
    pairwise = factors[0] if factors else jnp.zeros((0, 3, 3))
    got = jax.jit(functools.partial(tree.marginals, structure))(unary, factors, temperature=0.7)
    wanted = chain.marginals(unary, pairwise, temperature=0.7)
    np.testing.assert_allclose(got.log_partition, wanted.log_partition, rtol=1e-6)
    np.testing.assert_allclose(got.unary, wanted.unary, atol=1e-6)
    for a in got.factors:
        np.testing.assert_allclose(a, wanted.pairwise, atol=1e-6)
    states, score = tree.argmax(structure, unary, factors)
    assert states.tolist() == chain.argmax(unary, pairwise)[0].tolist()
    np.testing.assert_allclose(score, chain.argmax(unary, pairwise)[1], rtol=1e-6)
    np.testing.assert_allclose(
        tree.log_prob(structure, states, unary, factors),
        chain.log_prob(states, unary, pairwise),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", SHAPES)
def test_float32_is_near_float64_with_its_gradient(name):
    structure = SHAPES[name]

    def loss(unary, factors):
        m = tree.marginals(structure, unary, factors)
        return jnp.sum(jnp.sin(jnp.arange(m.unary.size)) * m.unary.ravel()) + sum(
            jnp.sum(jnp.cos(jnp.arange(x.size)) * x.ravel()) for x in m.factors
        )

    narrow = jax.jit(jax.grad(loss, argnums=(0, 1)))(*potentials(structure))
    with jax.enable_x64(True):
        wide = jax.jit(jax.grad(loss, argnums=(0, 1)))(*potentials(structure, np.float64))
        wide = jax.tree.map(np.asarray, wide)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), narrow, wide)


@pytest.mark.slow
def test_log_prob_is_the_enumerated_one():
    structure = SHAPES["forest"]
    unary, factors = potentials(structure)
    unary = unary.at[1, 2].set(-jnp.inf)

    def score_fn(states):
        return graph.score(structure, states, unary, factors)

    probabilities = enumeration.probabilities(score_fn, [3] * 7, temperature=1.3)
    states = jnp.asarray(enumeration.configurations([3] * 7))
    run = jax.jit(jax.vmap(lambda x: tree.log_prob(structure, x, unary, factors, temperature=1.3)))
    np.testing.assert_allclose(np.exp(run(states)), probabilities, atol=1e-6)
    slope = jax.grad(lambda u: tree.log_prob(structure, states[0], u, factors, temperature=1.3))
    p = tree.marginals(structure, unary, factors, temperature=1.3).unary
    wanted = (jax.nn.one_hot(states[0], 3) - p) / 1.3
    np.testing.assert_allclose(slope(unary), wanted, atol=1e-6)
    assert tree.log_prob(structure, states[0].at[3].set(7), unary, factors) == -jnp.inf


@pytest.mark.slow
def test_a_batch_is_its_examples():
    structure = SHAPES["random"]
    batch = [potentials(structure, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batch)
    got = jax.jit(jax.vmap(functools.partial(tree.marginals, structure)))(*stacked)
    for i, one in enumerate(batch):
        wanted = tree.marginals(structure, *one)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), got, wanted
        )


def test_what_is_no_forest_is_refused():
    with pytest.raises(ValueError, match=r"a tree must have no cycle, .* \(2, 0\) closes it"):
        tree.log_partition(
            graph.from_edges(3, 2, [(0, 1), (1, 2), (2, 0)]),
            jnp.zeros((3, 2)),
            (jnp.zeros((3, 2, 2)),),
        )
    structure = graph.from_regions(3, 2, [(0, 1, 2)])
    with pytest.raises(ValueError, match=r"must join 2 variables, got arities \(3,\)"):
        tree.log_partition(structure, *potentials(structure))
    with pytest.raises(ValueError, match=r"unary must have shape \(40, 3\), got \(40, 2\)"):
        tree.marginals(SHAPES["path"], jnp.zeros((40, 2)), (jnp.zeros((39, 3, 3)),))
