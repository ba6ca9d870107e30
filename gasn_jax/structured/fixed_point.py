r"""The fixed point of a sweep of messages: how it is found, and its derivative.

A fixed point of the sweep G is :math:`n = G(n, \theta)`. Its derivative solves a linear system,
:math:`(I - \partial_n G)\, dn = \partial_\theta G\, d\theta`, by products with the derivative of
one sweep: no step of the way there is kept. Newton's method solves the same system with
:math:`G(n) - n` on the right.

Reference: Zhang, O'Donoghue and Boyd, "Globally Convergent Type-I Anderson Acceleration for
Non-Smooth Fixed-Point Iterations" (2020), for the safeguard of the acceleration.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gasn_jax import numerics
from gasn_jax.structured import free_energy
from gasn_jax.structured import schedule as schedules
from gasn_jax.structured import sweep as sweeps

_NEWTON_PRODUCTS = 600  # for a step of Newton's method
_PER_GAP = 8  # sweeps between two looks at the gap
_STEP_SIZES = (1.0, 0.5, 0.25, 0.1, 0.0)  # of Newton's method, the last a plain sweep
_MOST_TERMS = 100  # of the power series for a derivative
_RESTART = 60  # vectors that GMRES keeps
_SAFEGUARD = 10.0  # steps are mixed while the move is below this times the first over their number


@dataclasses.dataclass(frozen=True)
class Solver:
    """How the fixed point is sought; static.

    Attributes:
      num_steps: most sweeps, >= 1; with ``gradient="unrolled"`` exactly so many.
      tolerance: stop when no message moves by more, relative to 1 + its size, >= 0.
      gap_tolerance: stop, too, when the duality gap is not larger, >= 0; 0 leaves it out, and so
        does a free energy that is not concave. The gap is then looked at every 8 sweeps.
      schedule: ``"coloured"``, variables that share no factor together, or ``"parallel"``.
      damping: share of the old message in the new one, in [0, 1).
      acceleration: how many steps Anderson acceleration mixes; 0 for none.
      num_newton_steps: most steps of Newton's method, for models on which the sweeps come to no
        end: each is a linear system at the cost of some hundred sweeps.
      num_gradient_steps: most products of GMRES, >= 0, rounded up to whole restarts of 60, for the
        derivative, beyond the first 100 terms of a power series. They matter where sweeps are slow
        or do not come to rest, and cost much more each.
      gradient: ``"implicit"``, or ``"unrolled"``: through all sweeps, whose memory grows with
        their number; they are plain ones, and no tolerance stops them.
    """

    num_steps: int = 1000
    tolerance: float = 1e-5
    gap_tolerance: float = 0.0
    schedule: str = "coloured"
    damping: float = 0.0
    acceleration: int = 5
    num_newton_steps: int = 0
    num_gradient_steps: int = 600
    gradient: str = "implicit"

    def __post_init__(self):
        """Raises ``ValueError`` naming the field that is out of its range."""
        choices = {"schedule": ("coloured", "parallel"), "gradient": ("implicit", "unrolled")}
        for name, wanted in choices.items():
            if getattr(self, name) not in wanted:
                raise ValueError(f"{name} must be one of {wanted}, got {getattr(self, name)!r}")
        counts = ("num_steps", "acceleration", "num_newton_steps", "num_gradient_steps")
        for name in counts:
            if not isinstance(getattr(self, name), (int, np.integer)):
                raise ValueError(f"{name} must be an integer, got {getattr(self, name)!r}")
        zero = ("tolerance", "gap_tolerance", *counts[1:])
        for name, least in (("num_steps", 1), *((name, 0) for name in zero)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping must be in [0, 1), got {self.damping}")


def iterate(
    plan: schedules.Plan,
    solver: Solver,
    model: sweeps.Model,
    start: sweeps.Messages,
    *,
    hard: bool = False,
) -> tuple[sweeps.Messages, Int[Array, ""], Float[Array, ""]]:
    """Sweeps until the messages stand still: messages, number of sweeps, residual.

    With ``hard``, maxima instead of sums, and neither acceleration nor Newton's method.
    """
    if hard:
        solver = dataclasses.replace(solver, acceleration=0, num_newton_steps=0, gap_tolerance=0.0)
    sweep = sweeps.make(plan, model, damping=solver.damping, hard=hard)
    step = _accelerated(sweep, solver.acceleration, solver.damping)

    def some_steps(carry):
        state, _ = carry
        # The gap costs as much as a few sweeps.
        most = _PER_GAP if solver.gap_tolerance else 1
        most = jnp.minimum(most, solver.num_steps - state.num_steps)
        state = lax.fori_loop(0, most, lambda _, state: step(state), state)
        return state, _close_enough(plan, solver, model, state.messages, state.residual)

    def going_on(carry):
        state, done = carry
        return ~done & (state.num_steps < solver.num_steps)

    history = jnp.zeros((solver.acceleration, start.size), start.dtype)
    zero = jnp.zeros((), start.dtype)
    state = _State(start, history, history, jnp.int32(0), jnp.int32(0), zero, zero + jnp.inf)
    state, done = lax.while_loop(going_on, some_steps, (state, jnp.bool_(False)))
    if not solver.num_newton_steps:
        return state.messages, state.num_steps, state.residual
    return _newton(plan, solver, model, state, done)


def _close_enough(plan, solver, model, messages, residual):
    done = residual <= solver.tolerance
    if solver.gap_tolerance:
        done |= free_energy.evaluate(plan, model, messages)[2] <= solver.gap_tolerance
    return done


def _newton(plan, solver, model, state, done):
    """Newton's method for a fixed point of the sweep, by a search for the smallest move."""
    sweep = sweeps.make(plan, model)

    def step(carry):
        messages, count, _, _ = carry
        messages = numerics.log_softmax(messages, axis=0)
        new, onward = jax.linearize(sweep, messages)
        move = _residual(messages, new)[0].reshape(new.shape)
        direction = _solve(onward, move, _NEWTON_PRODUCTS, jnp.zeros_like(state.residual))
        shares = jnp.asarray(_STEP_SIZES, new.dtype)[:, None, None]
        tried = messages[None] + shares * direction[None]
        images = jax.vmap(sweep)(tried)
        moves, residuals = jax.vmap(_residual)(numerics.log_softmax(tried, axis=1), images)
        sizes = jnp.sum(moves**2, axis=1)
        best = jnp.argmin(jnp.where(jnp.isnan(sizes), jnp.inf, sizes))
        messages, residual = images[best], residuals[best]
        done = _close_enough(plan, solver, model, messages, residual)
        return messages, count + 1, residual, done

    def going_on(carry):
        _, count, _, done = carry
        return ~done & (count < solver.num_newton_steps)

    start = (state.messages, jnp.int32(0), state.residual, done)
    messages, count, residual, _ = lax.while_loop(going_on, step, start)
    return messages, state.num_steps + count, residual


