r"""Gradient inference: structured outputs that an energy model values highly, by projected ascent.

.. math:: y^{(t+1)} = \mathcal{P}\left(y^{(t)} + \eta\, \partial_y v(y^{(t)})\right)
          \quad\text{or}\quad
          y^{(t+1)} = \mathcal{P}\left(y^{(t)} + \eta\, \frac{\partial_y v(y^{(t)})}
          {\|\partial_y v(y^{(t)})\|}\right)

of any function v of relaxed outputs y, which is to be maximised: v is a value, minus an energy.
P brings y back into the feasible set (:func:`box`, :func:`simplex`, or any function).

The steps are differentiable with respect to whatever v depends on, so that a loss on the result
trains the model end to end; `jax.lax.stop_gradient` on the result is for those that do not.

Reference: Pan, Liu, Yan, Yang and Yang, "Adversarial Localized Energy Network for Structured
Prediction", Equations 1, 4 and 12.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from gasn_jax.checks import require

ValueFn = Callable[[Float[Array, "..."]], Float[Array, ""]]
Projection = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class Result(NamedTuple):
    """An ascent.

    Attributes:
      y: where it ended, or with ``patience`` its best point.
      values: v at the start and after each of T steps, [T+1]; repeated after an early stop.
      trajectory: y at the same instants, [T+1, ...].
      num_steps: made before it stopped, 0..T.
    """

    y: Float[Array, "..."]
    values: Float[Array, "T+1"]
    trajectory: Float[Array, "T+1 ..."]
    num_steps: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Ascent:
    """Arguments of :func:`maximize` that the config of a system holds; static."""

    # Steps and their size.
    num_steps: int = 20
    step_size: float = 0.3
    # Whether gradients get length 1.
    normalize: bool = False
    # How much of the last direction is kept.
    momentum: float = 0.0
    # Steps in a row without a better value after which it stops, at the best; None makes all.
    patience: int | None = None
    # Whether the compiled ascent repeats its step instead of looping (convolutions on the CPU).
    unroll: bool = False

    def __post_init__(self):
        """Raises ValueError naming the field, what is wanted and what was given."""
        one = isinstance(self.step_size, numbers.Real)
        require(one, "step_size", "> 0 and finite", self.step_size)
        _check_options(self.num_steps, self.step_size, self.momentum, self.patience)

    def __call__(
        self,
        value_fn: ValueFn,
        start: Float[Array, "..."],
        *,
        projection: Projection,
        num_steps: int | None = None,
    ) -> Result:
        """The ascent from ``start``, of another number of steps if one is given."""
        options = dataclasses.asdict(self)
        if num_steps is not None:
            options["num_steps"] = num_steps
        return maximize(value_fn, start, projection=projection, **options)


def box(y: Float[Array, "..."]) -> Float[Array, "..."]:
    """The nearest point with all entries in [0, 1]."""
    return optax.projections.projection_hypercube(y)


def simplex(y: Float[Array, "... L"]) -> Float[Array, "... L"]:
    """The nearest point whose last axis is a probability distribution, of every variable."""
    flat = jax.vmap(optax.projections.projection_simplex)(y.reshape(-1, y.shape[-1]))
    # optax computes half precision in float32
    return flat.reshape(y.shape).astype(jnp.result_type(y, float))


def normalized(gradient: Float[Array, "..."]) -> Float[Array, "..."]:
    """A gradient of length 1 (Equation 12); exactly 0, with derivative 0, where it is 0."""
    # Squares of tiny or huge entries leave the range: in half precision all the same, else unless
    # the largest is divided out first. The compiler multiplies by its reciprocal, which leaves the
    # range for the very largest: hence the power of two.
    wide = gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32))
    small = lax.stop_gradient(jnp.max(jnp.abs(wide), initial=0.0)) <= 1
    wide *= jnp.where(small, 2.0**63, 2.0**-63).astype(wide.dtype)
    largest = lax.stop_gradient(jnp.max(jnp.abs(wide), initial=0.0))
    positive = ~(largest <= 0)  # NaN stays
    scaled = wide / jnp.where(positive, largest, 1.0)
    length = jnp.sqrt(jnp.where(positive, jnp.sum(scaled**2), 1.0))
    return jnp.where(positive, scaled / length, 0.0).astype(gradient.dtype)


def maximize(
    value_fn: ValueFn,
    y: Float[Array, "..."],
    *,
    num_steps: int,
    step_size: float | Float[Array, ""] | Float[Array, "T"],
    projection: Projection = box,
    normalize: bool = False,
    momentum: float = 0.0,
    patience: int | None = None,
    unroll: bool = False,
) -> Result:
    """Projected gradient ascent on one example.

    Args:
      value_fn: v, to be maximised; differentiable.
      y: the start, in the feasible set.
      num_steps: T >= 0.
      step_size: eta, one for all steps or one for each, [T].
      projection: onto the feasible set.
      normalize: whether gradients get length 1 (Equation 12) or are taken as they are (Equation 4).
      momentum: how much of the last direction is kept, in [0, 1).
      patience: stop after so many steps in a row that brought no value above the best so far, and
        return the best; None makes all steps, and returns the last.
      unroll: whether the compiled program repeats the step instead of looping over it, as a
        convolutional v needs on the CPU (its gradients are many times slower inside a loop).

    Returns:
      :class:`Result`; T + 1 values and T gradients of v.

    Raises:
      ValueError: at trace time, for a number of steps or patience out of range or no integer,
        momentum out of range, a step size that is a Python number but not > 0 and finite, step
        sizes of another shape than [T], or integers y.
    """
    y = jnp.asarray(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"y must be floating, got {y.dtype}")
    _check_options(num_steps, step_size, momentum, patience)
    shape = jnp.shape(step_size)
    if shape not in ((), (num_steps,)):
        raise ValueError(f"step_size must have shape [] or [{num_steps}], got {shape}")
    value_and_gradient = jax.value_and_grad(value_fn)

    def body(carry, step_size):
        y, direction, best_value, best, waited = carry
        value, gradient = value_and_gradient(y)
        better = _better(value, best_value)
        best_value, best = jnp.where(better, value, best_value), jnp.where(better, y, best)
        waited = jnp.where(better, 0, waited + 1)
        going = jnp.bool_(True) if patience is None else waited < patience
        direction = momentum * direction + (normalized(gradient) if normalize else gradient)
        new = projection(y + step_size * direction)
        y_next = jnp.where(going, new, y)
        return (y_next, direction, best_value, best, waited), (value, y, going)

    steps = jnp.broadcast_to(jnp.asarray(step_size, y.dtype), (num_steps,))
    worst = jnp.full((), -jnp.inf, jax.eval_shape(value_fn, y).dtype)
    start = (y, jnp.zeros_like(y), worst, y, jnp.int32(-1))
    # A scan over one step is unrolled by 2 only: by 1 it is a loop.
    trips = max(num_steps, 2) if unroll else 1
    carry, (values, ys, going) = lax.scan(body, start, steps, unroll=trips)
    y, _, best_value, best, _ = carry
    last = value_fn(y)
    found = y if patience is None else jnp.where(_better(last, best_value), y, best)
    return Result(
        y=found,
        values=jnp.append(values, last),
        trajectory=jnp.concatenate([ys, y[None]]),
        num_steps=jnp.sum(going, dtype=jnp.int32),
    )


def _check_options(num_steps, step_size, momentum, patience):
    whole = isinstance(num_steps, numbers.Integral) and int(num_steps) >= 0
    require(whole, "num_steps", "an integer >= 0", num_steps)
    if isinstance(step_size, numbers.Real):  # not where it is an array
        require(0 < float(step_size) < math.inf, "step_size", "> 0 and finite", step_size)
    require(0 <= momentum < 1, "momentum", "in [0, 1)", momentum)
    patient = patience is None or (isinstance(patience, numbers.Integral) and int(patience) >= 1)
    require(patient, "patience", "an integer >= 1 or None", patience)


def _better(value, best):
    """Whether it is higher, or the first that is NaN, which is then not hidden by numbers."""
    return ~((value <= best) | jnp.isnan(best))
