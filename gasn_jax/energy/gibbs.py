"""Block Gibbs sampling in a restricted Boltzmann machine: all hidden units, then all visible.

One chain per call; many are ``jax.vmap`` over keys and states, which makes the products with the
weights matrix products.

Reference: Arici and Celikyilmaz, "Associative Adversarial Networks", §4.
"""

from typing import NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float, Key

from gasn_jax.energy import rbm as rbms


class State(NamedTuple):
    """A chain.

    Attributes:
      v: visible units, [V].
    """

    v: Float[Array, "V"]


class Info(NamedTuple):
    """What a step came through.

    Attributes:
      h: the hidden units that ``v`` was drawn from, [H].
      visible_mean: the mean of the new ``v`` given them, [V].
    """

    h: Float[Array, "H"]
    visible_mean: Float[Array, "V"]


def init(key: Key[Array, ""], params: rbms.Params, rbm: rbms.RBM) -> State:
    """A chain whose visible units are independent, as they would be without weights."""
    rbms.check(params, rbm)
    return State(rbms.draw(key, rbm.visible, params["visible_bias"]))


def step(
    key: Key[Array, ""], state: State, params: rbms.Params, rbm: rbms.RBM
) -> tuple[State, Info]:
    """Hidden units given the visible, then visible units given these; leaves p(v) unchanged."""
    hidden_key, visible_key = jax.random.split(key)
    h = rbms.sample_hidden(hidden_key, params, rbm, state.v)
    received = rbms.visible_input(params, h)
    v = rbms.draw(visible_key, rbm.visible, received)
    return State(v), Info(h, rbms.mean(rbm.visible, received))


def run(
    key: Key[Array, ""], state: State, params: rbms.Params, rbm: rbms.RBM, *, num_steps: int
) -> tuple[State, Info]:
    """``num_steps`` >= 1 steps; the state after them, and what the last one came through.

    Raises:
      ValueError: for ``num_steps < 1``.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    keys = jax.random.split(key, num_steps)

    def body(state, key):
        return step(key, state, params, rbm)[0], None

    state, _ = lax.scan(body, state, keys[:-1])
    return step(keys[-1], state, params, rbm)
