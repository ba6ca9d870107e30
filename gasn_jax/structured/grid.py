r"""Exact inference in grids of small height, variable by variable.

Down one column after another, a variable has factors only with those a little before it: in a grid
with 4 neighbours with the last h, h its height. So the grid is a Markov chain whose state is those
last k variables, k the farthest that a factor reaches back:

.. math::  p(x) = \prod_t p(x_t \mid x_{t-k}, \dots, x_{t-1}), \qquad
   m_t(x_{t-k}, \dots, x_{t-1}) = \log \sum_{x_t} \exp(s_t(x_{t-k}, \dots, x_t)
   + m_{t+1}(x_{t-k+1}, \dots, x_t))

with :math:`s_t` the scores of :math:`x_t` and of its factors with variables before it. The messages
:math:`m_t` cost :math:`O(N L^{k+1})`, where joining a column into one variable of a chain would
cost :math:`L^{2h}` a column. A binary grid of height 10 has 1024 states of a message.

Functions take the graph of :func:`gasn_jax.structured.graph.grid` (4 neighbours: k = h; 8: h + 1),
or any graph of pairwise factors over variables ``row * width + column``; its potentials ``unary``
[N, L] and ``factors``, one example per call; and the static ``height`` = N / width, best the
shorter side.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from gasn_jax import checks, numerics
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import markov

Temperature = float | Float[Array, ""]

MOST_STATES = 4096  # of the last k variables together


def check(graph: graphs.FactorGraph, *, height: int) -> None:
    """Raises ``ValueError`` for a graph that is no such grid, or too high for ``MOST_STATES``."""
    _plan(graph, height)


def log_partition(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The log-partition function, scalar; ``-inf`` if nothing is possible."""
    scores = _scores(graph, height, unary, factors, temperature)
    return _backward(scores, lambda scores: (numerics.logsumexp(scores), None))[0]


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
    """The best states [N] int32 and their score.

    -1 and ``-inf`` if nothing is possible, -1 and NaN if a potential is NaN or ``+inf``.

    The score is differentiable: its gradient is the indicator of the states.
    """
    scores = _scores(graph, height, *lax.stop_gradient((unary, factors)), 1.0)
    best, choices = _backward(scores, lambda scores: (jnp.max(scores, -1), jnp.argmax(scores, -1)))

    def step(last, choices):
        state = choices[last].astype(jnp.int32)
        return _shifted(scores, last, state), state

    _, states = lax.scan(step, jnp.int32(0), choices)
    valid = graphs.is_valid(unary, factors)
    states = jnp.where((best > -jnp.inf) & valid, states[scores.place], -1)
    return states, jnp.where(valid, graphs.score(graph, states, unary, factors), jnp.nan)


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
    scores = _scores(graph, height, *lax.stop_gradient((unary, factors)), temperature)
    log_z, log_transition = _transitions(scores)
    precise = jnp.promote_types(log_transition.dtype, jnp.float32)
    uniform = jax.random.uniform(key, (graph.num_variables, num_samples), precise)

    def step(last, inputs):
        log_transition, uniform = inputs
        states = numerics.inverse_cdf(jnp.exp(log_transition[last]).T, uniform)
        return _shifted(scores, last, states), states

    _, states = lax.scan(step, jnp.zeros(num_samples, jnp.int32), (log_transition, uniform))
    return jnp.where(log_z > -jnp.inf, states[scores.place].T, -1)


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
    states = checks.integers("states", states, (graph.num_variables,))
    possible = graphs.score(graph, states, unary, factors) != -jnp.inf
    scores = _scores(graph, height, unary, factors, temperature)
    _, log_transition = _transitions(scores)
    states = jnp.where(possible, jnp.clip(states, 0, graph.num_states - 1), 0)[scores.order]

    def step(last, inputs):
        log_transition, state = inputs
        return _shifted(scores, last, state), log_transition[last, state]

    _, terms = lax.scan(step, jnp.int32(0), (log_transition, states.astype(jnp.int32)))
    return jnp.where(possible, jnp.sum(jnp.where(possible, terms, 0.0)), -jnp.inf)


