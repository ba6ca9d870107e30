r"""Belief propagation in any factor graph: approximate marginals with an error estimate.

Beliefs b maximise the free energy of the given counting numbers c (see
:mod:`gasn_jax.structured.counting`) over all beliefs whose factors agree with their variables.
The Lagrange multipliers of this agreement are the messages :math:`n_{fi}(x_i)`, and a sweep solves
for those of one variable after the other, :math:`\hat c_i = c_i + \sum_{f \ni i} c_f`:

.. math::
    m_{fi}(x_i) &= c_f \log \sum_{x_f \setminus x_i} \exp \frac{1}{c_f} \Big( \theta_f(x_f)
                   + \sum_{j \in f, j \ne i} n_{fj}(x_j) \Big) \\
    \hat c_i \log b_i(x_i) &= \theta_i(x_i) + \sum_{f \ni i} m_{fi}(x_i) + \text{const} \\
    n_{fi}(x_i) &= c_f \log b_i(x_i) - m_{fi}(x_i)

With the Bethe numbers this is ordinary sum-product. With nonnegative numbers each step is exact
coordinate descent on the dual, so coloured sweeps converge. Anderson acceleration takes some
hundred sweeps where plain ones take many thousand; a step is mixed only while the residual keeps
falling, and plain otherwise, so it converges wherever plain sweeps do.

For a concave free energy every iterate gives a bound: the value at beliefs made consistent by
moving little mass is below the optimum, and the linearisation there above it. Their difference is
the duality gap. With Bethe's numbers there is none, and the gap is NaN.

Factors join 2 to 4 variables; potentials and marginals are those of
:mod:`gasn_jax.structured.graph`; one example per call. The derivative of the marginals solves one
linear system at the fixed point, whatever led there; that of the log-partition function is the
marginals. Both are right as far as the messages have converged: look at ``converged``. The system
is solved to 1e-6, in double precision 1e-10, or as far as the solver's number of products goes:
near a model where two fixed points part, it is nearly singular. How far it came, a gradient tells
as the gradient in ``probe``; forward mode does not tell.

Reference: London and Schwing, "Generative Adversarial Structured Networks", §3.2.1; Hazan and
Shashua, "Norm-Product Belief Propagation" (2010), for the sweep.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from gasn_jax import numerics
from gasn_jax.structured import counting as countings
from gasn_jax.structured import fixed_point, free_energy
from gasn_jax.structured import graph as graphs
from gasn_jax.structured import schedule as schedules
from gasn_jax.structured import sweep as sweeps
from gasn_jax.structured.fixed_point import Solver as Solver

Temperature = float | Float[Array, ""]


class Tightened(NamedTuple):
    """Tree-reweighted counting numbers, and how they were found.

    Attributes:
      counting: the numbers of the lowest bound.
      bounds: of the log-partition function, in each round, [num_rounds].
      converged: whether that round's messages converged, [num_rounds]. A bound holds regardless.
    """

    counting: countings.CountingNumbers
    bounds: Float[np.ndarray, "num_rounds"]
    converged: Bool[np.ndarray, "num_rounds"]


class Result(NamedTuple):
    """Marginals and how good they are.

    Attributes:
      log_partition: the free energy at the fixed point; of a concave one its upper bound. Scalar.
        Forbid by ``-inf``: beside scores such as -1e9 the bound is above by their rounding, which
        may be hundreds; ``gap`` tells.
      unary: beliefs of variables, [N, L].
      factors: beliefs of factors, of the potentials' shapes; they agree with ``unary`` as far as
        the messages have converged.
      messages: [L, M], for a warm start with the same graph and schedule.
      num_steps: sweeps and Newton steps that were made.
      residual: largest move of a message in the last sweep, relative to 1 + its size; what it would
        be without damping.
      gap: by how much ``log_partition`` may be above the optimum; NaN if not concave, ``inf`` if
        that is not known: some state's belief vanished, or beliefs of factors can't be made to
        agree without forbidden states; 0 if the model is infeasible.
      converged: whether residual or gap came down to the tolerance.
      upper_bound: whether ``log_partition`` is known to be at least the exact one, up to rounding.
    """

    log_partition: Float[Array, ""]
    unary: Float[Array, "N L"]
    factors: graphs.Factors
    messages: Float[Array, "L M"]
    num_steps: Int[Array, ""]
    residual: Float[Array, ""]
    gap: Float[Array, ""]
    converged: Bool[Array, ""]
    upper_bound: Bool[Array, ""]


def marginals(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    counting: countings.CountingNumbers | None = None,
    temperature: Temperature = 1.0,
    solver: Solver | None = None,
    messages: Float[Array, "L M"] | None = None,
    probe: Float[Array, ""] | float = 0.0,
) -> Result:
    """Approximate marginals and log-partition function.

    Args:
      graph: the structure, static.
      unary, factors: the potentials, see :mod:`gasn_jax.structured.graph`.
      counting: the free energy; None for :func:`counting.convex`.
      temperature: epsilon > 0.
      solver: None for ``Solver()``.
      messages: where to start, from a result for other potentials; None for the variables' own.
      probe: a scalar without effect. In reverse mode, the gradient of a function of the marginals
        in it is the residual of the linear system behind the gradient in the potentials, relative
        to its right hand side; 0 where nothing was to be solved, and with ``gradient="unrolled"``.

    Returns:
      :class:`Result`. A sweep costs O(M L^arity), the gap as much as a few. An infeasible model,
      as far as messages show it, has ``log_partition = -inf`` and zero marginals; a NaN or
      ``+inf`` among the potentials makes all NaN, and ``converged`` False. Half precision is
      computed in float32.

    Raises:
      ValueError: at trace time, for shapes that are not the graph's.
    """
    graphs.check_shapes(graph, unary, factors)
    if jnp.shape(probe) != ():
        raise ValueError(f"probe must be a scalar, got shape {jnp.shape(probe)}")
    counting = countings.convex(graph) if counting is None else counting
    solver = Solver() if solver is None else solver
    if not counting.concave:
        solver = dataclasses.replace(solver, gap_tolerance=0.0)
    plan = schedules.plan(graph, solver.schedule == "coloured")
    model = to_model(graph, unary, factors, counting, temperature)
    fixed = lax.stop_gradient(model)
    start = _start(plan, model, messages)
    if solver.gradient == "unrolled":
        sent, steps, residual = fixed_point.unrolled(plan, solver, model, start)
    else:
        sent, steps, residual = fixed_point.iterate(plan, solver, fixed, lax.stop_gradient(start))
        sent = fixed_point.with_derivative(
            graph, solver, model, sent, jnp.asarray(probe, sent.dtype)
        )

    log_unary, log_factors = sweeps.beliefs(plan, model, sent)
    possible = jnp.all(jnp.max(log_unary, axis=0) != -jnp.inf)
    valid = ~jnp.any(jnp.isnan(log_unary))
    beliefs = jax.tree.map(lambda x: jnp.where(possible, jnp.exp(x), 0.0), (log_unary, log_factors))
    value, bound, gap = free_energy.evaluate(plan, fixed, lax.stop_gradient(sent))
    bounded = jnp.asarray(counting.concave) & (bound < jnp.inf)
    value = jnp.where(bounded, bound, value)
    value = jnp.where(valid, jnp.where(possible, value, -jnp.inf), jnp.nan)
    gap = jnp.where(possible, gap, 0.0)
    gap = jnp.where(valid & jnp.asarray(counting.concave), gap, jnp.nan)
    close = residual <= solver.tolerance
    if solver.gap_tolerance:
        close |= gap <= solver.gap_tolerance
    return Result(
        log_partition=_with_gradient(value, (model.unary, model.tables), beliefs),
        unary=beliefs[0].T,
        factors=tuple(jnp.moveaxis(belief, -1, 0) for belief in beliefs[1]),
        messages=sent,
        num_steps=steps,
        residual=residual,
        gap=gap,
        converged=close & valid,
        upper_bound=(bounded | ~possible) & valid,
    )


def tighten(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    num_rounds: int = 20,
    temperature: Temperature = 1.0,
    solver: Solver | None = None,
) -> Tightened:
    """Tree-reweighted numbers with a lower bound: edges that matter appear in more trees.

    Each round solves for the marginals, warm-started, and moves the appearances towards the
    spanning tree with the most mutual information, the conditional gradient method. Runs in
    Python, outside ``jax.jit``.

    Args:
      graph, unary, factors, temperature, solver: as in :func:`marginals`; pairwise factors.
      num_rounds: how often the appearances are moved, >= 1.

    Reference: Wainwright, Jaakkola and Willsky (2005), §V-B.
    """
    if num_rounds < 1:
        raise ValueError(f"num_rounds must be >= 1, got {num_rounds}")
    counting = countings.tree_reweighted(graph)
    if not graph.factors:
        result = marginals(graph, unary, factors, temperature=temperature, solver=solver)
        bound = result.log_partition if result.upper_bound else np.inf
        every = (np.full(num_rounds, value) for value in (bound, bool(result.converged)))
        return Tightened(counting, *every)
    solve = jax.jit(functools.partial(marginals, graph, temperature=temperature, solver=solver))
    shares, messages = np.array(counting.factors[0], float), None
    best, bounds, converged = counting, [], []
    for number in range(num_rounds):
        counting = countings.tree_reweighted(graph, shares)
        result = solve(unary, factors, counting=counting, messages=messages)
        messages = result.messages
        converged.append(bool(result.converged))
        bounds.append(float(result.log_partition) if result.upper_bound else np.inf)
        best = counting if bounds[-1] <= min(bounds) else best
        information = np.asarray(_mutual_information(graph, result), float)
        tree = np.zeros(len(shares))
        tree[countings.spanning_tree(graph, -information)] = 1.0
        shares += (tree - shares) / (number + 3)
    return Tightened(best, np.array(bounds), np.array(converged))


def _mutual_information(graph, result):
    first, second = (result.unary[rows] for rows in graph.factors[0].T)
    independent = numerics.log(first[:, :, None]) + numerics.log(second[:, None, :])
    joint = result.factors[0]
    known = (joint > 0) & (independent > -jnp.inf)
    ratio = jnp.where(known, jnp.log(jnp.where(known, joint, 1.0)) - independent, 0.0)
    return jnp.sum(joint * jnp.where(known, ratio, 0.0), axis=(1, 2))


def to_model(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    counting: countings.CountingNumbers,
    temperature: Temperature = 1.0,
) -> sweeps.Model:
    """The potentials over the temperature, states first; counting numbers are constants."""
    shapes = [(graph.num_variables,), *((len(rows),) for rows in graph.factors)]
    got = [jnp.shape(c) for c in (counting.variables, *counting.factors)]
    if got != shapes:
        raise ValueError(f"counting numbers must have shapes {shapes}, got {got}")
    dtype = jnp.promote_types(jnp.result_type(unary, *factors, float), jnp.float32)
    scaled = [numerics.scale(jnp.asarray(x, dtype), temperature) for x in (unary, *factors)]
    numbers = jax.tree.map(lambda c: lax.stop_gradient(jnp.asarray(c, dtype)), counting)
    tables = tuple(jnp.moveaxis(table, 0, -1) for table in scaled[1:])
    return sweeps.Model(scaled[0].T, tables, numbers.variables, numbers.factors)


def _start(plan, model, messages):
    own = sweeps.initial(plan, model)
    if messages is None:
        return own
    if jnp.shape(messages) != own.shape:
        raise ValueError(f"messages must have shape {own.shape}, got {jnp.shape(messages)}")
    return jnp.where(jnp.isfinite(messages), messages, 0.0).astype(own.dtype)


@jax.custom_jvp
def _with_gradient(value, potentials, beliefs):
    """The value; its derivative in the potentials is the beliefs, since they are an optimum."""
    return value


@_with_gradient.defjvp
def _with_gradient_jvp(primals, tangents):
    value, _, beliefs = primals
    terms = jax.tree.map(lambda b, t: jnp.sum(b * t), beliefs, tangents[1])
    return value, sum(jax.tree.leaves(terms))
