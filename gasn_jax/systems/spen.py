r"""Structured prediction energy networks: an ascent on a learned value, by two ways of learning.

By a structured hinge, of the output that the ascent finds most offending,

.. math:: L = \max_y \big[\Delta(y, y^*) + v(x, y)\big] - v(x, y^*)

with the soft Hamming cost; or end to end, through the unrolled steps of an ascent whose every
instant is to be likely given the true output,

.. math:: L = \frac1T \sum_{t=1}^T \mathrm{CE}(z^{(t)}, y^*), \qquad
          z^{(t+1)} = z^{(t)} + \eta\, \partial_z v(x, p(z^{(t)}))

over logits z of the relaxed output p(z). The value has a unary part, which may first be trained by
itself: `num_unary_steps` steps of cross-entropy, v's gradient at the initial output as logits.

Reference: Belanger and McCallum, "Structured Prediction Energy Networks" (2016), §3 and 4;
Belanger, Yang and McCallum, "End-to-End Learning for Structured Prediction Energy Networks" (2017).
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
from gasn_jax.energy import gradient_inference
from gasn_jax.learning import descent, energy_losses
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import calls

Input = Float[Array, "..."]
Output = Float[Array, "..."]

LOSSES = ("structured_hinge", "end_to_end")


@dataclasses.dataclass(frozen=True)
class SPENConfig:
    """What a SPEN is made of."""

    # The value network: (x, y) -> v(x, y), minus the energy; of one example, see `nn.calls`. In
    # training it drops the same units throughout an ascent and in the loss on its end.
    value: nn.Module
    # The kind of y.
    outputs: RelaxedOutputs = RelaxedOutputs()
    # structured_hinge or end_to_end.
    loss: str = "structured_hinge"
    # The ascents, in training and at prediction; over logits where the loss is end to end.
    ascent: gradient_inference.Ascent = gradient_inference.Ascent(step_size=0.1)
    # Factor of the cost, which is what the hinge's margin is measured in.
    cost_weight: float = 1.0
    # First steps, of cross-entropy, whose logits are v's gradient at the initial output.
    num_unary_steps: int = 0
    # Adam's learning rate, and the factor of decoupled weight decay.
    value_rate: float = 1e-3
    value_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        require(self.loss in LOSSES, "loss", f"one of {', '.join(LOSSES)}", self.loss)
        require(self.ascent.num_steps >= 1, "ascent.num_steps", ">= 1", self.ascent.num_steps)
        require(self.num_unary_steps >= 0, "num_unary_steps", ">= 0", self.num_unary_steps)
        require(0 < self.value_rate < math.inf, "value_rate", "> 0 and finite", self.value_rate)
        for name in ("cost_weight", "value_decay"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, ">= 0 and finite", value)


class SPENState(NamedTuple):
    """What the next step needs.

    Attributes:
      value: variables of the value network.
      optimizer: its optax state.
      step: steps that were made.
    """

    value: PyTree
    optimizer: Any
    step: Int[Array, ""]


def init(config: SPENConfig, key: Key[Array, ""], x: Input, y: Output) -> SPENState:
    """A fresh state; x and y are one example, for its shapes."""
    value = config.value.init(key, x, y)
    return SPENState(value, _optimizer(config).init(value), jnp.int32(0))


def train_step(
    config: SPENConfig,
    state: SPENState,
    x: Float[Array, "m ..."],
    y: Float[Array, "m ..."],
    key: Key[Array, ""],
) -> tuple[SPENState, dict[str, Float[Array, ""]]]:
    """One step on one minibatch; returns the state after it, and the mean loss.

    Args:
      config: the system.
      state: before the step.
      x: inputs.
      y: true outputs.
      key: of the dropout.
    """
    example_loss = _hinge if config.loss == "structured_hinge" else _end_to_end

    def loss_fn(params, example_loss):
        def one(x, y, key):
            value_fn, constant_fn = (
                calls.of_output(config.value, variables, x, key=key)
                for variables in (params, jax.lax.stop_gradient(params))
            )
            return example_loss(config, value_fn, constant_fn, y)

        return jnp.mean(jax.vmap(one)(x, y, jax.random.split(key, len(y))))

    def learn(example_loss):
        return lambda: jax.value_and_grad(lambda params: loss_fn(params, example_loss))(state.value)

    if config.num_unary_steps:
        first = state.step < config.num_unary_steps
        loss, gradient = jax.lax.cond(first, learn(_unary), learn(example_loss))
    else:
        loss, gradient = learn(example_loss)()
    stepped = descent.step(_optimizer(config), gradient, state.optimizer, state.value)
    return SPENState(*stepped, state.step + 1), {"loss": loss}


def predict(
    config: SPENConfig, state: SPENState, x: Input, like: Output, *, num_steps: int
) -> gradient_inference.Result:
    """The ascent of one input; its points are relaxed outputs, shaped as ``like``."""
    value_fn = calls.of_output(config.value, state.value, x)
    if config.loss == "end_to_end":
        found = _ascend_logits(config, value_fn, like, num_steps)
        probabilities = config.outputs.probabilities
        return found._replace(
            y=probabilities(found.y), trajectory=jax.vmap(probabilities)(found.trajectory)
        )
    start = config.outputs.initial(like)
    return config.ascent(value_fn, start, projection=config.outputs.project, num_steps=num_steps)


def _hinge(config, value_fn, constant_fn, y):
    """The offending output is found with constant parameters; its value is not."""

    def offence(z):
        return constant_fn(z) + config.cost_weight * config.outputs.cost(z, y)

    start = config.outputs.initial(y)
    offending = config.ascent(offence, start, projection=config.outputs.project).y
    cost = config.cost_weight * config.outputs.cost(offending, y)
    return energy_losses.margin_rescaled(value_fn(y), value_fn(offending), cost)


def _end_to_end(config, value_fn, constant_fn, y):
    del constant_fn
    found = _ascend_logits(config, value_fn, y, config.ascent.num_steps)
    losses = jax.vmap(lambda logits: config.outputs.cross_entropy(logits, y))(found.trajectory[1:])
    return jnp.mean(losses)


def _unary(config, value_fn, constant_fn, y):
    del constant_fn
    return config.outputs.cross_entropy(jax.grad(value_fn)(config.outputs.initial(y)), y)


def _ascend_logits(config, value_fn, like, num_steps):
    return config.ascent(
        lambda logits: value_fn(config.outputs.probabilities(logits)),
        jnp.zeros_like(like),
        projection=lambda logits: logits,
        num_steps=num_steps,
    )


def _optimizer(config):
    return optax.adamw(config.value_rate, weight_decay=config.value_decay)
