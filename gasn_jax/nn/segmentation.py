"""Fully convolutional networks over images: one that segments them, and one that values masks."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gasn_jax.nn.convolution import Deconvolution, halved

ENERGIES = ("scores", "overlap", "pixels")
# What an empty set counts as, so that its logarithm is finite: pixels, and a share of one.
_SMALLEST, _LEAST = 1e-2, 1e-6


class _Convolutions(nn.Module):
    channels: Sequence[int] = (64, 128, 128)
    skips: bool = True
    dropout_rate: float = 0.0
    group_size: int = 0
    group_rows: bool = False

    def _network(self, num_outputs):
        sizes = self.channels, self.skips, self.dropout_rate
        return FullyConvolutional(*sizes, self.group_size, self.group_rows, num_outputs)


class FullyConvolutional(_Convolutions):
    """Three 5x5 convolutions, of which two halve the image, and two deconvolutions that double it.

    A 3x3 convolution of a halved image sees 6x6 pixels at a step of 2, so one of 5x5 with stride 2
    is a case of it. Deconvolutions are of 4x4. A last 3x3 convolution makes the outputs.

    Attributes:
      channels: of the three convolutions.
      skips: whether a deconvolution also sees what had its size before (the paper does not say).
      dropout_rate: of the smallest image in training, in [0, 1).
      group_size: so many channels at a time are normalised over the image (group normalisation),
        after each layer but the last; 0 for none, as the paper has it.
      group_rows: whether they are so over each row of pixels by itself.
      num_outputs: channels of the result.

    Reference: Pan et al., "Adversarial Localized Energy Network for Structured Prediction",
    Binary Image Segmentation.
    """

    num_outputs: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], *, deterministic: bool = True
    ) -> Float[Array, "H W C"]:
        """The result, with the rng "dropout" unless deterministic.

        Raises:
          ValueError: at trace time, if H or W is not divisible by 4.
        """
        if x.shape[0] % 4 or x.shape[1] % 4:
            raise ValueError(f"x must have sides divisible by 4, got {x.shape}")
        first, second, third = self.channels
        whole = self._activated(nn.Conv(first, (5, 5))(x))
        half = self._activated(nn.Conv(second, (3, 3))(halved(whole)))
        quarter = self._activated(nn.Conv(third, (3, 3))(halved(half)))
        quarter = nn.Dropout(self.dropout_rate, deterministic=deterministic)(quarter)
        up = self._activated(Deconvolution(second)(quarter))
        up = jnp.concatenate([up, half], axis=-1) if self.skips else up
        up = self._activated(Deconvolution(first)(up))
        up = jnp.concatenate([up, whole], axis=-1) if self.skips else up
        return nn.Conv(self.num_outputs, (3, 3))(up)

    def _activated(self, x):
        if self.group_size:
            # named, for flax would take the rows for a batch
            axes = (-2, -1) if self.group_rows else (-3, -2, -1)
            x = nn.GroupNorm(None, group_size=self.group_size, reduction_axes=axes)(x)
        return nn.relu(x)


class SegmentationNetwork(_Convolutions):
    """The logits of a mask, or of the classes of every pixel, from an image.

    Attributes:
      channels, skips, dropout_rate, group_size, group_rows: see :class:`FullyConvolutional`.
      num_classes: L, or 0 for a mask.
    """

    num_classes: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], *, deterministic: bool = True
    ) -> Float[Array, "..."]:
        """Logits [H, W], or [H, W, L]."""
        logits = self._network(self.num_classes or 1)(x, deterministic=deterministic)
        return logits if self.num_classes else logits[..., 0]


class SegmentationValue(_Convolutions):
    r"""The value of a (relaxed) mask, or of classes, for an image, by a matrix of scores S(x, y).

    It is their mean; or how well y overlaps the mask r(x, y) that they are the logits of, as the
    log-odds of the intersection over union: its sigmoid is that of y and r, relaxed by products,

    .. math:: v = \log \sum_i y_i r_i - \log \sum_i (y_i + r_i - 2 y_i r_i)

    Or there is a value for every pixel, the log-odds of how likely its label is right by r,

    .. math:: v_i = \log \sum_l y_{il} r_{il} - \log \Big(1 - \sum_l y_{il} r_{il}\Big)

    over its L classes (of a mask, two), so that a value network learns where an output errs.

    Attributes:
      channels, skips, dropout_rate, group_size, group_rows: see :class:`FullyConvolutional`.
      energy: ``"scores"``, ``"overlap"`` or ``"pixels"``.
    """

    energy: str = "scores"

    @nn.compact
    def scores(
        self, x: Float[Array, "H W K"], y: Float[Array, "..."], *, deterministic: bool = True
    ) -> Float[Array, "H W C"]:
        """The matrix S(x, y): C is 1 for a mask and where scores are averaged, else L."""
        y = (y if y.ndim == x.ndim else y[..., None]).astype(x.dtype)
        num_scores = 1 if self.energy == "scores" else y.shape[-1]
        x_and_y = jnp.concatenate([x, 2 * y - 1], axis=-1)
        return self._network(num_scores)(x_and_y, deterministic=deterministic)

    def __call__(
        self, x: Float[Array, "H W K"], y: Float[Array, "..."], *, deterministic: bool = True
    ) -> Float[Array, "..."]:
        """The value of y [H, W] or [H, W, L]: a scalar, or by pixels [H, W].

        Raises:
          ValueError: at trace time, for an unknown energy.
        """
        if self.energy not in ENERGIES:
            raise ValueError(f"energy must be one of {', '.join(ENERGIES)}, got {self.energy!r}")
        scores = self.scores(x, y, deterministic=deterministic)
        if self.energy == "scores":
            return jnp.mean(scores)
        y = y.astype(x.dtype).reshape(scores.shape)
        is_mask = scores.shape[-1] == 1
        mask = nn.sigmoid(scores) if is_mask else nn.softmax(scores)
        if self.energy == "pixels":
            right = jnp.sum(y * mask, axis=-1)
            if is_mask:
                right += jnp.sum((1 - y) * (1 - mask), axis=-1)
            return jnp.log(right + _LEAST) - jnp.log(1 - right + _LEAST)
        both, one = jnp.sum(y * mask), jnp.sum(y + mask - 2 * y * mask)
        return jnp.log(both + _SMALLEST) - jnp.log(one + _SMALLEST)
