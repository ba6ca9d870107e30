r"""Adversarial localized energy networks: a value network and the network that starts its ascent.

An inference network proposes y' = g(x); gradient ascent on the value v(x, y), from y', refines it
to y''. The value network learns to tell how good each is, by least squares to an oracle h (how well
an output overlaps the true one):

.. math:: L(\theta_v) = \tfrac12 (v(x, y^*) - a)^2
          + \tfrac{\lambda_v}{2} (v(x, y') - h(y', y^*))^2
          + \tfrac{\beta_v}{2} (v(x, y'') - h(y'', y^*))^2

and the inference network to be valued highly, beside a surrogate of its own:

.. math:: L(\theta_g) = L_{task}(\theta_g) + \tfrac{\lambda_g}{2} (v(x, g(x)) - d)^2

A step trains both once on a minibatch (Algorithm 1). The ablations are fields: ``refined_weight``
0 is the paper's AEN, ``surrogate_weight`` 0 its "no L_task", and ``network_weight``,
``refined_weight`` and ``adversarial_weight`` 0 leave its "InfNet baseline".

The value and the oracle may be those of each variable, which is how the paper's matrices of scores
are read here: the losses are then means over the variables, and the ascent is one on the mean.

Reference: Pan, Liu, Yan, Yang and Yang, "Adversarial Localized Energy Network for Structured
Prediction", Equations 4 to 12 and Algorithm 1.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from gasn_jax.checks import require
from gasn_jax.energy import gradient_inference
from gasn_jax.learning import descent, energy_losses
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import calls

Params = PyTree
Input = Float[Array, "..."]
Output = Float[Array, "..."]


@dataclasses.dataclass(frozen=True)
class ALENConfig:
    """What an ALEN is made of."""

    # The inference network: x -> logits of y; and the value network: (x, y) -> a scalar, or one of
    # each variable where the oracle is of each; of one example, see `nn.calls`. In training the
    # first always drops units, the second only in Equation 6: not in the ascent, and not in
    # Equation 11.
    network: nn.Module
    value: nn.Module
    # The kind of y, and the oracle.
    outputs: RelaxedOutputs = RelaxedOutputs()
    # The ascent in training: Equation 12 where gradients are normalised, else Equation 4.
    ascent: gradient_inference.Ascent = gradient_inference.Ascent(normalize=True)
    # Whether v is the sigmoid of what the value network gives, as the oracle is in [0, 1], or that
    # itself.
    bounded: bool = True
    # Equation 6: the true output's target a, and the weights of y' and y''.
    true_target: float = 1.0
    network_weight: float = 1.0
    refined_weight: float = 1.0
    # Equation 11: the target d, and the weights of the adversarial and of the surrogate loss.
    network_target: float = 1.0
    adversarial_weight: float = 1.0
    surrogate_weight: float = 1.0
    # Adam's learning rates (b1 = 0.5), and the factors of decoupled weight decay.
    network_rate: float = 1e-3
    value_rate: float = 1e-3
    network_decay: float = 0.0
    value_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        for name in ("network_rate", "value_rate"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "> 0 and finite", value)
        for name in ("true_target", "network_target"):
            require(math.isfinite(getattr(self, name)), name, "finite", getattr(self, name))
        weights = ("network_weight", "refined_weight", "adversarial_weight", "surrogate_weight")
        for name in (*weights, "network_decay", "value_decay"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, ">= 0 and finite", value)


class ALENState(NamedTuple):
    """What the next step needs.

    Attributes:
      network: variables of the inference network.
      value: variables of the value network.
      network_optimizer, value_optimizer: their optax states.
    """

    network: Params
    value: Params
    network_optimizer: Any
    value_optimizer: Any


class Prediction(NamedTuple):
    """An output and how it was found.

    Attributes:
      network: the inference network's y'.
      refined: the ascent from it; ``refined.y`` is the prediction.
    """

    network: Output
    refined: gradient_inference.Result


def init(config: ALENConfig, key: Key[Array, ""], x: Input, y: Output) -> ALENState:
    """A fresh state; x and y are one example, for its shapes."""
    network_key, value_key = jax.random.split(key)
    network = config.network.init(network_key, x)
    value = config.value.init(value_key, x, y)
    network_adam, value_adam = _optimizers(config)
    return ALENState(network, value, network_adam.init(network), value_adam.init(value))


def train_step(
    config: ALENConfig,
    state: ALENState,
    x: Float[Array, "m ..."],
    y: Float[Array, "m ..."],
    key: Key[Array, ""],
) -> tuple[ALENState, dict[str, Float[Array, ""]]]:
    """One step of both networks on one minibatch (Algorithm 1).

    Args:
      config: the system.
      state: before the step.
      x: inputs.
      y: true outputs.
      key: of the dropout.

    Returns:
      The state after the step, and metrics, means over the minibatch: the two losses, the values of
      the true, proposed and refined outputs, and the oracle's of the latter two.
    """
    network_adam, value_adam = _optimizers(config)
    # the proposal of an example is the same one in both losses
    network_keys, value_keys = jax.random.split(key, (2, y.shape[0]))

    def found(x, key):
        logits = calls.in_training(config.network, state.network, key, x)
        proposed = config.outputs.probabilities(logits)
        return proposed, _ascend(config, state.value, x, proposed).y

    proposed, refined = jax.vmap(found)(x, network_keys)

    def value_loss(params):
        losses = jax.vmap(functools.partial(_value_loss, config, params))
        return jax.tree.map(jnp.mean, losses(x, y, proposed, refined, value_keys))

    gradient, metrics = jax.grad(value_loss, has_aux=True)(state.value)
    value, value_optimizer = descent.step(value_adam, gradient, state.value_optimizer, state.value)

    def network_loss(params):
        losses = jax.vmap(functools.partial(_network_loss, config, params, value))
        return jnp.mean(losses(x, y, network_keys))

    loss, gradient = jax.value_and_grad(network_loss)(state.network)
    network, network_optimizer = descent.step(
        network_adam, gradient, state.network_optimizer, state.network
    )
    state = ALENState(network, value, network_optimizer, value_optimizer)
    return state, metrics | {"network_loss": loss}


def _value_loss(config, params, x, y, proposed, refined, key):
    """Equation 6 of one example, and metrics."""
    value_fn = _value_fn(config, params, x, key)
    values = [value_fn(z) for z in (y, proposed, refined)]
    oracle = [config.outputs.oracle_value(z, y) for z in (proposed, refined)]
    loss = energy_losses.least_squares(
        *values,  # of the true, the proposed and the refined output
        network_target=oracle[0],
        refined_target=oracle[1],
        true_target=config.true_target,
        network_weight=config.network_weight,
        refined_weight=config.refined_weight,
    )
    names = ("true_value", "network_value", "refined_value", "network_oracle", "refined_oracle")
    return loss, dict(zip(names, (*values, *oracle), strict=True)) | {"value_loss": loss}


def _network_loss(config, params, value, x, y, key):
    """Equation 11 of one example; ``value`` are the value network's variables."""
    logits = calls.in_training(config.network, params, key, x)
    given = _value_fn(config, value, x)(config.outputs.probabilities(logits))
    valued = energy_losses.least_squares_generator(given, target=config.network_target)
    surrogate = config.outputs.cross_entropy(logits, y)
    return config.surrogate_weight * surrogate + config.adversarial_weight * valued


def predict(config: ALENConfig, state: ALENState, x: Input, *, num_steps: int) -> Prediction:
    """The output of one input: proposed, then refined by ``num_steps`` >= 0 steps (Equation 12)."""
    proposed = config.outputs.probabilities(calls.applied(config.network, state.network, x))
    return Prediction(proposed, _ascend(config, state.value, x, proposed, num_steps))


def _value_fn(config, params, x, key=None):
    logit_fn = calls.of_output(config.value, params, x, key=key)
    return (lambda y: jax.nn.sigmoid(logit_fn(y))) if config.bounded else logit_fn


def _ascend(config, params, x, start, num_steps=None):
    value_fn, projection = _value_fn(config, params, x), config.outputs.project

    def mean_value_fn(y):
        return jnp.mean(value_fn(y))

    return config.ascent(mean_value_fn, start, projection=projection, num_steps=num_steps)


def _optimizers(config):
    """Of the network and of the value."""
    return (
        optax.adamw(config.network_rate, b1=0.5, weight_decay=config.network_decay),
        optax.adamw(config.value_rate, b1=0.5, weight_decay=config.value_decay),
    )
