"""What a distribution over a discrete structure must obey, whatever the structure.

A structure joins by one :class:`Structure` with its hooks; :mod:`tests.laws.test_structure_laws`
holds the list. Each law takes a structure, runs in float64 on a batch of random potentials, and
knows of the model only the hooks and the enumeration of its configurations.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

BATCH = 24


@dataclasses.dataclass(frozen=True)
class Structure:
    """The hooks. ``potentials`` is a pytree of scores; marginals come in a pytree of equal shapes.

    Attributes:
      name: for the test's id.
      num_states: the number of states of each variable; their product is small.
      random_potentials: ``(numpy Generator, forbid) -> potentials``, float64 numpy, always of the
        same shapes; with ``forbid`` some scores are ``-inf``.
      infeasible_potentials: ``(numpy Generator) -> potentials`` that forbid every configuration.
      score: ``(states, potentials) -> scalar``, linear in the potentials.
      log_partition, marginals, entropy: ``(potentials, temperature) -> ...``.
      argmax: ``potentials -> (states, score)``.
      sample: ``(key, potentials, temperature, num_samples) -> states [num_samples, N]``.
      unary_marginals: ``marginals -> [N, L]``.
      consistency: ``marginals -> [(a, b), ...]``, arrays that must be equal.
      alternatives: name -> another algorithm for ``marginals``.
    """

    name: str
    num_states: tuple[int, ...]
    random_potentials: Callable[[np.random.Generator, bool], Any]
    infeasible_potentials: Callable[[np.random.Generator], Any]
    score: Callable
    log_partition: Callable
    marginals: Callable
    entropy: Callable
    argmax: Callable
    sample: Callable
    unary_marginals: Callable
    consistency: Callable
    alternatives: tuple[tuple[str, Callable], ...] = ()

    def __repr__(self):
        return self.name


def batch_of(structure, seed, *, forbid=True, size=BATCH):
    """Random potentials, stacked: every second one has forbidden scores, if ``forbid``."""
    rng = np.random.default_rng(seed)
    each = [structure.random_potentials(rng, forbid and i % 2 == 1) for i in range(size)]
    return jax.tree.map(lambda *x: np.stack(x), *each)


def directions(structure, seed, size=BATCH):
    """Random pytrees shaped as the potentials, stacked."""
    rng = np.random.default_rng(seed)
    shapes = structure.random_potentials(rng, False)
    return jax.tree.map(lambda x: rng.normal(size=(size, *np.shape(x))), shapes)


def temperatures(seed, size=BATCH):
    return np.random.default_rng(seed).uniform(0.4, 2.5, size=size)


def dot(a, b):
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def one(batch, i=0):
    return jax.tree.map(lambda x: x[i], batch)


def assert_close(actual, wanted, tolerance=1e-10):
    def check(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    jax.tree.map(check, actual, wanted)


@functools.cache
def configurations(num_states):
    return np.indices(num_states).reshape(len(num_states), -1).T


@functools.cache
def statistics(structure):
    """The derivative of each configuration's score in the potentials: [S, D], zeros and ones."""
    states = jnp.asarray(configurations(structure.num_states))
    zeros = jax.tree.map(
        np.zeros_like, structure.random_potentials(np.random.default_rng(0), False)
    )
    gradient = jax.grad(structure.score, argnums=1)
    return np.asarray(jax.jit(jax.vmap(lambda x: ravel_pytree(gradient(x, zeros))[0]))(states))


def enumerate_probabilities(structure, potentials, temperature):
    """Scores and probabilities of all configurations, [B, S] each, and log Z, [B]; in numpy."""
    flat = np.stack([ravel_pytree(one(potentials, i))[0] for i in range(len(temperature))])
    phi = statistics(structure)
    forbidden = np.isneginf(flat).astype(float) @ phi.T > 0
    scores = np.where(forbidden, -np.inf, np.where(np.isneginf(flat), 0.0, flat) @ phi.T)
    scaled = scores / temperature[:, None]
    top = scaled.max(axis=1, keepdims=True)
    weight = np.exp(scaled - top)
    log_z = np.log(weight.sum(axis=1)) + top[:, 0]
    return scores, weight / weight.sum(axis=1, keepdims=True), log_z


