r"""Exact inference in trees and forests of pairwise factors.

The same recursions as :mod:`gasn_jax.structured.markov`, along a tree: one collecting pass in log
space from the leaves to the roots gives ``p(child | parent)`` on every edge; marginals, samples and
the gradient are linear passes with these. Each component is rooted in its centre, and edges of the
same depth are taken together, in chunks of one width, so a star or a balanced tree is a few steps
and a path is half as many as its edges.

Functions take a :class:`gasn_jax.structured.graph.FactorGraph` without cycles, whose factors join
two variables, and the potentials ``unary`` [N, L] and ``factors``, see there; one example per call.
``temperature`` is the paper's epsilon > 0. An infeasible model has ``log_partition = -inf``, zero
marginals and states -1. A graph with a cycle or larger factors raises ``ValueError`` at trace time.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equations 8-12 and
§3.2.1, which names trees beside chains.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from gasn_jax import checks, numerics
from gasn_jax.structured import forest
from gasn_jax.structured import graph as graphs

Temperature = float | Float[Array, ""]


def log_partition(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The log-partition function, scalar; ``-inf`` if nothing is possible. O(N L^2)."""
    plan, unary, tables = _prepare(graph, unary, factors, temperature)
    return _infer(graph, unary, tables).log_partition


def marginals(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    temperature: Temperature = 1.0,
) -> graphs.Marginals:
    """Marginals of variables and factors, in O(N L^2); all zero if nothing is possible.

    The derivative is the covariance form of Equation 12 contracted with the (co)tangent, two more
    linear passes; it can be differentiated again.
    """
    plan, unary, tables = _prepare(graph, unary, factors, temperature)
    result = _infer(graph, unary, tables)
    pairs = () if not factors else (_flipped(plan, result.pairwise),)
    return graphs.Marginals(result.log_partition, result.unary, pairs)


def argmax(
    graph: graphs.FactorGraph, unary: Float[Array, "N L"], factors: graphs.Factors
) -> tuple[Int[Array, "N"], Float[Array, ""]]:
    """The best states [N] int32 and their score, O(N L^2).

    -1 and ``-inf`` if nothing is possible, -1 and NaN if a potential is NaN or ``+inf``.

    The score is differentiable: its gradient is the indicator of the states.
    """
    plan, scores, tables = _prepare(graph, unary, factors, 1.0)
    scores, tables = lax.stop_gradient((scores, tables))

    def collect(inward, chunk):
        message = jnp.max(inward[chunk.child][:, None, :] + _rows(tables, chunk), axis=-1)
        message = message - numerics.finite_max(message)[:, None]
        return inward.at[chunk.parent].add(jnp.where(chunk.real, message, 0.0)), None

    inward, _ = _up(plan, collect, _with_dummy(scores))
    states = jnp.full(inward.shape[0], -1, jnp.int32)
    states = states.at[plan.roots].set(jnp.argmax(inward[plan.roots], axis=-1).astype(jnp.int32))

    def distribute(states, chunk):
        rows = jax.vmap(lambda table, x: table[x])(_rows(tables, chunk), states[chunk.parent])
        best = jnp.argmax(rows + inward[chunk.child], axis=-1).astype(jnp.int32)
        return states.at[chunk.child].set(best), None

    states = _down(plan, distribute, states)[0][:-1]
    possible = jnp.all(jnp.max(inward[plan.roots], axis=-1) > -jnp.inf)
    valid = graphs.is_valid(unary, factors)
    states = jnp.where(possible & valid, states, -1)
    return states, jnp.where(valid, graphs.score(graph, states, unary, factors), jnp.nan)


def sample(
    key: Key[Array, ""],
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    num_samples: int,
    temperature: Temperature = 1.0,
) -> Int[Array, "num_samples N"]:
    """Exact independent samples [num_samples, N] int32; -1 throughout if nothing is possible.

    One collecting pass, then all samples together from the roots to the leaves:
    O((1 + num_samples) N L^2).
    """
    plan, unary, tables = _prepare(graph, unary, factors, temperature)
    result = _infer(graph, *lax.stop_gradient((unary, tables)))
    precise = jnp.promote_types(unary.dtype, jnp.float32)
    uniform = _with_dummy(jax.random.uniform(key, (unary.shape[0], num_samples), precise))

    def draw(weights, threshold):  # [L] or [L, n] weights of one variable, for n samples
        return numerics.inverse_cdf(weights, threshold).astype(jnp.int32)

    roots = jnp.repeat(result.unary[plan.roots][:, :, None], num_samples, axis=2)
    states = jnp.zeros(uniform.shape, jnp.int32)
    states = states.at[plan.roots].set(jax.vmap(draw)(roots, uniform[plan.roots]))

    def distribute(states, chunk):
        tables = _rows(result.transition, chunk)
        rows = jax.vmap(lambda table, x: table.T[:, x])(tables, states[chunk.parent])
        return states.at[chunk.child].set(jax.vmap(draw)(rows, uniform[chunk.child])), None

    states = _down(plan, distribute, states)[0][:-1]
    return jnp.where(result.log_partition > -jnp.inf, states.T, -1)


