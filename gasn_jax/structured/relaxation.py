r"""Best assignments of any factor graph: guesses from below, a bound from above, a certificate.

The GASN paper writes the best assignment as an integer program over the states of regions (its
Equation 5). Without integrality it is a linear program, whose dual is, for any messages n,

.. math:: B(n) = \sum_f \max_{x_f} \Big( w_f(x_f) + \sum_{i \in f} n_{fi}(x_i) \Big)
               + \sum_i \max_{x_i} \Big( u_i(x_i) - \sum_{f \ni i} n_{fi}(x_i) \Big)
               \ge \max_x F(x)

:func:`argmax` lowers the bound by convex belief propagation at falling temperatures and rounds the
beliefs; where an assignment reaches the bound it is the best one, and the certificate says so.
:func:`max_product` is the limit of temperature 0 itself: fast, often good, without a bound of its
own.

Potentials are those of :mod:`gasn_jax.structured.graph`; one example per call. Nothing here is
differentiated: scores are, by :func:`gasn_jax.structured.graph.score`.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equations 2 and 5;
Johnson, Malioutov and Willsky, "Lagrangian Relaxation for MAP Estimation in Graphical Models"
(2007), for the falling temperatures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from gasn_jax.structured import belief_propagation, fixed_point, free_energy, single_site
from gasn_jax.structured import counting as countings
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import schedule as schedules
from gasn_jax.structured import sweep as sweeps

_TOLERANCE = 1e-3
_MANY = 30
_TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


class Best(NamedTuple):
    """An assignment, and how good it is.

    Attributes:
      states: [N] int32; -1 if no possible assignment was found.
      score: of the states; ``-inf`` if none was found.
      bound: no assignment scores more; ``-inf`` if messages show that none is possible, NaN if a
        potential is NaN or ``+inf``.
      certified: whether score and bound agree: up to the tolerance, the states are the best.
      converged: whether the messages of the last stage stood still.
    """

    states: Int[Array, "N"]
    score: Float[Array, ""]
    bound: Float[Array, ""]
    certified: Bool[Array, ""]
    converged: Bool[Array, ""]


def argmax(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    counting: countings.CountingNumbers | None = None,
    temperatures: Sequence[float] = _TEMPERATURES,
    solver: fixed_point.Solver | None = None,
    tolerance: float = _TOLERANCE,
) -> Best:
    """A good assignment and an upper bound, by convex belief propagation at falling temperatures.

    Args:
      graph: the structure, static.
      unary, factors: the potentials.
      counting: a concave free energy; None for :func:`counting.convex`.
      temperatures: of the stages, > 0, in units of the potentials' typical range: how far apart the
        scores of a variable or factor are in the mean, large ones that forbid left out.
      solver: of each stage, warm-started from the one before; None for 200 coloured sweeps.
      tolerance: how far score and bound may be apart, in the same units and beyond rounding, to
        count as equal.

    Returns:
      :class:`Best`: the best of the stages' beliefs, each improved by iterated conditional modes,
      and the lowest of the stages' bounds.

    Raises:
      ValueError: at trace time, for shapes that are not the graph's, or a temperature <= 0.
    """
    graphs.check_shapes(graph, unary, factors)
    stages = np.asarray(temperatures, float)
    if stages.ndim != 1 or not stages.size or not np.all((stages > 0) & (stages < np.inf)):
        raise ValueError(f"temperatures must be some finite numbers > 0, got {stages.tolist()}")
    counting = countings.convex(graph) if counting is None else counting
    solver = fixed_point.Solver(num_steps=200) if solver is None else solver
    plan = schedules.plan(graph, solver.schedule == "coloured")
    potentials = _precise(unary, factors)
    valid = graphs.is_valid(*potentials)
    model = belief_propagation.to_model(graph, *potentials, counting)
    unit = _typical_range(model)
    epsilons = unit * jnp.asarray(stages, model.unary.dtype)

    def stage(carry, epsilon):
        scores, best = carry  # messages in units of the score
        scaled = belief_propagation.to_model(graph, *potentials, counting, epsilon)
        start = jnp.where(scores > -jnp.inf, scores / epsilon, 0.0)
        sent, _, residual = fixed_point.iterate(plan, solver, scaled, start)
        scores = sent * epsilon
        bound = free_energy.bound(plan, model, scores)
        guess = jnp.argmax(sweeps.variable_scores(plan, scaled, sent), axis=0)
        states, score, _ = single_site.iterated_conditional_modes(graph, guess, *potentials)
        better = score > best.score
        best = best._replace(
            states=jnp.where(better, states, best.states),
            score=jnp.where(better, score, best.score),
            bound=jnp.minimum(bound, best.bound),
            converged=residual <= solver.tolerance,
        )
        return (scores, best), None

    none = jnp.asarray(-jnp.inf, model.unary.dtype)
    nobody = jnp.full(graph.num_variables, -1, jnp.int32)
    best = Best(nobody, none, -none, jnp.bool_(False), jnp.bool_(False))
    start = jnp.zeros((graph.num_states, plan.whole.stop), model.unary.dtype)
    (_, best), _ = lax.scan(stage, (start, best), epsilons)
    certified = _agree(best.score, best.bound, tolerance * unit) & valid
    return best._replace(bound=jnp.where(valid, best.bound, jnp.nan), certified=certified)


def max_product(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    counting: countings.CountingNumbers | None = None,
    solver: fixed_point.Solver | None = None,
) -> tuple[Best, Float[Array, "N L"]]:
    """Max-product belief propagation; exact in forests whose best assignment is unique.

    Args:
      graph, unary, factors: as for :func:`argmax`.
      counting: None for :func:`counting.bethe`, ordinary max-product.
      solver: None for parallel sweeps with damping 0.5. Messages are not accelerated.

    Returns:
      :class:`Best`, whose bound is that of its messages, and what each state of each variable
      would score at best, as messages know it (max-marginals), [N, L], up to a constant each.
    """
    graphs.check_shapes(graph, unary, factors)
    counting = countings.bethe(graph) if counting is None else counting
    if solver is None:
        solver = fixed_point.Solver(schedule="parallel", damping=0.5)
    plan = schedules.plan(graph, solver.schedule == "coloured")
    potentials = _precise(unary, factors)
    valid = graphs.is_valid(*potentials)
    model = belief_propagation.to_model(graph, *potentials, counting)
    sent, _, residual = fixed_point.iterate(
        plan, solver, model, sweeps.initial(plan, model), hard=True
    )
    scores = sweeps.variable_scores(plan, model, sent, hard=True)
    states = jnp.argmax(scores, axis=0).astype(jnp.int32)
    score, bound = graphs.score(graph, states, *potentials), free_energy.bound(plan, model, sent)
    states = jnp.where(score > -jnp.inf, states, -1)
    certified = _agree(score, bound, _TOLERANCE * _typical_range(model)) & valid
    bound = jnp.where(valid, bound, jnp.nan)
    return Best(states, score, bound, certified, residual <= solver.tolerance), scores.T


def _precise(unary, factors) -> tuple[Array, graphs.Factors]:
    """The potentials as constants, of float32 at least: scores are compared with the bound."""
    dtype = jnp.promote_types(jnp.result_type(unary, *factors, float), jnp.float32)
    first, *others = (lax.stop_gradient(jnp.asarray(x, dtype)) for x in (unary, *factors))
    return first, tuple(others)


def _agree(score, bound, slack):
    """Whether the bound is the score, up to the slack and rounding; -inf is if both are."""
    rounding = 8 * jnp.finfo(bound.dtype).eps * jnp.abs(bound)
    near = (bound - score <= slack + rounding) & (score > -jnp.inf) & (bound > -jnp.inf)
    return near | ((bound == -jnp.inf) & (score == -jnp.inf))


def _typical_range(model):
    """How far apart the finite scores of a variable or factor typically are; 1 if nowhere are.

    The mean over variables and factors, but for scores that forbid by their size: within one those
    are left out that lie many times lower than the mean of what lies above, and among all of them
    those whose range is many times the upper quartile.
    """
    ranges = []
    for table in (model.unary, *model.tables):
        flat = table.reshape(-1, table.shape[-1])
        below = jnp.max(flat, axis=0, keepdims=True) - flat
        below = jnp.sort(jnp.where((flat > -jnp.inf) & (below > 0), below, 0.0), axis=0)
        count = jnp.cumsum(below > 0, axis=0)
        means = jnp.cumsum(below, axis=0) / jnp.maximum(count, 1)
        near = (below[1:] <= _MANY * means[:-1]) | (count[:-1] == 0)
        kept = jnp.cumprod(jnp.concatenate([jnp.ones_like(near[:1]), near]), axis=0)
        ranges.append(jnp.max(jnp.where(kept == 1, below, 0.0), axis=0))
    ranges = jnp.concatenate(ranges)
    quartile = jnp.nanquantile(jnp.where(ranges > 0, ranges, jnp.nan), 0.75)
    near = (ranges > 0) & (ranges <= _MANY * quartile)
    mean = jnp.sum(jnp.where(near, ranges, 0.0)) / jnp.maximum(jnp.sum(near), 1)
    return jnp.where(mean > 0, mean, 1.0)