def flat_batch(tree):
    """A stacked pytree as a matrix [B, D], in the order of ravel_pytree."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


# --- The laws ---


def law_values_equal_enumeration(structure):
    potentials, temperature = batch_of(structure, 1), temperatures(2)
    _, p, log_z = enumerate_probabilities(structure, potentials, temperature)
    run = jax.jit(
        jax.vmap(lambda u, t: [f(u, t) for f in (structure.log_partition, structure.marginals)])
    )
    actual_log_z, marginals = run(potentials, temperature)
    assert_close(actual_log_z, log_z)
    assert_close(flat_batch(marginals), p @ statistics(structure))


def law_marginals_are_consistent(structure):
    marginals = jax.jit(jax.vmap(structure.marginals))(batch_of(structure, 3), temperatures(4))
    unary = np.asarray(jax.vmap(structure.unary_marginals)(marginals))
    assert unary.shape[1] == len(structure.num_states)
    assert_close(unary.sum(axis=-1), np.ones(unary.shape[:2]))
    assert all(np.min(x) >= 0 for x in jax.tree.leaves(marginals))
    pairs = jax.vmap(structure.consistency)(marginals)
    assert len(pairs) > 0
    for a, b in pairs:
        assert_close(a, b)


def law_algorithms_agree(structure):
    potentials, temperature = batch_of(structure, 5), temperatures(6)
    wanted = jax.jit(jax.vmap(structure.marginals))(potentials, temperature)
    assert structure.alternatives
    for _, other in structure.alternatives:
        assert_close(jax.jit(jax.vmap(other))(potentials, temperature), wanted)


def law_gradient_and_hessian(structure):
    """d log Z = marginals / T; d marginals = T d^2 log Z = covariance / T, symmetric, PSD."""
    potentials, temperature = batch_of(structure, 7), temperatures(8)
    gradient = jax.grad(structure.log_partition)

    @jax.jit
    @jax.vmap
    def run(u, t):
        flat, restore = ravel_pytree(u)

        def of(function):
            return lambda x: ravel_pytree(function(restore(x), t))[0]

        return (
            of(gradient)(flat),
            jax.jacfwd(of(gradient))(flat),
            of(structure.marginals)(flat),
            jax.jacrev(of(structure.marginals))(flat),
        )

    slope, hessian, marginals, jacobian = (np.asarray(x) for x in run(potentials, temperature))
    t = temperature[:, None]
    assert_close(slope, marginals / t)
    assert_close(hessian, hessian.swapaxes(1, 2))
    assert_close(jacobian, hessian * t[:, None])
    assert np.linalg.eigvalsh(hessian).min() > -1e-10
    _, p, _ = enumerate_probabilities(structure, potentials, temperature)
    phi = statistics(structure)
    mean = p @ phi
    covariance = np.einsum("bs,si,sj->bij", p, phi, phi, optimize=True)
    covariance -= mean[:, :, None] * mean[:, None, :]
    assert_close(jacobian, covariance / t[:, None])


def law_score_function_has_mean_zero(structure):
    """sum_x p(x) = 1 and E[d log p(x)] = 0, with the structure's own p."""
    potentials, temperature = batch_of(structure, 9), temperatures(10)
    states = jnp.asarray(configurations(structure.num_states))

    @jax.jit
    @jax.vmap
    def run(u, t):
        def log_prob(u, x):
            return structure.score(x, u) / t - structure.log_partition(u, t)

        p = jnp.exp(jax.vmap(log_prob, (None, 0))(u, states))
        gradients = jax.vmap(jax.grad(log_prob), (None, 0))(u, states)
        return jnp.sum(p), jax.tree.map(lambda g: jnp.tensordot(p, g, 1), gradients)

    total, mean = run(potentials, temperature)
    assert_close(total, np.ones(BATCH))
    assert_close(mean, jax.tree.map(np.zeros_like, mean))


