"""Exact inference by listing every configuration: the slow oracle to check a model with.

It works for any scoring function of a vector of discrete variables, needs the product of the state
counts to be small (up to about a million) and keeps all scores in memory. Everything here can be
differentiated in what ``score_fn`` closes over, and follows the same conventions as the fast
engines: a score ``-inf`` forbids, ``temperature`` is epsilon, an infeasible model has
``log_partition = -inf`` and zero probabilities.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from gasn_jax import numerics

ScoreFn = Callable[[Int[Array, "N"]], Float[Array, ""]]
MAX_CONFIGURATIONS = 2**22


def configurations(num_states: Sequence[int]) -> Int[np.ndarray, "S N"]:
    """All S configurations in lexicographic order, int32.

    Args:
      num_states: number of states of each of the N variables.

    Returns:
      [S, N] with S the product of ``num_states``.

    Raises:
      ValueError: if a variable has no state, or S is above ``MAX_CONFIGURATIONS``.
    """
    count = math.prod(num_states)
    if any(number < 1 for number in num_states) or count > MAX_CONFIGURATIONS:
        wanted = f"numbers >= 1 that give at most {MAX_CONFIGURATIONS} configurations"
        raise ValueError(f"num_states must be {wanted}, got {tuple(num_states)}")
    # those of one state are left out, for an array has at most 64 axes
    varied = [i for i, number in enumerate(num_states) if number > 1]
    grid = np.indices([num_states[i] for i in varied], dtype=np.int32)
    found = np.zeros((len(num_states), count), np.int32)
    found[varied] = grid.reshape(len(varied), count)
    return found.T


def log_partition(
    score_fn: ScoreFn, num_states: Sequence[int], *, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, ""]:
    """``log sum_x exp(score_fn(x) / temperature)``, scalar. O(S) calls of ``score_fn``."""
    return numerics.logsumexp(_scores(score_fn, num_states, temperature))


def probabilities(
    score_fn: ScoreFn, num_states: Sequence[int], *, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "S"]:
    """The probability of every configuration, [S], in the order of :func:`configurations`."""
    return numerics.softmax(_scores(score_fn, num_states, temperature))


def expectation(
    statistic_fn: Callable[[Int[Array, "N"]], PyTree],
    score_fn: ScoreFn,
    num_states: Sequence[int],
    *,
    temperature: float | Float[Array, ""] = 1.0,
) -> PyTree:
    """``E[statistic_fn(x)]``, a pytree shaped as one value of ``statistic_fn``; must be finite."""
    weights = probabilities(score_fn, num_states, temperature=temperature)
    values = jax.vmap(statistic_fn)(jnp.asarray(configurations(num_states)))

    def mean(values):
        # highest: accelerators would round the factors
        return jnp.tensordot(weights, values.astype(weights.dtype), axes=1, precision="highest")

    return jax.tree.map(mean, values)


def marginals(
    score_fn: ScoreFn, num_states: Sequence[int], *, temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "N L"]:
    """``p(x_i)`` for every variable, [N, max(num_states)]; zero for states a variable lacks."""
    width = max(num_states, default=0)

    def one_hot(x):
        return (x[:, None] == jnp.arange(width)[None, :]).astype(float)

    return expectation(one_hot, score_fn, num_states, temperature=temperature)


def argmax(
    score_fn: ScoreFn, num_states: Sequence[int]
) -> tuple[Int[Array, "N"], Float[Array, ""]]:
    """The first best configuration in lexicographic order, [N], and its score.

    An infeasible model gives states -1 and score ``-inf``.
    """
    scores = _scores(score_fn, num_states, 1.0)
    best = jnp.argmax(scores)
    states = jnp.asarray(configurations(num_states))[best]
    return jnp.where(scores[best] > -jnp.inf, states, -1), scores[best]


def _scores(score_fn, num_states, temperature):
    scores = jax.vmap(score_fn)(jnp.asarray(configurations(num_states)))
    return numerics.scale(scores, temperature)
