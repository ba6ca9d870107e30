"""Networks over sets of labels: one that predicts them, and one that values them."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from gasn_jax.checks import require
from gasn_jax.nn import mlp


class LabelNetwork(nn.Module):
    """The logits of L labels from a vector of features, by dense layers with ReLU.

    Attributes:
      num_labels: L.
      hidden: widths of the hidden layers; none is logistic regression.
      dropout_rate: of what every hidden layer gives in training, in [0, 1).
      initial_logit: of all labels before training; where labels are rare, a negative one.
    """

    num_labels: int
    hidden: Sequence[int] = (150,)
    dropout_rate: float = 0.0
    initial_logit: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "D"], *, deterministic: bool = True) -> Float[Array, "L"]:
        """The logits; unless deterministic, with the rng "dropout"."""
        require(self.num_labels >= 1, "num_labels", ">= 1", self.num_labels)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
            x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
        bias_init = nn.initializers.constant(self.initial_logit)
        return nn.Dense(self.num_labels, bias_init=bias_init)(x)


class LabelValue(nn.Module):
    r"""The value of a (relaxed) set of labels for a vector of features.

    .. math:: v(x, y) = y^\top B f(x) + c^\top \mathrm{softplus}(C y)

    with f the hidden layers: a unary term, and interactions of labels through a few units.

    Attributes:
      num_labels: L.
      hidden: widths of the hidden layers over the features.
      num_interactions: units that labels interact through.
      dropout_rate: of what every hidden layer gives in training, in [0, 1).

    Reference: Belanger and McCallum, "Structured Prediction Energy Networks" (2016), §3; with the
    sign of a value.
    """

    num_labels: int
    hidden: Sequence[int] = (150,)
    num_interactions: int = 16
    dropout_rate: float = 0.0

    def setup(self):
        """The layers."""
        require(self.num_labels >= 1, "num_labels", ">= 1", self.num_labels)
        require(self.num_interactions >= 1, "num_interactions", ">= 1", self.num_interactions)
        self.layers = [nn.Dense(width) for width in self.hidden]
        self.dropout = nn.Dropout(self.dropout_rate)
        self.unary = nn.Dense(self.num_labels)
        self.interactions = nn.Dense(self.num_interactions)
        self.last = nn.Dense(1, kernel_init=mlp.lecun_normal())

    def __call__(
        self, x: Float[Array, "D"], y: Float[Array, "L"], *, deterministic: bool = True
    ) -> Float[Array, ""]:
        """The value, a scalar; unless deterministic, with the rng "dropout"."""
        return self.value(self.condition(x, deterministic=deterministic), y)

    def condition(self, x: Float[Array, "D"], *, deterministic: bool = True) -> Float[Array, "L"]:
        """``B f(x)``, the unary scores."""
        for layer in self.layers:
            x = self.dropout(nn.relu(layer(x)), deterministic=deterministic)
        return self.unary(x)

    def value(self, unary: Float[Array, "L"], y: Float[Array, "L"]) -> Float[Array, ""]:
        """The value, a scalar, for unary scores; ValueError for y of another shape."""
        require(y.shape == unary.shape, "y", f"shape {unary.shape}", y.shape)
        return y @ unary + self.last(nn.softplus(self.interactions(y)))[0]
