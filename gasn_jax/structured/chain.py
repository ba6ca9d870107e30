r"""Exact inference in a chain of discrete variables.

.. math:: F(x) = \sum_{i=1}^{N} u_i(x_i) + \sum_{i=1}^{N-1} w_i(x_i, x_{i+1}), \qquad
          p(x) = \exp(F(x) / \epsilon) / Z_\epsilon

with ``unary`` u of shape [N, L] and ``pairwise`` w of shape [N-1, L, L]: scores, higher is better.
A forbidden state or edge has the score ``-inf`` and gets probability 0 and gradient 0. An
infeasible chain, where every sequence is forbidden, has ``log_partition = -inf``, zero marginals
and states -1. NaN and ``+inf`` are no scores: in use, they make numbers NaN and states -1.

Every function takes one chain; batch with ``jax.vmap`` and compile with ``jax.jit``. Options:

* ``temperature``: the paper's epsilon > 0, a float or a scalar array.
* ``length``: how many leading variables are in use, 1..N, an int or a scalar array; None means N.
  What lies beyond is padding: its potentials are ignored, its marginals are zero, its states -1.

Floating-point dtypes follow the potentials. Wrong shapes, a ``length`` or states that are no
integers, a Python ``length`` outside 1..N and a Python ``temperature`` <= 0 raise ``ValueError``
when the function is called or traced; a traced ``temperature`` is not checked, and a traced
``length`` outside 1..N counts as the nearest in it.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equations 2, 4, 8-12
and Algorithm 1. The recursions are in :mod:`gasn_jax.structured.markov`.
"""

import numbers
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from gasn_jax import checks, numerics
from gasn_jax.structured import markov, max_product

Length = int | Int[Array, ""] | None
Temperature = float | Float[Array, ""]


class ChainMarginals(NamedTuple):
    """Marginals of a chain.

    Attributes:
      log_partition: ``log Z``, scalar.
      unary: ``p(x_i)``, [N, L].
      pairwise: ``p(x_i, x_{i+1})``, [N-1, L, L].
    """

    log_partition: Float[Array, ""]
    unary: Float[Array, "N L"]
    pairwise: Float[Array, "N-1 L L"]


class ChainCovariance(NamedTuple):
    """Derivatives of the unary marginals in the potentials.

    Attributes:
      unary_unary: ``d p(x_i) / d unary[j, x_j]``, [N, L, N, L].
      unary_pairwise: ``d p(x_i) / d pairwise[j, x_j, x_{j+1}]``, [N, L, N-1, L, L].
    """

    unary_unary: Float[Array, "N L N L"]
    unary_pairwise: Float[Array, "N L N-1 L L"]


def score(
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    length: Length = None,
) -> Float[Array, ""]:
    """The score ``F(x)`` of one sequence (GASN paper, Equation 4).

    Args:
      states: sequence, [N] integers in 0..L-1; values beyond ``length`` are ignored.
      unary, pairwise, length: the chain, see the module.

    Returns:
      Scalar; ``-inf``, with gradient 0, for a forbidden sequence and if a state in use lies
      outside 0..L-1. O(N).
    """
    unary, pairwise, length = _prepare(unary, pairwise, 1.0, length)
    num_variables, num_states = unary.shape
    states = checks.integers("states", states, (num_variables,))
    safe = jnp.clip(states, 0, num_states - 1)
    node = jnp.take_along_axis(unary, safe[:, None], axis=1)[:, 0]
    edge = pairwise[jnp.arange(num_variables - 1), safe[:-1], safe[1:]]
    node = jnp.where(safe == states, node, -jnp.inf)
    if length is not None:
        node = jnp.where(jnp.arange(num_variables) < length, node, 0.0)
        edge = jnp.where(jnp.arange(1, num_variables) < length, edge, 0.0)
    forbidden = jnp.any(node == -jnp.inf) | jnp.any(edge == -jnp.inf)
    return jnp.where(forbidden, -jnp.inf, jnp.sum(node) + jnp.sum(edge))