def entropy(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    height: int,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The Shannon entropy in nats, scalar >= 0; 0 if nothing is possible."""
    scores = _scores(graph, height, unary, factors, temperature)
    log_z, log_transition = _transitions(scores)

    def step(p, log_transition):  # p: of the last variables
        joint = p[:, None] * jnp.exp(log_transition)
        terms = jnp.sum(numerics.multiply_log(joint, log_transition))
        return jnp.sum(joint.reshape(graph.num_states, -1), axis=0), terms

    start = jnp.zeros(log_transition.shape[1], log_transition.dtype).at[0].set(1.0)
    _, terms = lax.scan(step, start, log_transition)
    return jnp.where(log_z == -jnp.inf, 0.0, -jnp.sum(terms))


class _Plan(NamedTuple):
    """A graph in columns; numpy, of one height."""

    order: Int[np.ndarray, "N"]  # the variables from one column to the next
    place: Int[np.ndarray, "N"]  # of each variable in this order
    position: Int[np.ndarray, "F"]  # of each factor's later variable in the order
    flip: Int[np.ndarray, "F"]  # whether that is the variable that the factor names first
    distance: Int[np.ndarray, "F"]  # how far before it the other variable stands, a row of:
    distances: tuple[int, ...]  # those that occur


@functools.lru_cache(maxsize=64)
def _plan(graph, height):
    if graph.arities not in ((), (2,)):
        raise ValueError(f"a grid's factors must join 2 variables, got arities {graph.arities}")
    if height < 1 or graph.num_variables % height:
        raise ValueError(f"height must divide {graph.num_variables} variables, got {height}")
    order = np.arange(graph.num_variables).reshape(height, -1).T.reshape(-1)
    place = np.argsort(order)
    edges = graph.factors[0] if graph.factors else np.zeros((0, 2), np.int32)
    first, second = place[edges].T
    apart = np.abs(first - second)
    far = apart * np.log(graph.num_states) > np.log(MOST_STATES) + 1e-9
    if far.any():
        number = int(np.argmax(far))
        raise ValueError(
            f"in columns of {height}, factor {number} of the variables "
            f"{tuple(edges[number].tolist())} reaches {apart[number]} variables back, which must "
            f"have at most {MOST_STATES} states, got {graph.num_states}**{apart[number]}"
        )
    distances, rows = np.unique(apart, return_inverse=True)
    later = np.maximum(first, second)
    return _Plan(order, place, later, first > second, rows, tuple(distances.tolist()))


class _Scores(NamedTuple):
    """The scores of each variable with those before it, in the plan's order."""

    order: Int[np.ndarray, "N"]
    place: Int[np.ndarray, "N"]
    distances: tuple[int, ...]  # k is the last, at least 1
    unary: Float[Array, "N L"]
    tables: Float[Array, "N D L L"]  # with the variable at each distance before; zero where none

    def of(self, t: Int[Array, ""]) -> Float[Array, "S L"]:
        """Of the t-th variable, given the states of the last k."""
        num_states, memory = self.unary.shape[1], self.distances[-1]
        scores = markov.row(self.unary, t)[None, :]
        tables = markov.row(self.tables, t)
        for table, distance in zip(tables, self.distances, strict=True):
            before, after = num_states ** (memory - distance), num_states ** (distance - 1)
            table = jnp.broadcast_to(table[:, None, :], (before, num_states, after, num_states))
            scores = scores + table.reshape(-1, num_states)
        return scores


def _scores(graph, height, unary, factors, temperature):
    plan = _plan(graph, height)
    unary, factors = graphs.pairwise_potentials(graph, unary, factors)
    unary, factors = (numerics.scale(x, temperature) for x in (unary, factors))
    distances = plan.distances or (1,)
    factors = jnp.where(plan.flip[:, None, None], factors.swapaxes(1, 2), factors)
    tables = jnp.zeros((len(unary), len(distances), *factors.shape[1:]), unary.dtype)
    tables = tables.at[plan.position, plan.distance].set(factors)
    return _Scores(plan.order, plan.place, distances, unary[plan.order], tables)


def _backward(scores, reduce):
    """From the last variable to the first; ``reduce`` makes a message [S] from scores [S, L].

    Returns what is left at the end, a scalar, and what ``reduce`` returns besides, [N, ...].
    """
    num_variables, num_states = scores.unary.shape
    size = num_states ** scores.distances[-1]

    def step(message, t):
        # The variable that is forgotten at this step comes first: it sees the message repeated.
        onward = jnp.tile(message.reshape(-1, num_states), (num_states, 1))
        message, output = reduce(scores.of(t) + onward)
        top = numerics.finite_max(message)  # without it messages would grow, and lose digits
        return message - top, (top, output)

    start = jnp.zeros_like(scores.unary, shape=size)
    message, (tops, outputs) = lax.scan(step, start, jnp.arange(num_variables), reverse=True)
    # Before the first variable there are none, of any one state.
    return message[0] + jnp.sum(tops), outputs


def _transitions(scores):
    """The log-partition function, and ``log p(x_t | the last k)``, [N, S, L]."""
    return _backward(scores, lambda s: (numerics.logsumexp(s), numerics.log_softmax(s)))


def _shifted(scores, last, state):
    """The index of the last k states, once ``state`` has joined them and the first has left."""
    num_states = scores.unary.shape[1]
    return last % num_states ** (scores.distances[-1] - 1) * num_states + state
