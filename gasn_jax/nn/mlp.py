"""Multilayer perceptrons: the plain network, and two shells that systems need over it."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ACTIVATIONS: dict[str, Callable] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
}


def lecun_normal(scale: float = 1.0) -> nn.initializers.Initializer:
    """Flax's default initializer of a kernel, times ``scale``; an input of width 0 has one too."""
    normal = nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
    return lambda key, shape, *args: (
        normal(key, shape, *args) if scale and shape[0] else jnp.zeros(shape, *args)
    )


class MLP(nn.Module):
    """Dense layers on a vector [D], with an activation between them and none at the end.

    Attributes:
      features: widths of the layers, the output's last.
      activation: a key of ``ACTIVATIONS``.
      output_scale: factor on the initial kernel of the last layer (LeCun normal otherwise).
    """

    features: Sequence[int]
    activation: str = "tanh"
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "D"]) -> Float[Array, "F"]:
        """The output vector [F], F the last of ``features``."""
        for width in self.features[:-1]:
            x = ACTIVATIONS[self.activation](nn.Dense(width, kernel_init=lecun_normal())(x))
        return nn.Dense(self.features[-1], kernel_init=lecun_normal(self.output_scale))(x)


class PairwisePotentials(nn.Module):
    """An MLP whose outputs are the scores of every region of a pairwise model (GASN paper, §4).

    Attributes:
      num_variables: N.
      num_states: L.
      num_factors: F; N - 1 for a chain.
      hidden: widths of the hidden layers.
      activation: a key of ``ACTIVATIONS``.
      pairwise: False drops the pairwise scores (they become zero), leaving the rest as it is.
      output_scale: factor on the initial kernel of the last layer.
    """

    num_variables: int
    num_states: int
    num_factors: int
    hidden: Sequence[int] = (10,)
    activation: str = "tanh"
    pairwise: bool = True
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, z: Float[Array, "Z"]) -> tuple[Float[Array, "N L"], Float[Array, "F L L"]]:
        """Scores ``(unary, pairwise)`` for a noise vector [Z]; Z = 0 gives constants."""
        num_unary, shape = self.num_variables * self.num_states, (self.num_states,) * 2
        num_pairwise = self.num_factors * self.num_states**2 if self.pairwise else 0
        widths = (*self.hidden, num_unary + num_pairwise)
        scores = MLP(widths, self.activation, self.output_scale)(z)
        unary = scores[:num_unary].reshape(self.num_variables, self.num_states)
        if not self.pairwise:
            return unary, jnp.zeros((self.num_factors, *shape), unary.dtype)
        return unary, scores[num_unary:].reshape(self.num_factors, *shape)


class SequenceCritic(nn.Module):
    """A logit for a sequence of (soft) one-hot rows [N, L].

    Sees the sequence as a whole, and, where ``window`` > 1, also every run of ``window``
    neighbours through one network shared by all positions, averaged: what a one-dimensional
    convolution sees, written as a dense layer.

    Attributes:
      hidden: widths of the hidden layers of the logit's MLP.
      activation: a key of ``ACTIVATIONS``.
      window: neighbours seen together; 1 for the plain MLP of the GASN paper, §4.
      window_features: width of the shared network.
    """

    hidden: Sequence[int] = (10,)
    activation: str = "tanh"
    window: int = 1
    window_features: int = 128

    @nn.compact
    def __call__(self, x: Float[Array, "N L"]) -> Float[Array, ""]:
        """The logit, a scalar."""
        inputs = x.reshape(-1)
        if self.window > 1:
            n = x.shape[0]
            padded = jnp.pad(x, ((self.window - 1, self.window - 1), (0, 0)))
            count = n + self.window - 1
            runs = jnp.concatenate(
                [jax.lax.slice_in_dim(padded, i, i + count) for i in range(self.window)], axis=-1
            )
            features = ACTIVATIONS[self.activation](nn.Dense(self.window_features)(runs))
            inputs = jnp.concatenate([inputs, jnp.mean(features, axis=0)])
        return MLP((*self.hidden, 1), self.activation)(inputs)[0]
