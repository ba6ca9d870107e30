"""One variable given all others: Gibbs sampling and iterated conditional modes in any graph.

Variables that share no factor are independent given the rest, so a sweep goes colour by colour.
Potentials are those of :mod:`gasn_jax.structured.graph`; one example per call.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from gasn_jax import checks, numerics
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import schedule as schedules

Temperature = float | Float[Array, ""]


def gibbs_sweep(
    key: Key[Array, ""],
    graph: graphs.FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    temperature: Temperature = 1.0,
) -> Int[Array, "N"]:
    """Every variable drawn once from its conditional distribution.

    The model's distribution is stationary. From states of positive probability only such are
    reached; a variable that has no possible state stays as it is. O(M L).

    Args:
      key: a ``jax.random.key``.
      graph: the structure, static.
      states: where to start, [N] integers in 0..L-1.
      unary, factors: the potentials.
      temperature: epsilon > 0.

    Returns:
      States [N] int32; -1 throughout if a given one is outside 0..L-1.

    Raises:
      ValueError: at trace time, for shapes that are not the graph's.
    """
    unary = numerics.scale(unary, temperature)
    factors = tuple(numerics.scale(table, temperature) for table in factors)
    # At least float32: a half-precision number is too coarse a threshold.
    precise = jnp.promote_types(unary.dtype, jnp.float32)
    uniform = jax.random.uniform(key, (graph.num_variables,), precise)

    def draw(scores, variables):
        return numerics.inverse_cdf(numerics.softmax(scores, axis=0), uniform[variables])

    sweep = _sweep(graph, unary, factors, draw)
    states = _checked(graph, states)
    known = jnp.all((states >= 0) & (states < graph.num_states))
    return jnp.where(known, sweep(states), -1)


def iterated_conditional_modes(
    graph: graphs.FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    num_sweeps: int = 100,
) -> tuple[Int[Array, "N"], Float[Array, ""], Bool[Array, ""]]:
    """States that no change of one variable improves, found uphill from the given ones.

    Args:
      graph, states, unary, factors: as for :func:`gibbs_sweep`.
      num_sweeps: most sweeps, >= 1.

    Returns:
      States [N] int32, their score, and whether a sweep changed nothing before the sweeps were
      used up. The score is never below that of ``states``.

    Reference: Besag, "On the Statistical Analysis of Dirty Pictures" (1986).
    """
    if num_sweeps < 1:
        raise ValueError(f"num_sweeps must be >= 1, got {num_sweeps}")
    sweep = _sweep(graph, unary, factors, lambda scores, _: jnp.argmax(scores, axis=0))

    def step(carry):
        states, count, _ = carry
        new = sweep(states)
        return new, count + 1, jnp.all(new == states)

    def going_on(carry):
        _, count, settled = carry
        return ~settled & (count < num_sweeps)

    start = (_checked(graph, states), jnp.int32(0), jnp.bool_(False))
    states, _, settled = lax.while_loop(going_on, step, start)
    return states, graphs.score(graph, states, unary, factors), settled


def _checked(graph, states):
    return checks.integers("states", states, (graph.num_variables,)).astype(jnp.int32)


def _sweep(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    choose_fn: Callable[[Float[Array, "L V"], Int[np.ndarray, "V"]], Int[Array, "V"]],
) -> Callable[[Int[Array, "N"]], Int[Array, "N"]]:
    """The function of states that chooses all variables anew, from their scores given the rest."""
    graphs.check_shapes(graph, unary, factors)
    plan = schedules.plan(graph, True)
    potentials = jnp.asarray(unary).T
    tables = [jnp.moveaxis(jnp.asarray(table), 0, -1) for table in factors]

    def given_others(block, states):
        sent = [jnp.zeros((graph.num_states, 0), potentials.dtype)]
        for group in block.groups:
            table = jnp.moveaxis(tables[group.arity], group.place, 0)
            others = states[plan.variable[group.others]]
            sent.append(table[(slice(None), *others, group.factors)])
        sent = jnp.concatenate(sent, axis=1)
        sums = [jnp.sum(sent[:, slots], axis=1) for slots in block.incident]
        return potentials[:, block.variables] + jnp.concatenate(sums, axis=1)

    def sweep(states):
        for block in (*plan.blocks, plan.alone):
            if not len(block.variables):
                continue
            scores = given_others(block, states)
            chosen = choose_fn(scores, block.variables).astype(jnp.int32)
            possible = jnp.max(scores, axis=0) > -jnp.inf
            chosen = jnp.where(possible, chosen, states[block.variables])
            states = states.at[block.variables].set(chosen)
        return states

    return sweep
