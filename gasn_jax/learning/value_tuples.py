r"""Outputs that teach a value network: the training tuples of deep value networks.

A value network's v(x, y) is to tell an oracle's h(y, y*), how good the output y is beside the true
y*, of whatever y an ascent on v may meet. It is taught by three kinds of outputs: true ones; those
that an ascent on v finds; and adversarial ones, on which it errs most, by an ascent from the true
output on its own loss

.. math:: -h(y, y^*) \log v(x, y) - (1 - h(y, y^*)) \log (1 - v(x, y)).

Reference: Gygli, Norouzi and Angelova, "Deep Value Networks Learn to Evaluate and Iteratively
Refine Structured Outputs" (2017), §3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gasn_jax.learning import energy_losses

Output = Float[Array, "..."]
Scalar = Float[Array, ""]
# (function to be maximised, start) -> where the ascent ends, both of one example.
Ascent = Callable[[Callable[[Output], Scalar], Output], Output]


def loss(
    logit_fn: Callable[[Output], Scalar], oracle_fn: Callable[[Output], Scalar], y: Output
) -> Scalar:
    """The (mean) cross-entropy of ``sigmoid(logit_fn(y))`` to ``oracle_fn(y)``."""
    return jnp.mean(energy_losses.oracle_regression(logit_fn(y), oracle_fn(y)))


def inferred(logit_fn: Callable[[Output], Scalar], start: Output, *, ascend: Ascent) -> Output:
    """Where an ascent on the value ends, a constant."""
    return jax.lax.stop_gradient(ascend(lambda y: jnp.mean(jax.nn.sigmoid(logit_fn(y))), start))


def adversarial(
    logit_fn: Callable[[Output], Scalar],
    oracle_fn: Callable[[Output], Scalar],
    start: Output,
    *,
    ascend: Ascent,
    constant_oracle: bool = True,
) -> Output:
    """Where an ascent on the loss ends, a constant.

    Args:
      logit_fn: the logit of v, or of each variable.
      oracle_fn: h, likewise.
      start: the true output.
      ascend: the ascent.
      constant_oracle: whether the oracle's value is a constant in the gradient of a step, as in the
        code that the authors have published; it need not have a derivative then.
    """

    def constant_oracle_fn(y):
        return jax.lax.stop_gradient(oracle_fn(y))

    fn = constant_oracle_fn if constant_oracle else oracle_fn
    return jax.lax.stop_gradient(ascend(lambda y: loss(logit_fn, fn, y), start))
