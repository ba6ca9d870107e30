r"""Exact inference in grids of small height: a column is one variable of a chain.

A column of h variables with L states has :math:`L^h` states of its own, and the factors inside a
column and between neighbouring columns become the scores of a chain
(:mod:`gasn_jax.structured.chain`), linear in the potentials. So all is exact, with the gradients
of chains; the price is :math:`O(w L^{2h})` for w columns. For a binary grid, height 10 is a chain
of 1024 states.

Functions take the graph of :func:`gasn_jax.structured.graph.grid` (4 or 8 neighbours), or any graph
of pairwise factors inside one column or between neighbouring columns of variables
``row * width + column``; its potentials ``unary`` [N, L] and ``factors``, one example per call; and
the static ``height`` = N / width, best the shorter side.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from gasn_jax import numerics
from gasn_jax.structured import chain, enumeration
from gasn_jax.structured import graph as graphs

Temperature = float | Float[Array, ""]

_MOST_STATES = 4096


def log_partition(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The log-partition function, scalar; ``-inf`` if nothing is possible."""
    return chain.log_partition(*_columns(graph, height, unary, factors), temperature=temperature)


def marginals(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> graphs.Marginals:
    """Marginals of variables and factors: the derivatives of the log-partition function.

    All zero if nothing is possible; differentiable again.
    """

    def log_z(potentials):
        return log_partition(graph, *potentials, height=height)

    scaled = jax.tree.map(lambda x: numerics.scale(x, temperature), (unary, tuple(factors)))
    value, (p_unary, p_factors) = jax.value_and_grad(log_z)(scaled)
    return graphs.Marginals(value, p_unary, p_factors)


def argmax(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
) -> tuple[Int[Array, "N"], Float[Array, ""]]:
    """The best states [N] int32 and their score; -1 and ``-inf`` if nothing is possible.

    The score is differentiable: its gradient is the indicator of the states.
    """
    columns = lax.stop_gradient(_columns(graph, height, unary, factors))
    states = _by_variable(graph, height, chain.argmax(*columns)[0])
    return states, graphs.score(graph, states, unary, factors)


def sample(
    key: Key[Array, ""],
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    num_samples: int,
    temperature: Temperature = 1.0,
) -> Int[Array, "num_samples N"]:
    """Exact independent samples [num_samples, N] int32; -1 if nothing is possible."""
    columns = _columns(graph, height, unary, factors)
    drawn = chain.sample(key, *columns, num_samples=num_samples, temperature=temperature)
    return jax.vmap(lambda states: _by_variable(graph, height, states))(drawn)


def log_prob(
    graph: graphs.FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The log-probability of states [N], scalar; ``-inf`` for a forbidden assignment.

    A sum of conditional log-probabilities, so nothing cancels when scores are large.
    """
    columns = _columns(graph, height, unary, factors)
    inside = (states >= 0) & (states < graph.num_states)
    digits = jnp.where(inside, states, 0).reshape(height, -1)
    place = graph.num_states ** np.arange(height)[::-1]
    index = jnp.sum(digits * place[:, None], axis=0)
    value = chain.log_prob(index, *columns, temperature=temperature)
    return jnp.where(jnp.all(inside), value, -jnp.inf)


def entropy(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The Shannon entropy in nats, scalar >= 0; 0 if nothing is possible."""
    return chain.entropy(*_columns(graph, height, unary, factors), temperature=temperature)


class _Plan(NamedTuple):
    """Where each factor goes; numpy, of one graph and height, with S states of a column."""

    states: Int[np.ndarray, "S height"]
    inside: Int[np.ndarray, "A 4"]  # factor, column, row of its first variable, of its second
    onward: Int[np.ndarray, "B 4"]  # the same from a column to the next
    backward: Int[np.ndarray, "C 4"]  # and of factors that name the later column first


@functools.lru_cache(maxsize=64)
def _plan(graph, height):
    if graph.arities not in ((), (2,)):
        raise ValueError(f"a grid's factors must join 2 variables, got arities {graph.arities}")
    if height < 1 or graph.num_variables % height:
        raise ValueError(f"height must divide {graph.num_variables} variables, got {height}")
    if graph.num_states**height > _MOST_STATES:
        raise ValueError(
            f"a column must have at most {_MOST_STATES} states, got {graph.num_states}**{height}"
        )
    edges = graph.factors[0] if graph.factors else np.zeros((0, 2), np.int32)
    rows, columns = np.divmod(edges, graph.num_variables // height)
    step = columns[:, 1] - columns[:, 0]
    if np.any(np.abs(step) > 1):
        number = int(np.argmax(np.abs(step) > 1))
        raise ValueError(
            f"factor {number} must join variables of one or of neighbouring columns, "
            f"got {tuple(edges[number].tolist())}"
        )
    places = np.column_stack([np.arange(len(edges)), columns[:, 0], rows])
    places[step < 0, 1] -= 1
    parts = (places[step == s] for s in (0, 1, -1))
    return _Plan(enumeration.configurations([graph.num_states] * height), *parts)


def _columns(graph, height, unary, factors):
    """The chain's scores: [width, S] and [width - 1, S, S]."""
    plan = _plan(graph, height)
    unary, tables = graphs.pairwise_potentials(graph, unary, factors)
    dtype, num_states, width = unary.dtype, graph.num_states, graph.num_variables // height
    unary = unary.reshape(height, width, num_states)
    chosen = jax.nn.one_hot(plan.states, num_states, dtype=dtype)  # [S, height, L]

    def placed(values, columns):
        """Tables between rows of the columns [columns, height, L, height, L]."""
        result = jnp.zeros((columns, height, num_states, height, num_states), dtype)
        for places, turn in values:
            factor, column, first, second = places.T
            part = tables[factor]
            if turn:
                part, first, second = part.swapaxes(1, 2), second, first
            result = result.at[column, first, :, second, :].add(part)
        return result

    def total(subscripts, *operands):
        """The sum of the chosen scores; forbidden where one is: 0 * -inf must not arise."""
        *chosen, scores = operands
        forbidden = scores == -jnp.inf
        einsum = functools.partial(jnp.einsum, subscripts, precision=lax.Precision.HIGHEST)
        finite = einsum(*chosen, jnp.where(forbidden, 0.0, scores))
        return jnp.where(einsum(*chosen, forbidden.astype(dtype)) > 0, -jnp.inf, finite)

    inside = total("srx,sqy,crxqy->cs", chosen, chosen, placed([(plan.inside, False)], width))
    alone = total("srx,rcx->cs", chosen, unary)
    between = placed([(plan.onward, False), (plan.backward, True)], width - 1)
    return alone + inside, total("srx,tqy,crxqy->cst", chosen, chosen, between)


def _by_variable(graph, height, columns):
    """States [N] of the variables from those of the columns [width], -1 from -1."""
    states = jnp.asarray(_plan(graph, height).states)[jnp.maximum(columns, 0)]
    return jnp.where(columns[:, None] < 0, -1, states).T.reshape(-1)
