"""Convolutional networks over images."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gasn_jax.nn import mlp


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


class GridPotentials(nn.Module):
    """Scores of a grid with 4 neighbours, painted by convolutions from a noise vector.

    A dense layer makes a small image, which doubles its height and width and is convolved (3x3)
    once for each further layer; a last convolution makes the scores. Factors come in the order of
    :func:`gasn_jax.structured.graph.grid`: rightward, then downward.

    Attributes:
      height, width: H and W, divisible by 2 for every layer but the first.
      num_states: L.
      hidden: channels of the layers.
      activation: a key of ``mlp.ACTIVATIONS``.
      pairwise: False drops the pairwise scores (they become zero), leaving the rest as it is.
      output_scale: factor on the initial kernel of the last layer.
    """

    height: int
    width: int
    num_states: int
    hidden: Sequence[int] = (64, 32)
    activation: str = "leaky_relu"
    pairwise: bool = True
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, z: Float[Array, "Z"]) -> tuple[Float[Array, "N L"], Float[Array, "F L L"]]:
        """Scores ``(unary, pairwise)`` for a noise vector [Z], of N = H W variables."""
        activation, (first, *others) = mlp.ACTIVATIONS[self.activation], self.hidden
        small = self.height >> len(others), self.width >> len(others), first
        x = nn.Dense(small[0] * small[1] * first, kernel_init=mlp.lecun_normal())(z)
        x = activation(x).reshape(small)
        for channels in others:
            x = jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)
            x = activation(nn.Conv(channels, (3, 3))(x))
        shape = (self.num_states, self.num_states)
        num_outputs = self.num_states + 2 * self.num_states**2 * self.pairwise
        kernel_init = mlp.lecun_normal(self.output_scale)
        scores = nn.Conv(num_outputs, (3, 3), kernel_init=kernel_init)(x)
        unary = scores[..., : self.num_states].reshape(-1, self.num_states)
        right = self.height * (self.width - 1)
        if not self.pairwise:
            num_factors = right + (self.height - 1) * self.width
            return unary, jnp.zeros((num_factors, *shape), unary.dtype)
        pairs = scores[..., self.num_states :].reshape(self.height, self.width, 2, *shape)
        parts = (pairs[:, :-1, 0], pairs[:-1, :, 1])
        return unary, jnp.concatenate([part.reshape(-1, *shape) for part in parts])


class ImageCritic(nn.Module):
    """A logit for an image of (soft) one-hot pixels, by convolutions that halve it.

    Attributes:
      height: H, of N = H W variables.
      hidden: channels of the convolutions (3x3).
      activation: a key of ``mlp.ACTIVATIONS``.
    """

    height: int
    hidden: Sequence[int] = (32, 64)
    activation: str = "leaky_relu"

    @nn.compact
    def __call__(self, x: Float[Array, "N L"]) -> Float[Array, ""]:
        """The logit, a scalar."""
        x = x.reshape(self.height, -1, x.shape[-1])
        for channels in self.hidden:
            x = mlp.ACTIVATIONS[self.activation](nn.Conv(channels, (3, 3))(halved(x)))
        return nn.Dense(1)(x.reshape(-1))[0]


class FeatureCritic(nn.Module):
    """A discriminator ``D = C(F(x))`` of images, with a layer of features in (-1, 1) between.

    F halves the image by convolutions with leaky ReLU, as many times as there are channels, and
    ends in a dense layer with tanh; C is an MLP. A 3x3 convolution of a halved image sees 6x6
    pixels at a step of 2, so one of 5x5 with stride 2 is a case of it. (The AAN paper says that
    strides match the filters' five: four such layers would need images of 625 pixels.)

    Where it is normalised, what a feature receives before its tanh is shifted and scaled by a mean
    and a variance in the collection "statistics", [V] each; they are constants of the network, for
    the caller to keep up with the images (:meth:`received`).

    Attributes:
      num_features: V.
      channels: of the convolutions.
      hidden: widths of C's hidden layers.
      normalised: whether there are such statistics.
    """

    num_features: int
    channels: Sequence[int] = (64, 128, 256, 512)
    hidden: Sequence[int] = (500, 500)
    normalised: bool = False

    def setup(self):
        """The layers."""
        self.convolutions = [nn.Conv(channels, (3, 3)) for channels in self.channels]
        self.dense = nn.Dense(self.num_features)
        self.classifier = mlp.MLP((*self.hidden, 1), "leaky_relu")
        if self.normalised:
            self.mean = self.variable("statistics", "mean", jnp.zeros, self.num_features)
            self.variance = self.variable("statistics", "variance", jnp.ones, self.num_features)

    def __call__(self, x: Float[Array, "H W K"]) -> tuple[Float[Array, "V"], Float[Array, ""]]:
        """The features and the logit."""
        received = self.received(x)
        if self.normalised:
            received = (received - self.mean.value) * lax.rsqrt(self.variance.value + 1e-5)
        features = nn.tanh(received)
        return features, self.classifier(features)[0]

    def received(self, x: Float[Array, "H W K"]) -> Float[Array, "V"]:
        """What the features receive, before it is normalised."""
        for convolution in self.convolutions:
            x = mlp.ACTIVATIONS["leaky_relu"](convolution(halved(x)))
        return self.dense(x.reshape(-1))


class ImageClassifier(nn.Module):
    """Features and the logits of classes, by convolutions that halve the image.

    Attributes:
      num_classes: L.
      channels: of the convolutions (3x3, with leaky ReLU).
      num_features: V, width of the dense layer before the logits.
      dropout_rate: of the features in training, in [0, 1).
    """

    num_classes: int
    channels: Sequence[int] = (32, 64)
    num_features: int = 128
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "H W K"], *, deterministic: bool = True
    ) -> tuple[Float[Array, "V"], Float[Array, "L"]]:
        """The features and the logits; unless deterministic, with the rng "dropout"."""
        activation = mlp.ACTIVATIONS["leaky_relu"]
        for channels in self.channels:
            x = activation(nn.Conv(channels, (3, 3))(halved(x)))
        features = activation(nn.Dense(self.num_features)(x.reshape(-1)))
        dropped = nn.Dropout(self.dropout_rate, deterministic=deterministic)(features)
        return features, nn.Dense(self.num_classes)(dropped)


class ImageGenerator(nn.Module):
    """An image with pixels in (-1, 1) from a vector: a small one, doubled by each layer, with ReLU.

    A layer is a 3x3 convolution whose outputs are the 2x2 pixels that a pixel becomes: a
    fractionally-strided convolution, without its checkerboard.

    Attributes:
      height, width, num_channels: H, W and K; H and W are divisible by 2 for every layer.
      hidden: channels of the layers' inputs, the first of them made by a dense layer.
    """

    height: int
    width: int
    num_channels: int = 1
    hidden: Sequence[int] = (512, 256, 128, 64)

    @nn.compact
    def __call__(self, z: Float[Array, "Z"]) -> Float[Array, "H W K"]:
        """The image."""
        small = self.height >> len(self.hidden), self.width >> len(self.hidden), self.hidden[0]
        x = nn.relu(nn.Dense(small[0] * small[1] * small[2])(z)).reshape(small)
        for channels in self.hidden[1:]:
            x = nn.relu(doubled(nn.Conv(4 * channels, (3, 3))(x)))
        return nn.tanh(doubled(nn.Conv(4 * self.num_channels, (3, 3))(x)))


def halved(x: Float[Array, "H W K"]) -> Float[Array, "H/2 W/2 4*K"]:
    """2x2 pixels made one of four times the channels.

    In front of a convolution it does what strides would; on the CPU it is four times faster, for
    their derivatives are convolutions with holes.
    """
    height, width, _ = x.shape
    x = x.reshape(height // 2, 2, width // 2, 2, -1).swapaxes(1, 2)
    return x.reshape(height // 2, width // 2, -1)


def doubled(x: Float[Array, "H W 4*K"]) -> Float[Array, "2*H 2*W K"]:
    """The inverse of :func:`halved`."""
    height, width, channels = x.shape
    x = x.reshape(height, width, 2, 2, channels // 4).swapaxes(1, 2)
    return x.reshape(2 * height, 2 * width, -1)


class Deconvolution(nn.Module):
    """A 4x4 transposed convolution with stride 2: an image of twice the height and width.

    An output pixel sees the 2x2 input pixels next to it, so all four phases are one matrix product
    at the corners between pixels; a convolution with holes is many times slower on the CPU.

    Attributes:
      num_outputs: C.
    """

    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "H W K"]) -> Float[Array, "2*H 2*W C"]:
        """The larger image."""
        height, width, _ = x.shape
        x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
        sides = [(down, right) for down in (0, 1) for right in (0, 1)]
        corners = [x[down : down + height + 1, right : right + width + 1] for down, right in sides]
        phases = nn.Dense(4 * self.num_outputs)(jnp.concatenate(corners, axis=-1))
        parts = jnp.split(phases, 4, axis=-1)
        around = [
            part[down : down + height, right : right + width]
            for part, (down, right) in zip(parts, sides, strict=True)
        ]
        return doubled(jnp.concatenate(around, axis=-1))
