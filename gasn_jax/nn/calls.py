"""Linen modules as functions of their variables and of one example.

The modules of the energy systems see one example, without a batch axis, and take the keyword
``deterministic``, True by default (with False, the rng "dropout" is there, too). They hold
parameters alone: nothing that a call changes, such as the statistics of batches.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
from jaxtyping import Array, Float, Key, PyTree


def applied(module: nn.Module, variables: PyTree, *inputs: Array) -> Array:
    """What the module gives for the inputs."""
    return cast(Array, module.apply(cast(Any, variables), *inputs))


def in_training(module: nn.Module, variables: PyTree, key: Key[Array, ""], *inputs: Array) -> Array:
    """The same in training, with the key for its dropout."""
    rngs = {"dropout": key}
    return cast(Array, module.apply(cast(Any, variables), *inputs, deterministic=False, rngs=rngs))


def of_output(
    module: nn.Module, variables: PyTree, x: Array, *, key: Key[Array, ""] | None = None
) -> Callable[[Float[Array, "..."]], Float[Array, "..."]]:
    """A value network v(x, y) as a function of y.

    What depends on x alone is computed once, here, if the module has the methods ``condition``, of
    x, and ``value``, of what that gives and y; its call must then be the one after the other.

    Args:
      module: v.
      variables: its variables.
      x: an input.
      key: of the dropout in training; None is not training.
    """
    options: dict[str, Any] = {}
    if key is not None:
        options = {"deterministic": False, "rngs": {"dropout": key}}
    variables = cast(Any, variables)
    if not hasattr(module, "condition"):
        return lambda y: cast(Array, module.apply(variables, x, y, **options))
    given = module.apply(variables, x, method="condition", **options)
    return lambda y: cast(Array, module.apply(variables, given, y, method="value"))
