r"""Inference networks: a network g trained to find what a learned value v finds best.

.. math:: \min_{\theta_v} \max_{\theta_g}\; \big[\Delta(g(x), y^*) + v(x, g(x)) - v(x, y^*)\big]_+

with the soft Hamming cost, one step of each in turn; g ascends what is in the brackets, also where
it is negative, and descends its cross-entropy, without which it settles on outputs that no value
network has seen. The last steps train g alone, without
the cost, towards the outputs of highest value: it then replaces the ascent at prediction.

Without a value network there is the cross-entropy alone: a feed-forward network, the baseline.

Reference: Tu and Gimpel, "Learning Approximate Inference Networks for Structured Prediction"
(2018), §3; Pan et al., "Adversarial Localized Energy Network for Structured Prediction",
Equation 3.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from gasn_jax.checks import require
from gasn_jax.learning import descent, energy_losses
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import calls

Input = Float[Array, "..."]
Output = Float[Array, "..."]


@dataclasses.dataclass(frozen=True)
class InferenceNetworkConfig:
    """What is trained."""

    # The inference network: x -> logits of y; and the value network, (x, y) -> v(x, y), or None; of
    # one example, see `nn.calls`. The first drops units wherever training calls it, the second only
    # where it learns itself.
    network: nn.Module
    value: nn.Module | None = None
    # The kind of y.
    outputs: RelaxedOutputs = RelaxedOutputs()
    # Factor of the cost.
    cost_weight: float = 1.0
    # What g's objective makes of the value, beside its cross-entropy.
    adversarial_weight: float = 1.0
    # Steps of both; all after them train g alone, without the cost.
    num_joint_steps: int = 1000
    # Adam's learning rates, and the factors of decoupled weight decay.
    network_rate: float = 1e-3
    value_rate: float = 1e-3
    network_decay: float = 0.0
    value_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        require(self.num_joint_steps >= 0, "num_joint_steps", ">= 0", self.num_joint_steps)
        for name in ("network_rate", "value_rate"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "> 0 and finite", value)
        for name in ("cost_weight", "adversarial_weight", "network_decay", "value_decay"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, ">= 0 and finite", value)


class InferenceNetworkState(NamedTuple):
    """What the next step needs.

    Attributes:
      network: variables of the inference network.
      value: variables of the value network; empty without one.
      network_optimizer, value_optimizer: their optax states.
      step: steps that were made.
    """

    network: PyTree
    value: PyTree
    network_optimizer: Any
    value_optimizer: Any
    step: Int[Array, ""]


def init(
    config: InferenceNetworkConfig, key: Key[Array, ""], x: Input, y: Output
) -> InferenceNetworkState:
    """A fresh state; x and y are one example, for its shapes."""
    network_key, value_key = jax.random.split(key)
    network = config.network.init(network_key, x)
    value = {} if config.value is None else config.value.init(value_key, x, y)
    network_adam, value_adam = _optimizers(config)
    states = network_adam.init(network), value_adam.init(value)
    return InferenceNetworkState(network, value, *states, jnp.int32(0))


def train_step(
    config: InferenceNetworkConfig,
    state: InferenceNetworkState,
    x: Float[Array, "m ..."],
    y: Float[Array, "m ..."],
    key: Key[Array, ""],
) -> tuple[InferenceNetworkState, dict[str, Float[Array, ""]]]:
    """One step on one minibatch; returns the state after it, and the mean losses of both networks.

    Args:
      config: the system.
      state: before the step.
      x: inputs.
      y: true outputs.
      key: of the dropout.
    """
    network_adam, value_adam = _optimizers(config)
    # the proposal of an example is the same one in both losses
    network_keys, value_keys = jax.random.split(key, (2, len(y)))
    joint = state.step < config.num_joint_steps
    value, value_optimizer, value_loss = state.value, state.value_optimizer, jnp.zeros(())
    if config.value is not None:

        def value_loss_fn(params):
            losses = jax.vmap(lambda *one: _hinge(config, state.network, params, *one))
            return jnp.mean(losses(x, y, network_keys, value_keys))

        value_loss, gradient = jax.value_and_grad(value_loss_fn)(state.value)
        stepped = descent.step(value_adam, gradient, state.value_optimizer, state.value)
        kept = state.value, state.value_optimizer
        value, value_optimizer = jax.tree.map(
            lambda new, old: jnp.where(joint, new, old), stepped, kept
        )

    def network_loss_fn(params):
        def one(x, y, key):
            logits = calls.in_training(config.network, params, key, x)
            loss = config.outputs.cross_entropy(logits, y)
            if config.value is not None:
                proposed = config.outputs.probabilities(logits)
                cost = config.cost_weight * config.outputs.cost(proposed, y)
                offence = calls.applied(config.value, value, x, proposed) + jnp.where(
                    joint, cost, 0.0
                )
                loss = loss - config.adversarial_weight * offence
            return loss

        return jnp.mean(jax.vmap(one)(x, y, network_keys))

    network_loss, gradient = jax.value_and_grad(network_loss_fn)(state.network)
    network, network_optimizer = descent.step(
        network_adam, gradient, state.network_optimizer, state.network
    )
    state = InferenceNetworkState(
        network, value, network_optimizer, value_optimizer, state.step + 1
    )
    return state, {"network_loss": network_loss, "value_loss": value_loss}


def predict(config: InferenceNetworkConfig, state: InferenceNetworkState, x: Input) -> Output:
    """The relaxed output of one input."""
    return config.outputs.probabilities(calls.applied(config.network, state.network, x))


def _hinge(config, network, params, x, y, network_key, value_key):
    """The value network's loss of one example; g(x) is a constant of it."""
    logits = calls.in_training(config.network, network, network_key, x)
    proposed = config.outputs.probabilities(logits)
    cost = config.cost_weight * config.outputs.cost(proposed, y)
    value_fn = calls.of_output(config.value, params, x, key=value_key)
    return energy_losses.margin_rescaled(value_fn(y), value_fn(proposed), cost)


def _optimizers(config):
    """Of the network and of the value."""
    return (
        optax.adamw(config.network_rate, weight_decay=config.network_decay),
        optax.adamw(config.value_rate, weight_decay=config.value_decay),
    )
