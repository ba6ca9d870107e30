"""The adversarial game's objectives, as functions of the discriminator's logits.

A discriminator's output is the probability ``D = sigmoid(logit)`` that its input is real. All
losses are minimised, are means over their batch, and are stable for logits of any size.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equation 1; Goodfellow
et al., "Generative Adversarial Nets" (2014); Mescheder et al., "Which Training Methods for GANs do
actually Converge?" (2018).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree


def discriminator_loss(
    real_logits: Float[Array, "m"], fake_logits: Float[Array, "m"]
) -> Float[Array, ""]:
    """``mean(-log D(x)) + mean(-log(1 - D(G(z))))``, scalar (GASN paper, Equation 1)."""
    return jnp.mean(jax.nn.softplus(-real_logits)) + jnp.mean(jax.nn.softplus(fake_logits))


def saturating_generator_loss(fake_logits: Float[Array, "m"]) -> Float[Array, ""]:
    """``mean(log(1 - D(G(z))))``, scalar: the generator's side of Equation 1 as printed.

    The paper's generator ascends Equation 1; descending this is the same step.
    """
    return -jnp.mean(jax.nn.softplus(fake_logits))


def non_saturating_generator_loss(fake_logits: Float[Array, "m"]) -> Float[Array, ""]:
    """``mean(-log D(G(z)))``, scalar: strong gradients where the discriminator is sure."""
    return jnp.mean(jax.nn.softplus(-fake_logits))


GENERATOR_LOSSES = {
    "saturating": saturating_generator_loss,
    "non_saturating": non_saturating_generator_loss,
}


def l2_penalty(params: PyTree) -> Float[Array, ""]:
    """``1/2 ||w||^2`` over all leaves, scalar (GASN paper, §4; biases included)."""
    return 0.5 * optax.tree.norm(params, squared=True)


def r1_penalty(
    logit_fn: Callable[[Float[Array, "..."]], Float[Array, ""]], real: Float[Array, "m ..."]
) -> Float[Array, ""]:
    """``1/2 mean ||d logit / d x||^2`` at the real examples, scalar.

    Args:
      logit_fn: the discriminator's logit of one example.
      real: examples, [m, ...].

    Reference: Mescheder et al. (2018), Equation 9, without the factor gamma.
    """
    gradient = jax.vmap(jax.grad(logit_fn))(real)
    return 0.5 * jnp.sum(jnp.square(gradient)) / real.shape[0]
