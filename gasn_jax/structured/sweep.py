r"""One sweep of messages, and the beliefs that messages stand for.

The formulas are those of :mod:`gasn_jax.structured.belief_propagation`. Arrays have states first
and slots, variables or factors last (messages [L, M], unary [L, N], tables [L, L, F]), so that
arithmetic runs along the graph, however few the states.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gasn_jax import numerics
from gasn_jax.structured.schedule import Plan

Messages = Float[Array, "L M"]


class Model(NamedTuple):
    """Potentials and counting numbers, states first.

    Attributes:
      unary: over the temperature, [L, N].
      tables: over the temperature, for each arity [*L, F].
      variables: c_i, [N].
      factors: c_f > 0, for each arity [F].
    """

    unary: Float[Array, "L N"]
    tables: tuple[Float[Array, "*L F"], ...]
    variables: Float[Array, "N"]
    factors: tuple[Float[Array, "F"], ...]


def initial(plan: Plan, model: Model) -> Messages:
    """Messages of variables that have heard nothing yet."""
    share = _shares(plan, model)[0]
    return numerics.log_softmax(share[None, :] * model.unary[:, plan.variable], axis=0)


def make(
    plan: Plan, model: Model, *, damping: float = 0.0, hard: bool = False
) -> Callable[[Messages], Messages]:
    """The function that sends each message once, block after block.

    Args:
      plan: the schedule.
      model: potentials and counting numbers; the latter are constants to a derivative.
      damping: share of the old message in the new one, in [0, 1).
      hard: maxima instead of sums, the limit of temperature 0.
    """
    # A rule of differentiation is given zeros for the numbers' tangents, and 0 * -inf is NaN.
    numbers = lax.stop_gradient((model.variables, model.factors))
    model = model._replace(variables=numbers[0], factors=numbers[1])
    send, (share, _) = _sender(plan, model, hard), _shares(plan, model)

    def sweep(messages):
        for block in plan.blocks:
            sent = jnp.concatenate([send(group, messages) for group in block.groups], axis=1)
            heard = _gather(block, model.unary, sent)[:, block.owner]
            part = slice(block.start, block.stop)
            possible = heard != -jnp.inf  # a NaN is let through
            new = share[None, part] * jnp.where(possible, heard, 0.0)
            new = new - jnp.where(possible, sent, 0.0)
            new = numerics.log_softmax(jnp.where(possible, new, -jnp.inf), axis=0)
            if damping:
                old = messages[:, part]
                mean = (1 - damping) * jnp.where(possible, new, 0.0) + damping * old
                new = jnp.where(possible, mean, -jnp.inf)
            messages = messages.at[:, part].set(new)
        return messages

    return sweep


def variable_scores(
    plan: Plan, model: Model, messages: Messages, *, hard: bool = False
) -> Float[Array, "L N"]:
    """What each variable has of its own and is sent by its factors; max-marginals if hard."""
    send = _sender(plan, model, hard)
    sent = [send(group, messages) for group in plan.whole.groups]
    sent = jnp.concatenate([*sent, messages[:, :0]], axis=1)
    return _gather(plan.whole, model.unary, sent)[:, plan.order]


def beliefs(
    plan: Plan, model: Model, messages: Messages
) -> tuple[Float[Array, "L N"], tuple[Float[Array, "*L F"], ...]]:
    """Logarithms of the beliefs of variables and factors, each normalised."""
    scores = variable_scores(plan, model, messages) / _shares(plan, model)[1][None, :]
    log_factors = []
    for slots, table, number in zip(plan.slots, model.tables, model.factors, strict=True):
        joint = with_messages(table, messages, slots) / _last(number, table.ndim)
        flat = numerics.log_softmax(joint.reshape(-1, joint.shape[-1]), axis=0)
        log_factors.append(flat.reshape(joint.shape))
    return numerics.log_softmax(scores, axis=0), tuple(log_factors)


def with_messages(
    table: Float[Array, "*L F"], messages: Messages, slots: Int[np.ndarray, "arity F"]
) -> Float[Array, "*L F"]:
    """Scores of factors and the messages of all their variables."""
    for axis, numbers in enumerate(slots):
        table = table + _along(messages[:, numbers], axis, len(slots))
    return table


def _shares(plan, model):
    """c_f over the sum below, of each slot [M]; and c_i with the c_f of its factors, [N]."""
    own = jnp.zeros(plan.whole.stop, model.unary.dtype)
    for slots, numbers in zip(plan.slots, model.factors, strict=True):
        own = own.at[slots].set(numbers[None, :])
    total = model.variables.at[plan.variable].add(own)
    return own / total[plan.variable], total


def _sender(plan, model, hard):
    """The function of a group and messages that is m [L, G]: factors to variables."""
    prepared = []
    for group in plan.whole.groups:
        table, number = model.tables[group.arity], model.factors[group.arity]
        if len(group.factors) < len(number):
            table, number = table[..., group.factors], number[group.factors]
        number = jnp.ones_like(number) if hard else number
        table = jnp.moveaxis(table, group.place, 0) / _last(number, table.ndim)
        prepared.append((table, number[None, :]))

    def send(group, messages):
        scores, number = prepared[group.number]
        rank = scores.ndim - 1
        for axis, other in enumerate(group.others):
            scores = scores + _along(messages[:, other] / number, axis + 1, rank)
        scores = scores.reshape(scores.shape[0], -1, scores.shape[-1])
        if hard:
            return jnp.max(scores, axis=1)
        return number * numerics.logsumexp(scores, axis=1)

    return send


def _gather(block, unary, sent):
    """The block's variables' own potentials and all that was sent to them, [L, V]."""
    sums = [jnp.sum(sent[:, slots], axis=1) for slots in block.incident]
    return unary[:, block.variables] + jnp.concatenate(sums, axis=1)


def _along(message, axis, rank):
    """[L, F] with the states along ``axis`` of ``rank`` axes, and F last."""
    states, size = message.shape
    return message.reshape((1,) * axis + (states,) + (1,) * (rank - 1 - axis) + (size,))


def _last(number, rank):
    """[F] as [1, .., 1, F] of ``rank`` axes."""
    return number.reshape((1,) * (rank - 1) + (-1,))