def log_prob(
    graph: graphs.FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The log-probability of states [N], scalar; ``-inf`` for a forbidden assignment. O(N L^2).

    A sum of conditional log-probabilities, so nothing cancels when scores are large.
    """
    states = checks.integers("states", states, (graph.num_variables,))
    possible = graphs.score(graph, states, unary, factors) != -jnp.inf
    plan, unary, tables = _prepare(graph, unary, factors, temperature)
    result = _infer(graph, unary, tables)
    safe = jnp.where(possible, jnp.clip(states, 0, graph.num_states - 1), 0)
    initial = jnp.take_along_axis(result.log_initial, safe[plan.roots][:, None], axis=1)
    edges = jnp.arange(len(plan.position))
    steps = result.log_transition[edges, safe[plan.parent], safe[plan.child]]
    initial, steps = (jnp.where(possible, terms, 0.0) for terms in (initial, steps))
    return jnp.where(possible, jnp.sum(initial) + jnp.sum(steps), -jnp.inf)


def entropy(
    graph: graphs.FactorGraph,
    unary: Float[Array, "N L"],
    factors: graphs.Factors,
    *,
    temperature: Temperature = 1.0,
) -> Float[Array, ""]:
    """The Shannon entropy in nats, scalar >= 0; 0 if nothing is possible. O(N L^2)."""
    plan, unary, tables = _prepare(graph, unary, factors, temperature)
    result = _infer(graph, unary, tables)
    initial = numerics.multiply_log(result.unary[plan.roots], result.log_initial)
    return -jnp.sum(initial) - jnp.sum(
        numerics.multiply_log(result.pairwise, result.log_transition)
    )


class _Inference(NamedTuple):
    """A tree's distribution; edges point from parent to child."""

    log_partition: Float[Array, ""]
    unary: Float[Array, "N L"]
    pairwise: Float[Array, "E L L"]
    transition: Float[Array, "E L L"]
    log_initial: Float[Array, "R L"]
    log_transition: Float[Array, "E L L"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _infer(graph, unary, tables):
    """The distribution of the given log potentials; ``tables`` [E, L, L] are parent by child."""
    plan = forest.plan(graph)
    inward, top, total, shift = _collect(plan, unary, tables)
    log_total = jnp.log(jnp.where(total > 0, total, 1.0))
    exponent = (inward[plan.child][:, None, :] + tables) - top[:, :, None]
    log_transition = exponent - log_total[:, :, None]
    transition = jnp.exp(log_transition)

    scores = inward[plan.roots]
    log_z = jnp.sum(numerics.logsumexp(scores)) + jnp.sum(shift)
    # Where one component is infeasible, the whole is.
    initial = numerics.softmax(scores) * (log_z > -jnp.inf)
    source = jnp.zeros_like(unary).at[plan.roots].add(initial)
    unary = _push_forward(plan, transition, source)
    unary = numerics.divide(unary, jnp.sum(unary, axis=-1, keepdims=True))
    return _Inference(
        log_partition=log_z,
        unary=unary,
        pairwise=unary[plan.parent][:, :, None] * transition,
        transition=transition,
        log_initial=numerics.log_softmax(scores),
        log_transition=log_transition,
    )


@_infer.defjvp
def _infer_jvp(graph, primals, tangents):
    plan, tree, (t_unary, t_tables) = forest.plan(graph), _infer(graph, *primals), tangents
    parent, child = plan.parent, plan.child
    mass = tree.unary[parent]

    # Martingale increments of the statistic <t, indicators>, see gasn_jax.structured.markov: they
    # are the derivatives of the initial and transition log-probabilities.
    gain = t_tables + t_unary[child][:, None, :]
    expected = jnp.sum(tree.transition * gain, axis=-1)
    mean = jnp.sum(mass * expected, axis=-1)
    source = jnp.zeros_like(t_unary).at[parent].add(expected - mean[:, None])
    future = _pull_back(plan, tree.transition, source)
    onward = jnp.sum(tree.transition * (gain + future[child][:, None, :]), axis=-1)
    steps = gain + future[child][:, None, :] - onward[:, :, None]
    start = t_unary[plan.roots] + future[plan.roots]
    start = start - jnp.sum(tree.unary[plan.roots] * start, axis=-1, keepdims=True)

    joint_steps = tree.pairwise * steps
    source = jnp.zeros_like(t_unary).at[plan.roots].add(tree.unary[plan.roots] * start)
    source = source.at[child].add(jnp.sum(joint_steps, axis=1))
    d_unary = _push_forward(plan, tree.transition, source)
    return tree, _Inference(
        log_partition=jnp.sum(tree.unary * t_unary) + jnp.sum(tree.pairwise * t_tables),
        unary=d_unary,
        pairwise=d_unary[parent][:, :, None] * tree.transition + joint_steps,
        transition=tree.transition * steps,
        log_initial=start,
        log_transition=steps,
    )


def _collect(plan, unary, tables):
    """From the leaves to the roots in log space, renormalised on each edge.

    Returns ``inward`` [N, L], the log potential of each variable and all below it; and for each
    edge the largest score and the sum of exponentials in a row [E, L], and the shift [E].
    """

    def step(inward, chunk):
        scores = inward[chunk.child][:, None, :] + _rows(tables, chunk)
        top = numerics.finite_max(scores)
        total = jnp.sum(jnp.exp(scores - top[:, :, None]), axis=-1)
        outward = top + jnp.log(total)
        # By their mean rather than their maximum: of a thousand messages that meet in a hub, errors
        # then cancel where they would add up.
        possible = outward > -jnp.inf
        count = jnp.maximum(jnp.sum(possible, axis=-1), 1)
        shift = jnp.sum(jnp.where(possible, outward, 0.0), axis=-1) / count
        message = jnp.where(chunk.real, outward - shift[:, None], 0.0)
        return inward.at[chunk.parent].add(message), (top, total, shift)

    inward, by_edge = _up(plan, step, _with_dummy(unary))
    return inward[:-1], *by_edge


def _pull_back(plan, transition, source):
    """Solves ``b_i = source_i + sum over children j of P_ij b_j``: leaves first."""
    return _solve(plan, transition, source, _upward_matvec, _upward_solve, _downward_solve)


def _push_forward(plan, transition, source):
    """Solves ``d_j = source_j + d_i P_ij``, i the parent of j: the transposed system."""
    return _solve(plan, transition, source, _downward_matvec, _downward_solve, _upward_solve)


def _solve(plan, transition, source, matvec, solve, transposed_solve):
    """A linear system along the tree that JAX differentiates and transposes as such."""
    return lax.custom_linear_solve(
        functools.partial(matvec, plan, transition),
        source,
        solve=lambda _, rhs: solve(plan, transition, rhs),
        transpose_solve=lambda _, rhs: transposed_solve(plan, transition, rhs),
    )


def _upward_matvec(plan, transition, b):
    messages = jnp.sum(transition * b[plan.child][:, None, :], axis=-1)
    return b.at[plan.parent].add(-messages)


def _downward_matvec(plan, transition, d):
    messages = jnp.sum(transition * d[plan.parent][:, :, None], axis=1)
    return d.at[plan.child].add(-messages)


def _upward_solve(plan, transition, source):
    def step(b, chunk):
        messages = jnp.sum(_rows(transition, chunk) * b[chunk.child][:, None, :], axis=-1)
        return b.at[chunk.parent].add(jnp.where(chunk.real, messages, 0.0)), None

    return _up(plan, step, _with_dummy(source))[0][:-1]


def _downward_solve(plan, transition, source):
    def step(d, chunk):
        messages = jnp.sum(_rows(transition, chunk) * d[chunk.parent][:, :, None], axis=1)
        return d.at[chunk.child].add(jnp.where(chunk.real, messages, 0.0)), None

    return _down(plan, step, _with_dummy(source))[0][:-1]


def _up(plan, step, carry):
    """Scans the chunks of edges, deepest first; what the steps return comes by edge."""
    carry, outputs = lax.scan(step, carry, plan.chunks)
    by_edge = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[plan.position], outputs)
    return carry, by_edge


def _down(plan, step, carry):
    """Scans the chunks of edges, those at the roots first."""
    return lax.scan(step, carry, plan.chunks, reverse=True)


def _rows(tables, chunk):
    """The chunk's tables [W, L, L], anything for edge E; without edges too, which is traced."""
    if not tables.shape[0]:
        return jnp.zeros((*chunk.edge.shape, *tables.shape[1:]), tables.dtype)
    return tables.at[chunk.edge].get(mode="clip")


def _with_dummy(array):
    return jnp.concatenate([array, jnp.zeros_like(array[:1])])


def _flipped(plan, tables):
    """From the factors' order of axes to (parent, child), or back."""
    return jnp.where(plan.flip[:, None, None], tables.swapaxes(1, 2), tables)


def _prepare(graph, unary, factors, temperature):
    """The plan, and the potentials over the temperature, the tables parent by child."""
    plan = forest.plan(graph)
    unary, tables = graphs.pairwise_potentials(graph, unary, factors)
    scaled = numerics.scale(_flipped(plan, tables), temperature)
    return plan, numerics.scale(unary, temperature), scaled
