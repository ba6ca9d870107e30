r"""The free energy at consistent beliefs, and how far above it the optimum can be.

.. math:: F(b) = \langle \theta, b \rangle + \sum_f c_f H(b_f) + \sum_i c_i H(b_i)

For any messages n, let :math:`g_f = \theta_f - c_f \log b_f + \sum_i n_{fi}` and
:math:`g_i = \theta_i - c_i \log b_i - \sum_f n_{fi}`. At consistent beliefs
:math:`F(b) = \sum_f \langle g_f, b_f \rangle + \sum_i \langle g_i, b_i \rangle`. If F is concave,
no consistent beliefs reach more than :math:`\sum_f \max g_f + \sum_i \max g_i`: the linearisation
of F at b, relaxed with the multipliers n. At a fixed point of the sweep each g is constant, and
both agree.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gasn_jax import numerics
from gasn_jax.structured import sweep as sweeps
from gasn_jax.structured.schedule import Plan


def evaluate(
    plan: Plan, model: sweeps.Model, messages: sweeps.Messages
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """``F(b)`` at consistent beliefs near those of the messages, the bound, and the duality gap.

    The bound is ``inf`` where a possible state has belief 0. The gap is their difference, >= 0;
    ``inf`` where the beliefs can't be made consistent without forbidden states.
    """
    log_unary, log_factors = sweeps.beliefs(plan, model, messages)
    outgoing = jnp.zeros_like(model.unary).at[:, plan.variable].add(messages)
    parts = [_local(model.unary - outgoing, log_unary, jnp.exp(log_unary), model.variables)]
    lost = [jnp.zeros((), model.unary.dtype)]
    for slots, table, number, log_factor in zip(
        plan.slots, model.tables, model.factors, log_factors, strict=True
    ):
        log_variables = [log_unary[:, plan.variable[numbers]] for numbers in slots]
        allowed = table > -jnp.inf
        log_factor, factor, missing = _consistent(log_factor, allowed, log_variables)
        lost.append(jnp.max(missing, initial=0.0))
        scores = sweeps.with_messages(table, messages, slots)
        parts.append(_local(scores, log_factor, factor, number))
    value, gap = (jnp.sum(jnp.stack(terms)) for terms in zip(*parts, strict=True))
    consistent = jnp.max(jnp.stack(lost)) <= 100 * jnp.finfo(value.dtype).eps
    return value, value + gap, jnp.where(consistent, jnp.maximum(gap, 0.0), jnp.inf)


def bound(plan: Plan, model: sweeps.Model, messages: sweeps.Messages) -> Float[Array, ""]:
    """An upper bound of the best score, from any messages: the dual of the linear relaxation."""
    outgoing = jnp.zeros_like(model.unary).at[:, plan.variable].add(messages)
    scores = [model.unary - outgoing]
    for slots, table in zip(plan.slots, model.tables, strict=True):
        scores.append(sweeps.with_messages(table, messages, slots))
    best = [
        jnp.max(jnp.where(s < jnp.inf, s, -jnp.inf), axis=tuple(range(s.ndim - 1))) for s in scores
    ]
    return jnp.sum(jnp.concatenate(best))


def _local(scores, log_belief, belief, number):
    """Mean of ``scores - number log b`` under b, and its maximum less that; each summed."""
    possible = (scores > -jnp.inf) & (scores < jnp.inf)
    known = possible & (log_belief > -jnp.inf)
    slope = jnp.where(known, scores, 0.0) - number.reshape(
        (1,) * (scores.ndim - 1) + (-1,)
    ) * jnp.where(known, log_belief, 0.0)
    axes = tuple(range(scores.ndim - 1))
    mean = jnp.sum(belief * jnp.where(known, slope, 0.0), axis=axes)
    slope = jnp.where(known, slope, jnp.where(possible, jnp.inf, -jnp.inf))
    top = jnp.max(slope, axis=axes)
    return jnp.sum(mean), jnp.sum(jnp.where(top > -jnp.inf, top - mean, 0.0))


def _consistent(log_factor, allowed, log_variables):
    """Logarithms of factors' beliefs [*L, F] of the given marginals, these, what they lack [F].

    Axis by axis, what is above the marginal is scaled down; what is missing then is added as a
    product, but for forbidden states.
    """
    arity = len(log_variables)
    others = [(*range(axis), *range(axis + 1, arity)) for axis in range(arity)]
    for axis, wanted in enumerate(log_variables):
        rows = jnp.moveaxis(log_factor, axis, 0).reshape(wanted.shape[0], -1, wanted.shape[1])
        got = numerics.logsumexp(rows, axis=1)
        known = (got > -jnp.inf) & (wanted > -jnp.inf)
        excess = jnp.minimum(jnp.where(known, wanted, 0.0) - jnp.where(known, got, 0.0), 0.0)
        log_factor = log_factor + jnp.expand_dims(jnp.where(known, excess, -jnp.inf), others[axis])
    factor = jnp.exp(log_factor)
    added = jnp.ones_like(factor)
    for axis, wanted in enumerate(log_variables):
        missing = jnp.maximum(jnp.exp(wanted) - jnp.sum(factor, axis=others[axis]), 0.0)
        mass = jnp.sum(missing, axis=0)
        share = numerics.divide(missing, mass[None, :]) if axis else missing
        added = added * jnp.expand_dims(share, others[axis])
    factor = factor + jnp.where(allowed, added, 0.0)
    lacking = jnp.sum(jnp.where(allowed, 0.0, added), axis=tuple(range(arity)))
    return jnp.maximum(log_factor, numerics.log(factor)), factor, lacking
