"""Fully convolutional networks over images: one that segments them, and one that values masks."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gasn_jax.nn.convolution import Deconvolution, halved


class FullyConvolutional(nn.Module):
    """Three 5x5 convolutions, of which two halve the image, and two deconvolutions that double it.

    A 3x3 convolution of a halved image sees 6x6 pixels at a step of 2, so one of 5x5 with stride 2
    is a case of it. Deconvolutions are of 4x4.

    Attributes:
      num_outputs: channels of the result.
      channels: of the three convolutions.
      skips: whether a deconvolution also sees what had its size before (the paper does not say).
      dropout_rate: of the smallest image in training, in [0, 1).

    Reference: Pan et al., "Adversarial Localized Energy Network for Structured Prediction",
    Binary Image Segmentation.
    """

    num_outputs: int
    channels: Sequence[int] = (64, 128, 128)
    skips: bool = True
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], *, deterministic: bool = True
    ) -> Float[Array, "H W C"]:
        """The result; H and W are divisible by 4. With the rng "dropout" unless deterministic."""
        first, second, third = self.channels
        whole = nn.relu(nn.Conv(first, (5, 5))(x))
        half = nn.relu(nn.Conv(second, (3, 3))(halved(whole)))
        quarter = nn.relu(nn.Conv(third, (3, 3))(halved(half)))
        quarter = nn.Dropout(self.dropout_rate, deterministic=deterministic)(quarter)
        up = nn.relu(Deconvolution(second)(quarter))
        up = jnp.concatenate([up, half], axis=-1) if self.skips else up
        up = nn.relu(Deconvolution(first)(up))
        up = jnp.concatenate([up, whole], axis=-1) if self.skips else up
        return nn.Conv(self.num_outputs, (3, 3))(up)


class SegmentationNetwork(nn.Module):
    """The logits of a mask, or of the classes of every pixel, from an image.

    Attributes:
      num_classes: L, or 0 for a mask.
      channels, skips, dropout_rate: see :class:`FullyConvolutional`.
    """

    num_classes: int = 0
    channels: Sequence[int] = (64, 128, 128)
    skips: bool = True
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], *, deterministic: bool = True
    ) -> Float[Array, "..."]:
        """Logits [H, W], or [H, W, L]."""
        network = FullyConvolutional(
            self.num_classes or 1, self.channels, self.skips, self.dropout_rate
        )
        logits = network(x, deterministic=deterministic)
        return logits if self.num_classes else logits[..., 0]


class SegmentationValue(nn.Module):
    """The value of a (relaxed) mask, or of classes, for an image: the mean of a matrix of scores.

    Attributes:
      channels, skips, dropout_rate: see :class:`FullyConvolutional`.
    """

    channels: Sequence[int] = (64, 128, 128)
    skips: bool = True
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], y: Float[Array, "..."], *, deterministic: bool = True
    ) -> Float[Array, ""]:
        """The value, a scalar, of y [H, W] or [H, W, L]."""
        y = y if y.ndim == x.ndim else y[..., None]
        network = FullyConvolutional(1, self.channels, self.skips, self.dropout_rate)
        return jnp.mean(
            network(jnp.concatenate([x, 2 * y - 1], axis=-1), deterministic=deterministic)
        )