def _solve(onward, right, num_steps, probe):
    """``x - onward(x) = right``, ``onward`` a sweep's derivative.

    Where sweeps come to rest the series of its powers does too, and costs one product a term;
    the rest is left to GMRES, which has to keep many vectors, and whose best is taken if
    ``num_steps`` products are not enough. The transposed system leaves its relative residual as
    the cotangent of the scalar ``probe``, which has no other effect; this one leaves none.
    """
    tolerance = 1e-10 if right.dtype == jnp.float64 else 1e-6

    if not right.size:
        return right

    def solve(matvec, right):
        series = _power_series(matvec, right, tolerance)
        if not num_steps:
            return series
        found, _ = jax.scipy.sparse.linalg.gmres(
            matvec,
            right,
            x0=series,
            tol=tolerance,
            restart=min(num_steps, _RESTART),
            maxiter=-(-num_steps // _RESTART),
            solve_method="incremental",  # "batched" gives NaN on nearly singular systems
        )
        return jnp.where(jnp.all(jnp.isfinite(found)), found, series)

    def with_probe(matvec, arguments, share):
        right, probe = arguments

        def product(x):
            return matvec((x, jnp.zeros_like(probe)))[0]

        # Of size 1, for squares of small or large numbers vanish or overflow.
        size = jnp.max(jnp.abs(right))
        size = jnp.where((size > 0) & (size < jnp.inf), size, 1.0)
        right = right / size
        found = solve(product, right)
        left = jnp.linalg.norm(right - product(found))
        residual = numerics.divide(left, jnp.linalg.norm(right))
        return found * size, probe + share * residual

    def tied(x, y):
        # x itself; but JAX transposes only systems whose parts all depend on linear arguments.
        return x + jnp.where(False, jnp.sum(y), 0.0)

    def matvec(arguments):
        x, probe = arguments
        image = onward(tied(x, probe))
        return x - image, tied(probe, image)

    # gmres alone could not be transposed: its tolerance depends on the right hand side.
    found, _ = lax.custom_linear_solve(
        matvec,
        (tied(right, probe), tied(probe, right)),
        functools.partial(with_probe, share=0.0),
        functools.partial(with_probe, share=1.0),
    )
    return found


def _power_series(matvec, right, tolerance):
    """``sum_k (1 - matvec)^k right`` until what is left is small; its first term if it grows."""
    wanted = jnp.sum(right**2)

    def add(carry):
        count, found, left, _ = carry
        found, left = found + left, left - matvec(left)
        return count + 1, found, left, jnp.sum(left**2)

    def going_on(carry):
        count, _, _, size = carry
        return (count < _MOST_TERMS) & (size > tolerance**2 * wanted) & (size < jnp.inf)

    start = (jnp.int32(0), jnp.zeros_like(right), right, wanted)
    _, found, _, size = lax.while_loop(going_on, add, start)
    return jnp.where(size < wanted, found, right)


class _State(NamedTuple):
    """Messages, and what the acceleration remembers of the last D steps."""

    messages: sweeps.Messages
    moves: Float[Array, "D L*M"]
    images: Float[Array, "D L*M"]
    num_steps: Int[Array, ""]
    num_mixed: Int[Array, ""]
    first: Float[Array, ""]  # the size of the first move
    residual: Float[Array, ""]


def _accelerated(sweep, depth, damping):
    """A step of the fixed-point iteration, mixed from the last ``depth`` ones."""

    def step(state):
        new = sweep(state.messages)
        move, residual = _residual(state.messages, new)
        residual = residual / (1 - damping)  # what the sweep would move without
        state = state._replace(num_steps=state.num_steps + 1, residual=residual)
        if not depth:
            return state._replace(messages=new)
        at = (state.num_steps - 1) % depth
        finite = new > -jnp.inf
        moves = state.moves.at[at].set(move)
        images = state.images.at[at].set(jnp.where(finite, new, 0.0).ravel())
        size = jnp.sqrt(jnp.sum(move**2))
        first = jnp.where(state.num_steps == 1, size, state.first)
        mixed = _mix(moves, images, jnp.arange(depth) < state.num_steps).reshape(new.shape)
        falling = size <= _SAFEGUARD * first / (1 + state.num_mixed)
        falling &= jnp.all(jnp.isfinite(mixed))
        return state._replace(
            messages=jnp.where(finite & falling, mixed, new),
            moves=moves,
            images=images,
            first=first,
            num_mixed=state.num_mixed + falling,
        )

    return step


def _mix(moves, images, known):
    """The affine combination of images [D, M] whose moves [D, M] sum to the least."""
    gram = jnp.matmul(moves, moves.T, precision="highest")
    gram = jnp.where(known[:, None] & known[None, :], gram, 0.0)
    scale = jnp.trace(gram)
    eps = jnp.finfo(gram.dtype).eps
    ridge = jnp.where(known, 10 * eps * scale + jnp.finfo(gram.dtype).tiny, 1.0)
    weights = jnp.linalg.solve(gram + jnp.diag(ridge), known.astype(gram.dtype)[:, None])[:, 0]
    return (weights / jnp.sum(weights)) @ images


def unrolled(plan, solver, model, start):
    """As many plain sweeps as the solver allows, for autodiff to follow."""
    sweep = sweeps.make(plan, model, damping=solver.damping)

    def step(messages, _):
        new = sweep(messages)
        return new, _residual(*lax.stop_gradient((messages, new)))[1]

    messages, residuals = lax.scan(step, start, None, length=solver.num_steps)
    return messages, jnp.int32(solver.num_steps), residuals[-1] / (1 - solver.damping)


def _residual(messages, new):
    """How each message moved, 0 where impossible, flat; and the largest relative move.

    A state that became impossible, or possible again, has moved without end.
    """
    finite = (new != -jnp.inf) & (messages != -jnp.inf)
    move = jnp.where(finite, new - messages, 0.0)
    size = 1 + jnp.abs(jnp.where(finite, new, 0.0))
    turned = (new == -jnp.inf) != (messages == -jnp.inf)
    return move.ravel(), jnp.max(jnp.where(turned, jnp.inf, jnp.abs(move) / size), initial=0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def with_derivative(graph, solver, model, messages, probe):
    """The messages; their derivative in the model is that of the fixed point of the sweep.

    The gradient in the scalar ``probe`` is the relative residual of the linear system that the
    gradient in the model took.
    """
    return messages


@with_derivative.defjvp
def _with_derivative_jvp(graph, solver, primals, tangents):
    model, messages = primals[0], with_derivative(graph, solver, *primals)
    plan = schedules.plan(graph, solver.schedule == "coloured")
    fixed = numerics.log_softmax(messages, axis=0)  # mixed messages are not normalised
    onward = jax.linearize(sweeps.make(plan, model), fixed)[1]
    pushed = jax.jvp(lambda m: sweeps.make(plan, m)(fixed), (model,), tangents[:1])[1]
    return messages, _solve(onward, pushed, solver.num_gradient_steps, tangents[2])
