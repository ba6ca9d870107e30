"""Convolutional networks over images."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class ImageChain(nn.Module):
    """Scores of a chain whose variables each come with an image: a neural chain CRF.

    Every image goes through the same network: 3x3 convolutions with 2x2 max-pooling after each,
    and one hidden layer. The pairwise scores are one [L, L] array for all neighbours.

    Attributes:
      num_states: L.
      channels: of the convolutions; each halves both sides of the image.
      hidden: width of the hidden layer.
      dropout_rate: of the hidden layer's inputs and outputs in training, in [0, 1).
      pairwise: False drops the pairwise scores (they become zero), leaving the rest as it is.
    """

    num_states: int
    channels: Sequence[int] = (32, 64)
    hidden: int = 128
    dropout_rate: float = 0.0
    pairwise: bool = True

    @nn.compact
    def __call__(
        self, images: Float[Array, "N H W"], *, deterministic: bool = True
    ) -> tuple[Float[Array, "N L"], Float[Array, "N-1 L L"]]:
        """Scores ``(unary, pairwise)``; unless deterministic, with the rng "dropout"."""
        x = images[..., None]
        for width in self.channels:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
        x = nn.relu(nn.Dense(self.hidden)(x))
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
        shape = (self.num_states, self.num_states)
        steps = jnp.zeros(shape, x.dtype)
        if self.pairwise:
            steps = self.param("transitions", nn.initializers.zeros, shape)
        unary = nn.Dense(self.num_states)(x)
        return unary, jnp.broadcast_to(steps, (x.shape[0] - 1, *shape))