def log_partition(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> Float[Array, ""]:
    """The log-partition function ``log Z = log sum_x exp(F(x) / temperature)``.

    Args:
      unary, pairwise, temperature, length: the chain, see the module.

    Returns:
      Scalar, ``-inf`` if no sequence is possible. O(N L^2). Its gradient in the potentials is
      ``marginals / temperature``.

    Reference: GASN paper, Equation 11.
    """
    return markov.infer(*_prepare(unary, pairwise, temperature, length)).log_partition


def marginals(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> ChainMarginals:
    """Marginals of single variables and of neighbours: the smoothed generator's output.

    The derivative is the covariance form of Equation 12 contracted with the (co)tangent, two more
    linear passes, O(N L^2) time and memory; it can be differentiated again.

    Args:
      unary, pairwise, temperature, length: the chain, see the module.

    Returns:
      :class:`ChainMarginals`, in O(N L^2); all zero if no sequence is possible.

    Reference: GASN paper, Equations 9, 10 and 12.
    """
    chain = markov.infer(*_prepare(unary, pairwise, temperature, length))
    return ChainMarginals(chain.log_partition, chain.unary, chain.pairwise)


def covariance(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> ChainCovariance:
    r"""The full Jacobian of the unary marginals: the covariances of Equation 12 over epsilon.

    .. math:: \frac{\partial p(x_i)}{\partial f_r(x_r)}
              = \frac{1}{\epsilon} \left( p(x_i, x_r) - p(x_i) p(x_r) \right)

    Algorithm 1 as printed runs i only to N-1, which leaves the last variable's entries unset, and
    names variables 0 and N+1; that its backward loop ends at j = 2 is right, for this fills in
    variable 1. Here every i from 1 to N has both directions, and every pair, and what is propagated
    is the covariance itself rather than the joint probability, which keeps small entries precise.

    Args:
      unary, pairwise, temperature, length: the chain, see the module.

    Returns:
      :class:`ChainCovariance`. O(N^2 L^3) time, O(N^2 L^3) memory for the result. To multiply it
      with a vector, differentiate :func:`marginals` instead: O(N L^2).

    Reference: GASN paper, Claim 1 and Algorithm 1.
    """
    chain = markov.infer(*_prepare(unary, pairwise, temperature, length))
    p, joint, transition = chain.unary, chain.pairwise, chain.transition
    upper = p[:, None, :, None] * markov.covariance_matrices(p, transition)  # [i, j, x_i, x_j]
    order = jnp.arange(p.shape[0])
    forward = (order[:, None] <= order[None, :])[:, None, :, None]  # [i, 1, j, 1]
    unary_unary = jnp.where(forward, upper.transpose(0, 2, 1, 3), upper.transpose(1, 3, 0, 2))
    # A pair (j, j+1) after i: a step on from the covariance with x_j. One before i: the deviation
    # of p(x_i) given x_{j+1}, weighted with the pair's probability.
    deviation = numerics.divide(unary_unary, p[None, None])
    unary_pairwise = jnp.where(
        forward[:, :, :-1, :, None],
        unary_unary[:, :, :-1, :, None] * transition[None, None],
        deviation[:, :, 1:, None, :] * joint[None, None],
    )
    epsilon = jnp.asarray(temperature, p.dtype)
    return ChainCovariance(unary_unary / epsilon, unary_pairwise / epsilon)


def argmax(
    unary: Float[Array, "N L"], pairwise: Float[Array, "N-1 L L"], *, length: Length = None
) -> tuple[Int[Array, "N"], Float[Array, ""]]:
    """The best sequence and its score: MAP inference, the generator of Equation 2.

    Args:
      unary, pairwise, length: the chain, see the module.

    Returns:
      ``states`` [N] int32 and their ``score``; ties go to the lowest state, first variable first.
      An infeasible chain gives states -1 and score ``-inf``. O(N L^2). The score is
      differentiable: its gradient is the indicator of the states.
    """
    states, scores = top_k(unary, pairwise, 1, length=length)
    return states[0], scores[0]


def top_k(
    unary: Float[Array, "N L"], pairwise: Float[Array, "N-1 L L"], k: int, *, length: Length = None
) -> tuple[Int[Array, "k N"], Float[Array, "k"]]:
    """The k best distinct sequences, best first: max-product and an exact beam.

    Args:
      unary, pairwise, length: the chain, see the module.
      k: how many, >= 1, static.

    Returns:
      ``states`` [k, N] int32 and ``scores`` [k], in O(N L^2 + N k L log k). Where fewer than k
      sequences are possible, the rest has states -1 and scores ``-inf``.

    Raises:
      ValueError: at trace time, if k is no integer >= 1.
    """
    unary, pairwise, length = _prepare(unary, pairwise, 1.0, length)
    _check_count("k", k, 1)
    fixed = lax.stop_gradient((unary, pairwise))
    states, possible, valid = max_product.top_k(*fixed, k, length)
    states = _mask_states(states, (possible & valid)[:, None], length)
    scores = jax.vmap(lambda row: score(row, unary, pairwise, length=length))(states)
    return states, jnp.where(valid, scores, jnp.nan)


def sample(
    key: Key[Array, ""],
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    num_samples: int,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> Int[Array, "num_samples N"]:
    """Exact independent samples: one backward pass, then all samples forward together.

    Args:
      key: a ``jax.random.key``.
      unary, pairwise, temperature, length: the chain, see the module.
      num_samples: how many, >= 0, static.

    Returns:
      States [num_samples, N] int32; a forbidden state is never drawn; an infeasible chain gives
      -1 throughout. O(N L^2 + num_samples N L).

    Raises:
      ValueError: at trace time, if ``num_samples`` is no integer >= 0.
    """
    unary, pairwise, length = _prepare(unary, pairwise, temperature, length)
    _check_count("num_samples", num_samples, 0)
    unary, pairwise = lax.stop_gradient((unary, pairwise))
    first, inward, top, _, _ = markov.backward(unary, pairwise, length)
    # At least float32: a half-precision number is too coarse a threshold.
    precise = jnp.promote_types(unary.dtype, jnp.float32)
    uniform = jax.random.uniform(key, (unary.shape[0], num_samples), precise)
    initial = numerics.softmax(unary[0] + first)
    state = numerics.inverse_cdf(jnp.tile(initial[:, None], (1, num_samples)), uniform[0])

    def step(state, inputs):
        # Only the rows that were reached need their exponentials.
        i, inward, top, threshold = inputs
        scores = markov.row(pairwise, i).T.at[:, state].get(mode="promise_in_bounds")
        tops = top.at[state].get(mode="promise_in_bounds")
        # Kept apart from the gather, which is one number at a time, the exponentials are vectors.
        scores, tops = lax.optimization_barrier((scores, tops))
        state = numerics.inverse_cdf(jnp.exp((inward[:, None] + scores) - tops[None, :]), threshold)
        return state, state

    steps = jnp.arange(unary.shape[0] - 1)
    _, later = lax.scan(step, state, (steps, inward, top, uniform[1:]))
    states = jnp.concatenate([state[None], later]).T.astype(jnp.int32)
    return _mask_states(states, jnp.max(initial) > 0, length)


def log_prob(
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> Float[Array, ""]:
    """The log-probability ``F(x) / temperature - log Z`` of one sequence (Equation 11).

    Args:
      states: sequence, [N] integers; values beyond ``length`` are ignored.
      unary, pairwise, temperature, length: the chain, see the module.

    Returns:
      Scalar; ``-inf`` for a forbidden sequence or a state outside 0..L-1. O(N L^2). The gradient
      is indicator minus marginals, over the temperature. A sum of conditional log-probabilities,
      so nothing cancels when scores are large.
    """
    unary, pairwise, length = _prepare(unary, pairwise, temperature, length)
    states = checks.integers("states", states, unary.shape[:1])
    possible = score(states, unary, pairwise, length=length) != -jnp.inf
    safe = jnp.where(possible, jnp.clip(states, 0, unary.shape[1] - 1), 0)
    return jnp.where(possible, markov.log_prob(unary, pairwise, safe, length), -jnp.inf)


def entropy(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> Float[Array, ""]:
    """The Shannon entropy ``H(p) = -sum_x p(x) log p(x)`` in nats (the term of Equation 8).

    Args:
      unary, pairwise, temperature, length: the chain, see the module.

    Returns:
      Scalar >= 0; 0 for an infeasible chain. O(N L^2). A sum of conditional entropies, so
      nothing cancels when scores are large.
    """
    chain = markov.infer(*_prepare(unary, pairwise, temperature, length))
    initial = numerics.multiply_log(chain.unary[0], chain.log_initial)
    return -jnp.sum(initial) - jnp.sum(numerics.multiply_log(chain.pairwise, chain.log_transition))


def kl_divergence(
    unary: Float[Array, "N L"],
    pairwise: Float[Array, "N-1 L L"],
    other_unary: Float[Array, "N L"],
    other_pairwise: Float[Array, "N-1 L L"],
    *,
    temperature: Temperature = 1.0,
    length: Length = None,
) -> Float[Array, ""]:
    """The divergence ``KL(p || q)`` in nats, from this chain p to another chain q of equal shape.

    Args:
      unary, pairwise: the scores of p, [N, L] and [N-1, L, L].
      other_unary, other_pairwise: the scores of q, of the same shapes.
      temperature, length: of both, see the module.

    Returns:
      Scalar >= 0 up to rounding; ``inf``, with gradient 0, where p allows what q forbids (a state
      after the first variable whose probability underflows counts as forbidden by p). O(N L^2).
    """
    _check_shape("other_unary", other_unary, jnp.shape(unary))
    _check_shape("other_pairwise", other_pairwise, jnp.shape(pairwise))
    *ours, length = _prepare(unary, pairwise, temperature, length)
    *theirs, _ = _prepare(other_unary, other_pairwise, temperature, length)
    # One computation for both, lest equal chains round apart.
    both = jax.tree.map(lambda *x: jnp.stack(x), ours, theirs)
    both = jax.vmap(markov.infer, in_axes=(0, 0, None))(*both, length)
    p, q = (jax.tree.map(operator.itemgetter(i), both) for i in (0, 1))
    # Where p has no mass nothing is compared. Differences first, so that equal terms cancel.
    reached = (p.unary[:-1, :, None] > 0) & (p.log_transition > -jnp.inf)
    initial, initial_fits = _log_ratio(p.log_initial, q.log_initial, p.log_initial > -jnp.inf)
    step, steps_fit = _log_ratio(p.log_transition, q.log_transition, reached)
    divergence = jnp.sum(p.unary[0] * initial) + jnp.sum(p.pairwise * step)
    divergence = jnp.where(initial_fits & steps_fit, divergence, jnp.inf)
    return jnp.where(jnp.isnan(q.log_partition), jnp.nan, divergence)


def _log_ratio(log_p, log_q, reached):
    """``log p - log q`` where p has mass, else 0; and whether q has mass there too."""
    compared = reached & (log_q > -jnp.inf)
    ratio = jnp.where(compared, log_p, 0.0) - jnp.where(compared, log_q, 0.0)
    return ratio, jnp.all(compared == reached)


def _mask_states(states, feasible, length):
    if length is not None:
        position = lax.broadcasted_iota(jnp.int32, states.shape, states.ndim - 1)
        feasible = feasible & (position < length)
    return jnp.where(feasible, states, -1)


def _prepare(unary, pairwise, temperature, length):
    """Checks the arguments; returns the potentials over the temperature, and the length."""
    unary, pairwise = jnp.asarray(unary), jnp.asarray(pairwise)
    if unary.ndim != 2 or 0 in unary.shape:
        raise ValueError(f"unary must have shape [N, L] with N, L >= 1, got {unary.shape}")
    num_variables, num_states = unary.shape
    _check_shape("pairwise", pairwise, (num_variables - 1, num_states, num_states))
    if length is not None:
        if jnp.shape(length) or not jnp.issubdtype(jnp.result_type(length), jnp.integer):
            raise ValueError(f"length must be an integer scalar, got {length}")
    if isinstance(length, numbers.Integral) and not 1 <= int(length) <= num_variables:
        raise ValueError(f"length must be in 1..{num_variables}, got {length}")
    dtype = jnp.result_type(unary, pairwise, float)
    unary, pairwise = unary.astype(dtype), pairwise.astype(dtype)
    if length is not None:
        # Whatever stands in the padding, NaN too, must not reach a derivative.
        length = jnp.clip(checks.integers("length", length, ()), 1, num_variables)
        position = jnp.arange(num_variables)
        unary = jnp.where((position < length)[:, None], unary, 0.0)
        pairwise = jnp.where((position[1:] < length)[:, None, None], pairwise, 0.0)
    return numerics.scale(unary, temperature), numerics.scale(pairwise, temperature), length


def _check_count(name, count, least):
    if not isinstance(count, numbers.Integral) or count < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {count}")


def _check_shape(name, array, wanted):
    if jnp.shape(array) != wanted:
        raise ValueError(f"{name} must have shape {wanted}, got {jnp.shape(array)}")
