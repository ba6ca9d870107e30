"""What structured outputs are made of: binary variables, or variables of several classes.

An output y of binary variables has any shape and entries in [0, 1]; one of classes has a last axis
of probabilities. Networks give logits of the same shape.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gasn_jax import numerics
from gasn_jax.energy import gradient_inference
from gasn_jax.evaluation import overlap
from gasn_jax.learning import energy_losses

Output = Float[Array, "..."]

_KINDS = ("binary", "classes")
_ORACLES = {"f1": overlap.f1, "iou": overlap.iou}
_OF_VARIABLES = "variable_f1"


@dataclasses.dataclass(frozen=True)
class RelaxedOutputs:
    """The kind of an output, and how good one is.

    Attributes:
      kind: ``"binary"`` or ``"classes"``.
      oracle: by which outputs are valued beside the true one: ``"f1"`` or ``"iou"`` of the whole,
        or ``"variable_f1"``, of each variable.
    """

    kind: str = "binary"
    oracle: str = "f1"

    def __post_init__(self):
        """Raises ValueError naming the field that is out of its range."""
        for name, allowed in (("kind", _KINDS), ("oracle", (*_ORACLES, _OF_VARIABLES))):
            if getattr(self, name) not in allowed:
                wanted = ", ".join(allowed)
                raise ValueError(f"{name} must be one of {wanted}, got {getattr(self, name)!r}")

    def probabilities(self, logits: Output) -> Output:
        """The relaxed output of logits."""
        return jax.nn.sigmoid(logits) if self.kind == "binary" else numerics.softmax(logits)

    def project(self, y: Output) -> Output:
        """The nearest relaxed output."""
        projection = gradient_inference.box if self.kind == "binary" else gradient_inference.simplex
        return projection(y)

    def cross_entropy(self, logits: Output, true: Output) -> Float[Array, ""]:
        """The mean over variables of ``-log p(y*)``."""
        if self.kind == "binary":
            return energy_losses.binary_cross_entropy(logits, true)
        return energy_losses.categorical_cross_entropy(logits, true)

    def cost(self, y: Output, true: Output) -> Float[Array, ""]:
        """How many variables are expected to differ from the true ones (the soft Hamming cost)."""
        entries = energy_losses.soft_hamming(y, true)
        return entries if self.kind == "binary" else entries / 2

    def oracle_value(self, y: Output, true: Output) -> Float[Array, "..."]:
        """How good y is, in [0, 1]; 1 for the true output. Of the whole or of each variable."""
        if self.oracle == _OF_VARIABLES:
            return overlap.variable_f1(y, true, classes=self.kind == "classes")
        return _ORACLES[self.oracle](y, true)

    def initial(self, like: Output) -> Output:
        """Where an ascent without a proposal starts: no variable on, or every class as likely."""
        return (
            jnp.zeros_like(like)
            if self.kind == "binary"
            else jnp.full_like(like, 1 / like.shape[-1])
        )
