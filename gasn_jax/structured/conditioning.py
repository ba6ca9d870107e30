r"""The derivative of marginals by conditioning: a way that works over any inference routine.

.. math:: \frac{\partial p(x_i)}{\partial f_r(x_r)}
          = \frac{1}{\epsilon}\, p(x_i) \left( p(x_r \mid x_i) - p(x_r) \right)

One run of marginal inference per variable and state gives ``p(x_r | x_i)`` for all regions r at
once: N L runs in all. The inference is only called, never differentiated.

Reference: London and Schwing, "Generative Adversarial Structured Networks", §3.2.2, Equation 13.
"""

import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gasn_jax import numerics


def covariance(
    marginals_fn: Callable[[Float[Array, "N L"], PyTree], tuple[Float[Array, "N L"], PyTree]],
    unary: Float[Array, "N L"],
    factors: PyTree,
    *,
    temperature: float | Float[Array, ""] = 1.0,
    chunk_size: int = 64,
) -> tuple[Float[Array, "N L N L"], PyTree]:
    """Derivatives of the unary marginals in all potentials, from conditioned inference runs.

    Args:
      marginals_fn: maps ``(unary, factors)``, already divided by the temperature, to the unary
        marginals [N, L] and the factors' marginals, a pytree shaped as ``factors``. Where the
        conditioned model is infeasible it must return zeros.
      unary: scores, [N, L].
      factors: scores of the larger regions, a pytree of arrays.
      temperature: epsilon > 0.
      chunk_size: how many conditioned runs are batched together; bounds the memory of inference,
        not of the result.

    Returns:
      ``(d p(x_i) / d unary, d p(x_i) / d factors)``, of shapes [N, L, N, L] and [N, L, *factor]
      for each leaf. Costs N L runs of ``marginals_fn``.

    Raises:
      ValueError: at trace time, if ``chunk_size`` isn't an integer >= 1, or ``unary`` isn't of rank
        2 with entries.

    Reference: GASN paper, Equations 12 and 13.
    """
    unary = jnp.asarray(unary)
    if unary.ndim != 2 or not unary.size:
        raise ValueError(f"unary must have shape [N, L], N and L >= 1, got {unary.shape}")
    if not isinstance(chunk_size, numbers.Integral) or chunk_size < 1:
        raise ValueError(f"chunk_size must be an integer >= 1, got {chunk_size}")
    num_variables, num_states = unary.shape
    unary, factors = jax.tree.map(lambda x: numerics.scale(x, temperature), (unary, factors))
    temperature = jnp.asarray(temperature, unary.dtype)
    free = marginals_fn(unary, factors)

    def conditioned(index):
        variable, state = index // num_states, index % num_states
        fixed = jnp.where(jnp.arange(num_states) == state, unary[variable], -jnp.inf)
        given = marginals_fn(unary.at[variable].set(fixed), factors)
        weight = free[0][variable, state] / temperature
        rows = jax.tree.map(lambda g, f: weight * (g - f), given, free)
        return [row for row in jax.tree.leaves(rows) if row.size]

    # The loop takes no arrays without entries, as the factors of a single variable are.
    rows = jax.lax.map(conditioned, jnp.arange(unary.size), batch_size=min(chunk_size, unary.size))
    leaves, treedef = jax.tree.flatten(free)
    filled = iter(rows)
    of_all = (next(filled) if leaf.size else jnp.zeros(0, leaf.dtype) for leaf in leaves)
    shapes = ((num_variables, num_states, *leaf.shape) for leaf in leaves)
    return treedef.unflatten([x.reshape(s) for x, s in zip(of_all, shapes, strict=True)])
