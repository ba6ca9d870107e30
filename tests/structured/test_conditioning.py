"""Conditioning over inference other than a chain's: a loop of three variables, enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import (
    belief_propagation,
    chain,
    conditioning,
    counting,
    enumeration,
    graph,
)
from gasn_jax.structured import grid as grids
from gasn_jax.structured import tree as trees

EDGES = ((0, 1), (1, 2), (0, 2))
STATES = (2, 2, 2)


def loop_marginals(unary, factors):
    def score(x):
        edges = sum(factors[f"{i}{j}"][x[i], x[j]] for i, j in EDGES)
        return jnp.sum(unary[jnp.arange(3), x]) + edges + factors["all"][x[0], x[1], x[2]]

    def indicators(x):
        hot = (x[:, None] == jnp.arange(2)[None, :]).astype(unary.dtype)
        edges = {f"{i}{j}": hot[i][:, None] * hot[j][None, :] for i, j in EDGES}
        triple = hot[0][:, None, None] * hot[1][None, :, None] * hot[2][None, None, :]
        return hot, edges | {"all": triple}

    return enumeration.expectation(indicators, score, STATES)


def loop(seed):
    rng = np.random.default_rng(seed)
    factors = {f"{i}{j}": rng.normal(size=(2, 2)) for i, j in EDGES}
    return rng.normal(size=(3, 2)), factors | {"all": rng.normal(size=(2, 2, 2))}


@pytest.mark.usefixtures("x64")
def test_a_loop_with_a_triple_factor_equals_autodiff():
    unary, factors = loop(0)
    unary[1, 0] = -np.inf
    factors["01"][0, 1] = -np.inf

    @jax.jit
    def run(unary, factors, temperature):
        cooled = lambda u, f: loop_marginals(  # noqa: E731
            *jax.tree.map(lambda x: jnp.where(x == -jnp.inf, x, x / temperature), (u, f))
        )
        wanted = jax.jacfwd(lambda u, f: cooled(u, f)[0], argnums=(0, 1))(unary, factors)
        actual = conditioning.covariance(
            loop_marginals, unary, factors, temperature=temperature, chunk_size=4
        )
        return actual, wanted

    actual, wanted = run(unary, factors, 0.7)
    # -inf scores have no derivative; conditioning says zero, and so must the reference.
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), actual, wanted)
    assert np.abs(actual[0]).max() > 0.05
    assert actual[1]["all"].shape == (3, 2, 2, 2, 2)
    assert (actual[0][1] == 0).all() and (actual[1]["01"][..., 0, 1] == 0).all()


def potentials(structure):
    rng = np.random.default_rng(2)
    shapes = ((structure.num_variables, structure.num_states), *structure.factor_shapes)
    unary, *factors = (jnp.asarray(rng.normal(size=shape)) for shape in shapes)
    return unary.at[1, 0].set(-jnp.inf), tuple(factors)


ENGINES = {
    "tree": (graph.tree(2, [-1, 0, 0, 1, 1]), trees.marginals),
    "grid": (
        graph.grid(2, 3, 2),
        lambda structure, unary, factors: grids.marginals(structure, unary, factors, height=2),
    ),
    "belief propagation in a tree": (
        graph.tree(2, [-1, 0, 0, 1, 1]),
        lambda structure, unary, factors: belief_propagation.marginals(
            *(structure, unary, factors),
            counting=counting.bethe(structure),
            solver=belief_propagation.Solver(tolerance=1e-13),
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ENGINES)
def test_any_engine_that_is_exact_gives_the_covariance(name):
    structure, marginals = ENGINES[name]
    unary, factors = potentials(structure)

    def run(unary, factors):
        result = marginals(structure, unary, factors)
        return result.unary, result.factors

    actual = jax.jit(lambda u, f: conditioning.covariance(run, u, f, chunk_size=4))(unary, factors)
    wanted = jax.jit(jax.jacobian(lambda u, f: run(u, f)[0], argnums=(0, 1)))(unary, factors)
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), actual, wanted)
    assert np.abs(actual[1][0]).max() > 0.02


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_of_approximate_marginals_it_is_another_approximation():
    """Conditioned beliefs are not the derivative of beliefs, where these are not exact."""
    structure = graph.grid(2, 3, 2)
    unary, factors = potentials(structure)

    def run(unary, factors):
        result = belief_propagation.marginals(structure, unary, factors)
        return result.unary, result.factors

    def exact_run(u):
        return grids.marginals(structure, u, factors, height=2).unary

    exact = jax.jit(jax.jacobian(exact_run))(unary)
    conditioned = jax.jit(lambda u: conditioning.covariance(run, u, factors)[0])(unary)
    implicit = jax.jit(jax.jacobian(lambda u: run(u, factors)[0]))(unary)
    errors = [float(jnp.max(jnp.abs(x - exact))) for x in (conditioned, implicit)]
    assert all(1e-3 < error < 0.2 for error in errors) and abs(errors[0] - errors[1]) > 1e-3


def test_chunks_bound_the_memory():
    """Of the 120 runs of a chain with 40 variables, beside the result."""
    unary, pairwise = jnp.zeros((40, 3)), jnp.zeros((39, 3, 3))

    def marginals_fn(unary, pairwise):
        found = chain.marginals(unary, pairwise)
        return found.unary, found.pairwise

    def temporary_bytes(chunk_size):
        run = functools.partial(conditioning.covariance, marginals_fn, chunk_size=chunk_size)
        compiled = jax.jit(run).lower(unary, pairwise).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(4) < temporary_bytes(20) / 3 < temporary_bytes(120) / 9


def test_wrong_arguments_raise_with_the_reason():
    unary, factors = loop(1)
    for chunk_size in (0, -2):
        with pytest.raises(ValueError, match=f"chunk_size must be an integer.*got {chunk_size}"):
            conditioning.covariance(loop_marginals, unary, factors, chunk_size=chunk_size)
    with pytest.raises(ValueError, match=r"unary must have shape \[N, L\].* got \(6,\)"):
        conditioning.covariance(loop_marginals, unary.reshape(-1), factors)
