"""The one rule for masks and minus infinity.

A forbidden state or edge has the potential ``-inf``. It must stay exactly impossible: probability
0, gradient 0, and never a NaN, in values and in derivatives of any order. JAX's own ``logsumexp``,
``softmax``, ``log`` and division break that rule where everything is forbidden (``-inf - -inf``,
``0 / 0``, ``0 * inf`` in a derivative). The functions here keep it. They are written so that
plain automatic differentiation of them is right: the unsafe operation never sees the unsafe value.
"""

import numbers

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_UNROLL = 32


def finite_max(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Maximum over ``axis``, with 0 where all entries are ``-inf``; not differentiated.

    This is what may be subtracted before ``exp``: ``x - finite_max(x)`` is never NaN.
    """
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis))
    return jnp.where(top == -jnp.inf, jnp.zeros_like(top), top)


def log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Natural logarithm with ``log(0) = -inf`` and derivative 0 there."""
    positive = ~(x <= 0)  # a NaN is let through
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), -jnp.inf)


def divide(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """``x / y``, with value and derivatives 0 where ``y == 0``: given the impossible, 0."""
    possible = y != 0
    return jnp.where(possible, x / jnp.where(possible, y, 1.0), 0.0)


def multiply_log(p: Float[Array, "..."], log_q: Float[Array, "..."]) -> Float[Array, "..."]:
    """``p * log_q`` with ``0 * (-inf) = 0``, the convention of entropies; derivatives too."""
    possible = p != 0
    return jnp.where(possible, p * jnp.where(possible, log_q, 0.0), 0.0)


def logsumexp(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """``log sum exp(x)`` over ``axis``; ``-inf`` with gradient 0 where all of ``x`` is ``-inf``."""
    top = finite_max(x, axis)
    return log(jnp.sum(jnp.exp(x - jnp.expand_dims(top, axis)), axis=axis)) + top


def softmax(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """``exp(x) / sum exp(x)`` over ``axis``; zeros where all of ``x`` is ``-inf``."""
    weight = jnp.exp(x - jnp.expand_dims(finite_max(x, axis), axis))
    return divide(weight, jnp.sum(weight, axis=axis, keepdims=True))


def log_softmax(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """``log softmax(x)``, exact at any size of ``x``; ``-inf`` where all of ``x`` is ``-inf``."""
    centred = x - jnp.expand_dims(finite_max(x, axis), axis)
    total = jnp.sum(jnp.exp(centred), axis=axis, keepdims=True)
    return centred - jnp.log(jnp.where(total > 0, total, 1.0))


def inverse_cdf(weights: Float[Array, "L n"], uniform: Float[Array, "n"]) -> Int[Array, "n"]:
    """Per column of [L, n], the first state with a cumulative weight over ``uniform`` of the total.

    A state of weight 0 is never it: its cumulative weight is that of the state before, bit for
    bit, since both loops add the same numbers in the same order. Unrolled, they are one kernel.
    """
    # Behind the barrier the weights are computed once, and not again in each of the two loops.
    weights = jax.lax.optimization_barrier(weights.astype(uniform.dtype))
    num_states, none = weights.shape[0], jnp.zeros_like(weights[0])
    unroll = min(num_states, _UNROLL)
    total = jax.lax.fori_loop(0, num_states, lambda k, c: c + weights[k], none, unroll=unroll)
    threshold = uniform * total

    def count(k, carry):
        cumulative, state = carry
        cumulative = cumulative + weights[k]
        return cumulative, state + (cumulative <= threshold)

    start = (none, jnp.zeros_like(none, jnp.int32))
    return jax.lax.fori_loop(0, num_states - 1, count, start, unroll=unroll)[1]


def scale(
    potentials: Float[Array, "..."], temperature: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """``potentials / temperature``, where ``-inf`` stays ``-inf`` with derivative 0 in both.

    What is out of the dtype's range after the division is ``-inf``, that is forbidden, or ``+inf``.

    Raises:
      ValueError: if ``temperature`` is no scalar, or a Python number that is not > 0, or not
        representable (normal) in the potentials' dtype; an array's value is not checked.
    """
    if jnp.shape(temperature):
        raise ValueError(f"temperature must be a scalar, got shape {jnp.shape(temperature)}")
    potentials = jnp.asarray(potentials, jnp.result_type(potentials, float))
    dtype = potentials.dtype
    if isinstance(temperature, numbers.Real):
        if not float(temperature) >= float(jnp.finfo(dtype).tiny):
            raise ValueError(f"temperature must be > 0, got {temperature} in {dtype}")
        if temperature == 1:
            return potentials
    allowed = potentials != -jnp.inf
    scaled = jnp.where(allowed, potentials, 0.0) / jnp.asarray(temperature, dtype)
    return jnp.where(allowed, scaled, -jnp.inf)
