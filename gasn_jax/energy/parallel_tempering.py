r"""Parallel tempering: Gibbs chains of a hard model that borrow the mobility of tempered ones.

One replica stands at each :math:`\beta_k` of a tempered path. A step moves all by their kernels,
then lets neighbours change places with probability

.. math:: \min\!\left(1, \frac{p^*_{\beta_k}(x_{k+1})\, p^*_{\beta_{k+1}}(x_k)}
          {p^*_{\beta_k}(x_k)\, p^*_{\beta_{k+1}}(x_{k+1})}\right)

of even pairs at even steps, of odd pairs at odd ones. Both leave the product of all
:math:`p_{\beta_k}` unchanged; the last replica is a chain of the model, and passes between its
modes by way of the others.

Reference: Desjardins, Courville, Bengio, Vincent and Delalleau, "Parallel Tempering for Training of
Restricted Boltzmann Machines" (2010).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from gasn_jax.energy.annealed_importance import Path


class State(NamedTuple):
    """All replicas.

    Attributes:
      x: a configuration at each beta, the last one the model's; a pytree of arrays [K, ...].
      num_steps: made so far.
    """

    x: Any
    num_steps: Int[Array, ""]


class Info(NamedTuple):
    """What a step did.

    Attributes:
      proposed: which neighbours k, k + 1 were to change places, [K-1].
      probability: with which all neighbours would have changed places, proposed or not, [K-1].
      swapped: which of them did, [K-1].
    """

    proposed: Bool[Array, "K-1"]
    probability: Float[Array, "K-1"]
    swapped: Bool[Array, "K-1"]


def init(key: Key[Array, ""], path: Path, betas: Float[Array, "K"]) -> State:
    """Replicas drawn from the start of the path."""
    keys = jax.random.split(key, jnp.asarray(betas).shape[0])
    return State(jax.vmap(path.sample)(keys), jnp.int32(0))


def step(
    key: Key[Array, ""], state: State, path: Path, betas: Float[Array, "K"]
) -> tuple[State, Info]:
    """Moves every replica, then exchanges neighbours; leaves all their distributions unchanged.

    Args:
      key: of this step.
      state: before it.
      path: the tempered path; ``log_partition`` is not used.
      betas: of the replicas, rising to the model's 1, K >= 1. Where neighbours are too far apart
        they rarely change places: look at ``probability``.

    Returns:
      The state after it and :class:`Info`; K moves of the kernel. ``probability`` and the floating
      leaves of x are NaN where betas fall or do not end at 1.

    Raises:
      ValueError: at trace time, where there are not as many betas as replicas.
    """
    num_replicas = {leaf.shape[0] for leaf in jax.tree.leaves(state.x)}
    betas = jnp.asarray(betas, jnp.result_type(betas, jnp.float32))
    if num_replicas != {*betas.shape}:
        raise ValueError(f"betas must have shape [K] of K replicas, got {betas.shape}")
    fits = (betas[-1] == 1) & jnp.all(jnp.diff(betas) >= 0)
    valid = jnp.where(fits, 1.0, jnp.nan)
    move_key, swap_key = jax.random.split(key)
    x = jax.vmap(path.kernel)(jax.random.split(move_key, betas.shape[0]), state.x, betas)
    lower = jnp.arange(betas.shape[0] - 1)
    proposed = lower % 2 == state.num_steps % 2

    def log_density(rows, betas):
        return jax.vmap(path.log_density)(jax.tree.map(lambda leaf: leaf[rows], x), betas)

    here = log_density(lower, betas[:-1]) + log_density(lower + 1, betas[1:])
    there = log_density(lower + 1, betas[:-1]) + log_density(lower, betas[1:])
    probability = valid * jnp.exp(jnp.minimum(there - here, 0))
    swapped = proposed & (jax.random.uniform(swap_key, lower.shape, betas.dtype) < probability)
    up = jnp.append(swapped, False).astype(lower.dtype)
    source = jnp.arange(betas.shape[0]) + up - jnp.roll(up, 1)

    def exchanged(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf[source] * valid.astype(leaf.dtype) if floating else leaf[source]

    x = jax.tree.map(exchanged, x)
    return State(x, state.num_steps + 1), Info(proposed, probability, swapped)
