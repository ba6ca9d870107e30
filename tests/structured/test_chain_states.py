"""The functions of a chain that return states: argmax, top_k, sample; and score, log_prob, KL."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain
from tests.laws.oracle import Chains, features, flatten, sequences, split, total_scores
from tests.laws.random_chains import random_chains

SHAPES = [(1, 3), (3, 1), (5, 3)]
BATCH = 400

batched_top_k = jax.jit(
    jax.vmap(lambda u, w, n, k: chain.top_k(u, w, k, length=n), in_axes=(0, 0, 0, None)),
    static_argnums=3,
)
batched_argmax = jax.jit(jax.vmap(lambda u, w, n: chain.argmax(u, w, length=n)))
batched_score = jax.jit(
    jax.vmap(jax.vmap(lambda x, u, w, n: chain.score(x, u, w, length=n), (0, None, None, None)))
)


def instances(seed, num_variables, num_states, batch=BATCH, dtype=np.float32):
    rng = np.random.default_rng(seed)
    unary, pairwise = random_chains(rng, batch, num_variables, num_states, dtype=dtype)
    return unary, pairwise, rng.integers(1, num_variables + 1, size=batch)


def integers(seed, num_variables, num_states, batch=BATCH):
    """Scores 0, 1, 2 and -inf: sums are exact, and ties abound."""
    rng = np.random.default_rng(seed)
    shapes = (batch, num_variables, num_states), (batch, num_variables - 1, num_states, num_states)
    choices = np.array([0, 1, 2, -np.inf], np.float32)
    unary, pairwise = (rng.choice(choices, p=[0.4, 0.3, 0.2, 0.1], size=s) for s in shapes)
    return unary, pairwise, rng.integers(1, num_variables + 1, size=batch)


@pytest.mark.parametrize("shape", SHAPES)
def test_argmax_is_the_best_sequence(shape):
    unary, pairwise, length = instances(0, *shape)
    oracle = Chains(unary, pairwise, 1.0, length)
    states, scores = batched_argmax(unary, pairwise, length)
    np.testing.assert_array_equal(states, oracle.argmax())
    np.testing.assert_allclose(scores, oracle.best_scores(1)[:, 0], atol=5e-6)
    assert np.isneginf(scores).any()


def test_argmax_takes_the_first_of_equals():
    unary, pairwise, length = integers(1, 5, 3)
    oracle = Chains(unary, pairwise, 1.0, length)
    states, scores = batched_argmax(unary, pairwise, length)
    best = oracle.best_scores(2)
    assert np.mean((best[:, 0] == best[:, 1]) & np.isfinite(best[:, 0])) > 0.3
    np.testing.assert_array_equal(scores, best[:, 0])
    np.testing.assert_array_equal(states, oracle.argmax())


@pytest.mark.parametrize("k", [1, 4, 300])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ties", [False, True])
def test_top_k_are_the_best_sequences(shape, k, ties):
    """Also more than there are: 3^5 = 243 < 300."""
    unary, pairwise, length = (integers if ties else instances)(2, *shape, 100)
    states, scores = (np.asarray(x) for x in batched_top_k(unary, pairwise, length, k))
    wanted = Chains(unary, pairwise, 1.0, length).best_scores(k)
    np.testing.assert_allclose(scores, wanted, atol=0 if ties else 5e-6)
    # The states are those of the scores, distinct, and -1 in the padding or where there is none.
    exists = wanted > -np.inf
    used = exists[:, :, None] & (np.arange(shape[0]) < length[:, None, None])
    assert ((states >= 0) == used).all()
    # Scores of existing states; others are -inf by definition.
    given = np.asarray(batched_score(states, unary, pairwise, length))
    np.testing.assert_allclose(given, scores, atol=0 if ties else 5e-6)
    for row, real in zip(states, exists, strict=True):
        assert len(np.unique(row[real], axis=0)) == real.sum()


@pytest.mark.usefixtures("x64")
def test_top_k_and_argmax_in_float64():
    unary, pairwise, length = instances(3, 5, 3, 50, np.float64)
    oracle = Chains(unary, pairwise, 1.0, length)
    _, scores = batched_top_k(unary, pairwise, length, 4)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, oracle.best_scores(4), atol=1e-12)
    states, best = batched_argmax(unary, pairwise, length)
    np.testing.assert_allclose(best, oracle.best_scores(1)[:, 0], atol=1e-12)
    np.testing.assert_array_equal(states, oracle.argmax())


def test_top_k_of_one_is_argmax_and_huge_scores_keep_their_order():
    unary, pairwise, length = integers(4, 5, 3, 100)
    unary, pairwise = unary * 1e4, pairwise * 1e4
    states, scores = batched_top_k(unary, pairwise, length, 4)
    best_states, best_scores = batched_argmax(unary, pairwise, length)
    np.testing.assert_array_equal(states[:, 0], best_states)
    np.testing.assert_array_equal(scores[:, 0], best_scores)
    np.testing.assert_array_equal(scores, Chains(unary, pairwise, 1.0, length).best_scores(4))


def test_a_dead_end_with_a_huge_score_takes_no_digits_from_the_rest():
    """The best-looking starts lead nowhere: only the last column decides."""
    unary = np.zeros((4, 3), np.float32)
    unary[:3, 0] = 1e8
    pairwise = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    pairwise[0, 0] = pairwise[2, 0] = -np.inf
    pairwise[1, :, 0] = -np.inf
    pairwise[0, :, 0] = -np.inf
    oracle = Chains(unary[None], pairwise[None])
    _, scores = jax.jit(chain.top_k, static_argnums=2)(unary, pairwise, 8)
    np.testing.assert_allclose(scores, oracle.best_scores(8)[0], atol=5e-6)


def test_the_gradient_of_the_best_score_is_the_indicator_of_its_states():
    unary, pairwise, length = instances(5, 5, 3, 100)

    def value(u, w, n):
        return chain.argmax(u, w, length=n)[1]

    gradient = jax.jit(jax.vmap(jax.grad(value, argnums=(0, 1))))(unary, pairwise, length)
    oracle = Chains(unary, pairwise, 1.0, length)
    states = oracle.argmax()
    for i in range(100):
        wanted = np.zeros((5, 3)), np.zeros((4, 3, 3))
        if states[i, 0] >= 0:
            for j in range(length[i]):
                wanted[0][j, states[i, j]] = 1
            for j in range(length[i] - 1):
                wanted[1][j, states[i, j], states[i, j + 1]] = 1
            np.testing.assert_array_equal(gradient[0][i], wanted[0])
            np.testing.assert_array_equal(gradient[1][i], wanted[1])
    assert np.isfinite(gradient[0]).all() and np.isfinite(gradient[1]).all()


def test_score_of_every_sequence():
    unary, pairwise, length = instances(6, 4, 3, 30)
    length[:] = 3
    states = sequences(4, 3)
    scores = batched_score(np.broadcast_to(states, (30, *states.shape)), unary, pairwise, length)
    wanted = total_scores(flatten(unary, pairwise), features(4, 3, 3))
    np.testing.assert_allclose(scores, np.repeat(wanted, 3, axis=1), atol=5e-6)
    # What is no state has no score, what lies beyond the length does not matter.
    odd = np.array([[[0, 1, 2, 7], [0, -1, 2, 0], [0, 1, 3, 0]]] * 30)
    scores = np.asarray(batched_score(odd, unary, pairwise, length))
    np.testing.assert_allclose(scores[:, 0], wanted[:, 0 * 9 + 1 * 3 + 2], atol=5e-6)
    assert np.isneginf(scores[:, 1:]).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
def test_log_prob_is_a_distribution_with_the_score_functions_gradient(dtype, tolerance):
    unary, pairwise, length = instances(7, 3, 3, 60, dtype)
    length[:] = 3
    temperature = np.random.default_rng(8).uniform(0.5, 2, size=60).astype(dtype)
    states = sequences(3, 3)

    def log_prob(u, w, x, t):
        return chain.log_prob(x, u, w, temperature=t)

    run = jax.value_and_grad(log_prob, argnums=(0, 1))
    run = jax.jit(jax.vmap(jax.vmap(run, (None, None, 0, None)), (0, 0, None, 0)))
    with jax.enable_x64(dtype == np.float64):
        logs, gradients = jax.tree.map(np.asarray, run(unary, pairwise, states, temperature))
    oracle = Chains(unary, pairwise, temperature)
    scores = total_scores(oracle.flat, features(3, 3, 3))
    log_z = oracle.log_partition()
    possible = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        wanted = np.where(possible, scores / temperature[:, None] - log_z[:, None], -np.inf)
    np.testing.assert_allclose(logs, wanted, atol=tolerance)
    feasible = np.isfinite(log_z)
    assert 0 < feasible.sum() < 60
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), feasible, atol=tolerance)
    wanted = (features(3, 3, 3)[None] - oracle.marginals()[:, None]) / temperature[:, None, None]
    actual = np.concatenate([g.reshape(60, 27, -1) for g in gradients], axis=2)
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual[possible], wanted[possible], atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-10)])
@pytest.mark.parametrize("shape", [(1, 3), (4, 3)])
def test_kl_divergence(dtype, tolerance, shape):
    unary, pairwise, length = instances(9, *shape, 600, dtype)
    other_unary, other_pairwise, _ = instances(10, *shape, 600, dtype)
    # A third of the others forbids just what this chain forbids, so that many values are finite.
    same = np.arange(600) % 3 > 0
    for mine, others in ((unary, other_unary), (pairwise, other_pairwise)):
        finite = np.where(np.isneginf(others), 0.5, others)[same]
        others[same] = np.where(np.isneginf(mine[same]), -np.inf, finite)
    temperature = np.random.default_rng(11).uniform(0.5, 2, size=600).astype(dtype)

    def divergence(u, w, ou, ow, t, n):
        return chain.kl_divergence(u, w, ou, ow, temperature=t, length=n)

    run = jax.jit(jax.vmap(divergence))
    args = unary, pairwise, other_unary, other_pairwise, temperature, length
    with jax.enable_x64(dtype == np.float64):
        actual = np.asarray(run(*args))
        itself = np.asarray(run(unary, pairwise, unary, pairwise, temperature, length))
        slopes = jax.jit(jax.vmap(jax.grad(divergence, argnums=(0, 1, 2, 3))))(*args)
    p = Chains(unary, pairwise, temperature, length)
    wanted = p.kl_divergence(Chains(other_unary, other_pairwise, temperature, length))
    assert np.isinf(wanted).sum() > 50 and np.isfinite(wanted).sum() > 50
    np.testing.assert_allclose(actual, wanted, atol=tolerance, rtol=tolerance)
    np.testing.assert_array_equal(itself, 0)
    # d KL / d q = (marginals of q - marginals of p) / T
    q = Chains(other_unary, other_pairwise, temperature, length)
    gap = (q.marginals() - p.marginals()) / temperature[:, None]
    usable = np.isfinite(wanted) & np.isfinite(p.log_partition())
    assert usable.sum() > 50
    both = *split(p.kl_gradient(q)[usable], *shape), *split(gap[usable], *shape)
    for slope, want in zip(slopes, both, strict=True):
        np.testing.assert_allclose(np.asarray(slope)[usable], want, atol=2 * tolerance)


@functools.partial(jax.jit, static_argnames="num_samples")
def _sample(key, unary, pairwise, temperature, length, num_samples):
    return chain.sample(
        key, unary, pairwise, num_samples=num_samples, temperature=temperature, length=length
    )


def test_samples_follow_the_distribution_for_every_length():
    """Seeds 0..5, 50 000 samples: chi-square below its mean plus 5 standard deviations."""
    num_samples = 50_000
    unary, pairwise = random_chains(np.random.default_rng(12), 6, 3, 3, dtype=np.float32)
    feasible = np.isfinite(Chains(unary, pairwise).log_partition())
    assert feasible.sum() >= 4
    for i in np.flatnonzero(feasible):
        length = 1 + i % 3
        states = _sample(jax.random.key(i), unary[i], pairwise[i], 0.7, length, num_samples)
        states = np.asarray(states)
        assert (states[:, length:] == -1).all()
        phi = features(3, 3, length)
        scores = total_scores(flatten(unary[i : i + 1], pairwise[i : i + 1]), phi)[0] / 0.7
        p = np.exp(scores - scores.max())
        p /= p.sum()
        index = np.ravel_multi_index(tuple(states[:, :length].T), (3,) * length)
        counts = np.bincount(index, minlength=len(p))
        assert counts[p == 0].sum() == 0
        wanted = p * num_samples
        large = wanted >= 5
        counts, wanted = (np.append(x[large], x[~large].sum()) for x in (counts, wanted))
        freedom = max(1, large.sum() - 1 + (wanted[-1] > 0))
        chi_square = ((counts - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum()
        assert chi_square < freedom + 5 * np.sqrt(2 * freedom), (i, chi_square, freedom)


def test_a_forbidden_state_or_edge_is_never_drawn():
    """2 million draws from L = 16 states, of which every other one is forbidden, or nearly all."""
    rng = np.random.default_rng(13)
    unary = rng.normal(size=(4, 16)).astype(np.float32)
    unary[:, ::2] = -np.inf
    unary[1, 3:] = -np.inf
    unary[2, 12:] = -np.inf
    pairwise = rng.normal(size=(3, 16, 16)).astype(np.float32)
    pairwise[rng.random(pairwise.shape) < 0.3] = -np.inf
    pairwise[:, 1, 1] = 0.0
    states = np.asarray(_sample(jax.random.key(3), unary, pairwise, 1.0, 4, 500_000))
    assert np.isfinite(unary[np.arange(4), states]).all()
    assert np.isfinite(pairwise[np.arange(3), states[:, :-1], states[:, 1:]]).all()
    assert len(np.unique(states[:, 0])) >= 5


def test_an_infeasible_chain_has_no_samples():
    unary, pairwise = np.zeros((3, 2), np.float32), np.full((2, 2, 2), -np.inf, np.float32)
    assert (_sample(jax.random.key(0), unary, pairwise, 1.0, 3, 5) == -1).all()
    assert (_sample(jax.random.key(0), unary, pairwise, 1.0, 1, 5)[:, 0] >= 0).all()


def test_samples_depend_on_the_key_alone():
    unary, pairwise = jnp.zeros((6, 4)), jnp.zeros((5, 4, 4))
    a, b, c = (_sample(jax.random.key(k), unary, pairwise, 1.0, 6, 50) for k in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert len(np.unique(a, axis=0)) == 50
