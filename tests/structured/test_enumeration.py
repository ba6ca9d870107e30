"""The public slow oracle, against sums written out in numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import enumeration

STATES = (2, 3, 1, 2)
TABLE = np.random.default_rng(0).normal(size=STATES)
TABLE[0, 1] = -np.inf
WANTED = np.exp(TABLE / 0.5) / np.exp(TABLE / 0.5).sum()


def score_of(table, x):
    return table[tuple(x)]


def test_configurations_are_all_in_lexicographic_order():
    wanted = list(itertools.product(*map(range, STATES)))
    actual = enumeration.configurations(STATES)
    assert actual.dtype == np.int32
    assert [tuple(row) for row in actual] == wanted == sorted(wanted)
    np.testing.assert_array_equal(enumeration.configurations((3,)), [[0], [1], [2]])
    assert enumeration.configurations(()).shape == (1, 0)
    assert enumeration.marginals(lambda x: 0.0, ()).shape == (0, 0)
    many = enumeration.configurations((1,) * 69 + (2,))
    assert many.shape == (2, 70) and many.sum() == many[1, 69] == 1


@pytest.mark.parametrize("num_states", [(2, 0), (2,) * 23, (-2, -2)])
def test_too_many_or_no_configurations(num_states):
    with pytest.raises(ValueError, match="num_states must be numbers >= 1 that give at most"):
        enumeration.configurations(num_states)


@pytest.mark.usefixtures("x64")
def test_values():
    @jax.jit
    def run(table, temperature):
        score = functools.partial(score_of, table)
        options = {"temperature": temperature}
        statistic = lambda x: {"sum": jnp.sum(x), "first": x[:2] * 1.0}  # noqa: E731
        return (
            enumeration.log_partition(score, STATES, **options),
            enumeration.probabilities(score, STATES, **options),
            enumeration.marginals(score, STATES, **options),
            enumeration.expectation(statistic, score, STATES, **options),
            enumeration.argmax(score, STATES),
        )

    log_z, p, marginals, means, (best, best_score) = run(TABLE, 0.5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    close(log_z, np.log(np.exp(TABLE / 0.5).sum()))
    close(p, WANTED.reshape(-1))
    assert (np.asarray(p).reshape(STATES)[0, 1] == 0).all()
    for i, width in enumerate(STATES):
        others = tuple(j for j in range(4) if j != i)
        close(marginals[i, :width], WANTED.sum(axis=others))
        assert (marginals[i, width:] == 0).all()
    index = np.indices(STATES)
    close(means["sum"], (WANTED * index.sum(axis=0)).sum())
    close(means["first"], [(WANTED * index[0]).sum(), (WANTED * index[1]).sum()])
    assert tuple(best) == np.unravel_index(TABLE.argmax(), STATES)
    close(best_score, TABLE.max())


@pytest.mark.usefixtures("x64")
def test_first_and_second_derivatives():
    """d log Z = p / T and d^2 log Z = (diag p - p p^T) / T^2, with zeros where it is forbidden."""

    def log_z(table):
        score = functools.partial(score_of, table.reshape(STATES))
        return enumeration.log_partition(score, STATES, temperature=0.5)

    p = WANTED.reshape(-1)
    flat = jnp.asarray(TABLE.reshape(-1))
    np.testing.assert_allclose(jax.jit(jax.grad(log_z))(flat), p / 0.5, atol=1e-12)
    hessian = jax.jit(jax.hessian(log_z))(flat)
    np.testing.assert_allclose(hessian, (np.diag(p) - np.outer(p, p)) / 0.25, atol=1e-12)


def test_an_infeasible_model_has_zero_probability_and_zero_derivatives():
    def log_z(table):
        return enumeration.log_partition(functools.partial(score_of, table), (2, 2))

    def total(table):
        return jnp.sum(enumeration.marginals(functools.partial(score_of, table), (2, 2)) ** 2)

    nothing = jnp.full((2, 2), -jnp.inf)
    assert log_z(nothing) == -jnp.inf
    assert total(nothing) == 0
    for function in (log_z, total):
        assert (jax.jit(jax.grad(function))(nothing) == 0).all()
        assert (jax.jit(jax.hessian(function))(nothing) == 0).all()


def test_ties_go_to_the_first():
    best, score = enumeration.argmax(lambda x: jnp.where(x[0] == 1, 1.0, 0.0), (2, 3))
    assert tuple(best) == (1, 0)
    assert score == 1
