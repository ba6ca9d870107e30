"""One step of an optimizer."""

import optax
from jaxtyping import PyTree


def step(
    optimizer: optax.GradientTransformation, gradient: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """The parameters, and the optimizer's state, after a step down the gradient."""
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state