def law_entropy(structure):
    potentials, temperature = batch_of(structure, 11), temperatures(12)
    _, p, _ = enumerate_probabilities(structure, potentials, temperature)
    wanted = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    assert_close(jax.jit(jax.vmap(structure.entropy))(potentials, temperature), wanted)


def law_argmax_is_the_best(structure):
    potentials = batch_of(structure, 13)
    scores, _, _ = enumerate_probabilities(structure, potentials, np.ones(BATCH))
    states, best = jax.jit(jax.vmap(structure.argmax))(potentials)
    assert_close(best, scores.max(axis=1))
    assert_close(np.asarray(states), configurations(structure.num_states)[scores.argmax(axis=1)])


def law_samples_follow_the_distribution(structure):
    """Seed 15, 40 000 samples: chi-square below its mean plus 5 standard deviations."""
    num_samples = 40_000
    potentials, temperature = batch_of(structure, 14, size=4), temperatures(14, 4)
    _, p, _ = enumerate_probabilities(structure, potentials, temperature)
    keys = jax.random.split(jax.random.key(15), 4)
    run = jax.jit(jax.vmap(functools.partial(structure.sample, num_samples=num_samples)))
    samples = np.asarray(run(keys, potentials, temperature))
    for i in range(4):
        index = np.ravel_multi_index(tuple(samples[i].T), structure.num_states)
        counts = np.bincount(index, minlength=p.shape[1])
        assert counts[p[i] == 0].sum() == 0
        wanted = p[i] * num_samples
        large = wanted >= 5
        counts = np.append(counts[large], counts[~large].sum())
        wanted = np.append(wanted[large], wanted[~large].sum())
        chi_square = ((counts - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum()
        freedom = len(wanted) - 1
        assert freedom >= 5
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom)
        # The total variation of n samples over K cells has a mean of at most sqrt(K / n) / 2.
        distance = np.abs(counts - wanted).sum() / (2 * num_samples)
        assert distance < np.sqrt(len(wanted) / num_samples)


def law_jit_and_vmap_change_nothing(structure):
    potentials, temperature = batch_of(structure, 16, size=3), temperatures(17, 3)
    weights = one(directions(structure, 18))

    def run(u, t):
        def value(u):
            marginals = structure.marginals(u, t)
            return dot(marginals, weights), marginals

        return jax.value_and_grad(value, has_aux=True)(u)

    compiled = jax.jit(run)
    assert_close(compiled(one(potentials), temperature[0]), run(one(potentials), temperature[0]))
    loop = [compiled(one(potentials, i), temperature[i]) for i in range(3)]
    wanted = jax.tree.map(lambda *x: np.stack(x), *loop)
    assert_close(jax.jit(jax.vmap(run))(potentials, temperature), wanted)


def law_forward_and_reverse_mode_agree(structure):
    """<w, J v> = <v, J^T w>, and J is symmetric: <w, J v> = <v, J w>."""
    potentials, temperature = batch_of(structure, 19), temperatures(20)

    @jax.jit
    @jax.vmap
    def run(u, t, v, w):
        def marginals(u):
            return structure.marginals(u, t)

        forward = dot(w, jax.jvp(marginals, (u,), (v,))[1])
        swapped = dot(v, jax.jvp(marginals, (u,), (w,))[1])
        reverse = dot(v, jax.vjp(marginals, u)[1](w)[0])
        return forward, swapped, reverse

    forward, swapped, reverse = run(
        potentials, temperature, directions(structure, 21), directions(structure, 22)
    )
    assert np.abs(forward).max() > 0.1
    assert_close(forward, reverse)
    assert_close(forward, swapped)


def law_derivatives_equal_finite_differences(structure):
    """First and second derivatives of <marginals, w> along v, and the first in temperature."""
    potentials, temperature = batch_of(structure, 23), temperatures(24)
    step = 1e-5

    @jax.jit
    @jax.vmap
    def run(u, t, v, w):
        def value(u, t):
            return dot(structure.marginals(u, t), w)

        def slope(u):
            return dot(jax.grad(value)(u, t), v)

        def nearby(h):
            moved = jax.tree.map(lambda a, b: a + h * b, u, v)
            return value(moved, t), slope(moved), value(u, t + h)

        below, above = (one(jax.vmap(nearby)(jnp.array([-step, step])), i) for i in range(2))
        difference = jax.tree.map(lambda a, b: (b - a) / (2 * step), below, above)
        second = jax.jvp(slope, (u,), (v,))[1]
        in_potentials, in_temperature = jax.grad(value, argnums=(0, 1))(u, t)
        return (dot(in_potentials, v), second, in_temperature), difference

    actual, wanted = run(
        potentials, temperature, directions(structure, 25), directions(structure, 26)
    )
    assert all(np.abs(x).max() > 0.1 for x in actual)
    # The error of a central difference: step^2 times a third derivative, which grows as 1 / T^3,
    # and rounding over the step.
    assert_close(actual, wanted, tolerance=1e-6)


def law_compiles_once_in_ten_calls(structure):
    traces = []

    @jax.jit
    def run(u, t):
        traces.append(1)
        return jax.grad(lambda u: dot(structure.marginals(u, t), structure.marginals(u, t)))(u)

    potentials, temperature = batch_of(structure, 27), temperatures(28)
    for i in range(10):
        run(one(potentials, i), temperature[i])
    assert len(traces) == 1


def law_minus_infinity_is_honest(structure):
    """Forbidden: exactly 0, in values and both derivatives. Infeasible: zeros and no NaN."""
    forbidden = batch_of(structure, 29)
    rng = np.random.default_rng(30)
    nothing = [structure.infeasible_potentials(rng) for _ in range(BATCH)]
    nothing = jax.tree.map(lambda *x: np.stack(x), *nothing)

    @jax.jit
    @jax.vmap
    def run(u, t, v, w):
        def slope(u):
            gradient = jax.grad(lambda u: dot(structure.marginals(u, t), w))(u)
            return dot(gradient, v), gradient

        second, gradient = jax.grad(slope, has_aux=True)(u)
        log_z, log_z_gradient = jax.value_and_grad(structure.log_partition)(u, t)
        return log_z, (structure.marginals(u, t), gradient, second, log_z_gradient)

    weights = directions(structure, 31), directions(structure, 32)
    log_z, trees = run(forbidden, temperatures(33), *weights)
    assert np.isfinite(log_z).all()
    impossible = np.isneginf(flat_batch(forbidden))
    assert impossible.any()
    for tree in trees:
        values = flat_batch(tree)
        assert np.isfinite(values).all()
        assert (values[impossible] == 0).all()
        assert np.abs(values).max() > 0.1
    log_z, trees = run(nothing, temperatures(34), *weights)
    assert np.isneginf(log_z).all()
    for tree in trees:
        assert (flat_batch(tree) == 0).all()


def law_temperature_divides_the_potentials(structure):
    potentials, temperature = batch_of(structure, 35), temperatures(36)

    @jax.jit
    @jax.vmap
    def run(u, t):
        cooled = jax.tree.map(lambda x: x / t, u)
        functions = structure.log_partition, structure.marginals, structure.entropy
        return [f(u, t) for f in functions], [f(cooled, 1.0) for f in functions]

    actual, wanted = run(potentials, temperature)
    assert_close(actual, wanted)


LAWS = tuple(law for name, law in sorted(globals().items()) if name.startswith("law_"))
