"""Linen modules as functions of their variables and of one example."""

from typing import Any, cast

import flax.linen as nn
from jaxtyping import Array, Key, PyTree


def applied(module: nn.Module, variables: PyTree, *inputs: Array) -> Array:
    """What the module gives for the inputs."""
    return cast(Array, module.apply(cast(Any, variables), *inputs))


def in_training(module: nn.Module, variables: PyTree, key: Key[Array, ""], *inputs: Array) -> Array:
    """The same in training, with the key for its dropout."""
    rngs = {"dropout": key}
    return cast(Array, module.apply(cast(Any, variables), *inputs, deterministic=False, rngs=rngs))
