r"""Deep value networks: a network that tells how good an output is, and an ascent on it.

.. math:: L(\theta) = -h(y, y^*) \log v(x, y; \theta) - (1 - h(y, y^*)) \log(1 - v(x, y; \theta))

with h an oracle (how well y overlaps the true y*) and v a sigmoid. The outputs y of a step are true
ones, ends of an ascent on v from an output that knows nothing, and adversarial ones, the ends of an
ascent on L from the true output. A prediction is the end of the ascent on v. Where v and h are of
each variable, the loss and what is ascended are means over these.

Reference: Gygli, Norouzi and Angelova, "Deep Value Networks Learn to Evaluate and Iteratively
Refine Structured Outputs" (2017), §3; a baseline of Pan et al., "Adversarial Localized Energy
Network for Structured Prediction".
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from gasn_jax.checks import require
from gasn_jax.energy import gradient_inference
from gasn_jax.learning import descent, energy_losses, value_tuples
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import calls

Input = Float[Array, "..."]
Output = Float[Array, "..."]


@dataclasses.dataclass(frozen=True)
class DVNConfig:
    """What a DVN is made of."""

    # The value network: (x, y) -> the logit of v(x, y), or one of each variable where the oracle is
    # of each; of one example, see `nn.calls`. Its dropout is that of the loss; ascents are made
    # without.
    value: nn.Module
    # The kind of y, and the oracle.
    outputs: RelaxedOutputs = RelaxedOutputs()
    # The ascents in training, whose number of steps is that of the inferred outputs.
    ascent: gradient_inference.Ascent = gradient_inference.Ascent(step_size=0.5)
    # Shares of the minibatch that are true outputs and adversarial ones; the others are inferred.
    # At least one output is of each kind whose share is not 0.
    true_share: float = 0.25
    adversarial_share: float = 0.25
    # Steps of the adversarial outputs' ascent; 1 in the code that the authors have published.
    num_adversarial_steps: int = 1
    # Whether the oracle is a constant in that ascent's gradient, as it is there, too.
    constant_oracle: bool = True
    # Adam's learning rate, and the factor of decoupled weight decay.
    value_rate: float = 1e-3
    value_decay: float = 0.0

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        require(0 < self.value_rate < math.inf, "value_rate", "> 0 and finite", self.value_rate)
        for name in ("true_share", "adversarial_share"):
            require(0 <= getattr(self, name) <= 1, name, "in [0, 1]", getattr(self, name))
        both = self.true_share + self.adversarial_share
        require(both <= 1, "adversarial_share", f"<= {1 - self.true_share}", self.adversarial_share)
        count = self.num_adversarial_steps
        require(count >= 1, "num_adversarial_steps", ">= 1", count)
        decays = 0 <= self.value_decay < math.inf
        require(decays, "value_decay", ">= 0 and finite", self.value_decay)

    @property
    def num_kinds(self) -> int:
        """How many kinds of outputs a minibatch has, which is the least size of one."""
        shares = self.true_share, self.adversarial_share
        return sum(share > 0 for share in shares) + (sum(shares) < 1)


class DVNState(NamedTuple):
    """What the next step needs.

    Attributes:
      value: variables of the value network.
      optimizer: its optax state.
    """

    value: PyTree
    optimizer: Any


def init(config: DVNConfig, key: Key[Array, ""], x: Input, y: Output) -> DVNState:
    """A fresh state; x and y are one example, for its shapes."""
    value = config.value.init(key, x, y)
    return DVNState(value, _optimizer(config).init(value))


def train_step(
    config: DVNConfig,
    state: DVNState,
    x: Float[Array, "m ..."],
    y: Float[Array, "m ..."],
    key: Key[Array, ""],
) -> tuple[DVNState, dict[str, Float[Array, ""]]]:
    """One step on one minibatch.

    Args:
      config: the system.
      state: before the step.
      x: inputs, in random order: the first get true outputs, the next adversarial ones.
      y: true outputs.
      key: of the dropout.

    Returns:
      The state after the step, and metrics: the loss, and the mean value and oracle's value of the
      minibatch's outputs.

    Raises:
      ValueError: at trace time, for fewer examples than kinds of outputs.
    """
    taught = _taught(config, state, x, y)

    def loss_fn(params):
        def one(x, y, z, key):
            logit = calls.of_output(config.value, params, x, key=key)(z)
            oracle = config.outputs.oracle_value(z, y)
            loss = energy_losses.oracle_regression(logit, oracle)
            return loss, {"loss": loss, "value": jax.nn.sigmoid(logit), "oracle": oracle}

        return jax.tree.map(jnp.mean, jax.vmap(one)(x, y, taught, jax.random.split(key, len(y))))

    gradient, metrics = jax.grad(loss_fn, has_aux=True)(state.value)
    optimizer = _optimizer(config)
    return DVNState(*descent.step(optimizer, gradient, state.optimizer, state.value)), metrics


def predict(
    config: DVNConfig, state: DVNState, x: Input, start: Output, *, num_steps: int
) -> gradient_inference.Result:
    """The ascent on the value of one input, from ``start``, by ``num_steps`` >= 0 steps."""
    logit_fn = calls.of_output(config.value, state.value, x)

    def value_fn(y):
        return jnp.mean(jax.nn.sigmoid(logit_fn(y)))

    return config.ascent(value_fn, start, projection=config.outputs.project, num_steps=num_steps)


def _taught(config, state, x, y):
    """The outputs of a step, [m, ...]: true, adversarial and inferred ones."""
    num_true, num_adversarial = _counts(config, len(y))
    last = num_true + num_adversarial

    def ascent(num_steps):
        options = dict(projection=config.outputs.project, num_steps=num_steps)
        return lambda value_fn, start: config.ascent(value_fn, start, **options).y

    def logit_fn(x):
        return calls.of_output(config.value, state.value, x)

    def adversarial(x, y):
        oracle_fn = functools.partial(config.outputs.oracle_value, true=y)
        ascend, constant = ascent(config.num_adversarial_steps), config.constant_oracle
        return value_tuples.adversarial(
            logit_fn(x), oracle_fn, y, ascend=ascend, constant_oracle=constant
        )

    def inferred(x, y):
        return value_tuples.inferred(logit_fn(x), config.outputs.initial(y), ascend=ascent(None))

    parts = [y[:num_true]]
    for make, part in ((adversarial, slice(num_true, last)), (inferred, slice(last, None))):
        if len(y[part]):
            parts.append(jax.vmap(make)(x[part], y[part]))
    return jnp.concatenate(parts)


def _counts(config, num_outputs):
    """How many outputs of a minibatch are true and adversarial."""
    shares = config.true_share, config.adversarial_share
    counts = [max(round(share * num_outputs), share > 0) for share in shares]
    num_inferred = int(sum(shares) < 1)  # at least
    if num_outputs < config.num_kinds:
        raise ValueError(f"y must have {config.num_kinds} outputs or more, got {num_outputs}")
    while sum(counts) + num_inferred > num_outputs:  # rounding has filled it
        counts[np.argmax(counts)] -= 1
    return counts


def _optimizer(config):
    return optax.adamw(config.value_rate, weight_decay=config.value_decay)
