"""A chain at realistic sizes and at the edges of float32, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.structured import chain, markov
from tests.compiling import FULLY


@functools.partial(jax.jit, compiler_options=FULLY)
@jax.vmap
def values_and_gradients(unary, pairwise, temperature, w_unary, w_pairwise):
    def value(unary, pairwise):
        m = chain.marginals(unary, pairwise, temperature=temperature)
        return jnp.sum(m.unary * w_unary) + jnp.sum(m.pairwise * w_pairwise), m

    gradient, m = jax.grad(value, argnums=(0, 1), has_aux=True)(unary, pairwise)
    return m, gradient


def in_both(unary, pairwise, temperature, w_unary, w_pairwise):
    """The same function on the same numbers in float32 and in float64."""
    args = unary, pairwise, np.full(len(unary), temperature), w_unary, w_pairwise
    args = [np.asarray(x, np.float32) for x in args]
    single = jax.tree.map(np.asarray, values_and_gradients(*args))
    with jax.enable_x64(True):
        double = values_and_gradients(*(x.astype(np.float64) for x in args))
        return single, jax.tree.map(np.asarray, double)


def worst(single, double):
    return max(
        np.max(np.abs(a - b), initial=0.0)
        for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(double), strict=True)
    )


def normal(seed, batch, num_variables, num_states):
    rng = np.random.default_rng(seed)
    shapes = (batch, num_variables, num_states), (batch, num_variables - 1, num_states, num_states)
    return [rng.normal(size=s) for s in (*shapes, *shapes)]


def test_float32_equals_float64_at_size():
    """Batch 64, N 128, L 32, standard normal scores and weights."""
    unary, pairwise, w_unary, w_pairwise = normal(0, 64, 128, 32)
    single, double = in_both(unary, pairwise, 1.0, w_unary, w_pairwise)
    assert worst(single[0][1:], double[0][1:]) <= 5e-6  # marginals
    assert worst(single[1], double[1]) <= 5e-6  # gradients
    np.testing.assert_allclose(single[0].log_partition, double[0].log_partition, rtol=1e-6)
    assert np.abs(double[1][0]).max() > 0.1


def test_a_long_chain_in_float32():
    """N = 512, with forbidden states; the weights' sum is random walk of 1023 steps."""
    unary, pairwise, w_unary, w_pairwise = normal(1, 8, 512, 3)
    unary[:, 100, 1] = pairwise[:, 200, 0, 0] = -np.inf
    single, double = in_both(2 * unary, 2 * pairwise, 1.0, w_unary, w_pairwise)
    assert worst(single[0][1:], double[0][1:]) <= 5e-6
    assert worst(single[1], double[1]) <= 1e-5
    m = single[0]
    np.testing.assert_allclose(m.log_partition, double[0].log_partition, rtol=1e-6)
    np.testing.assert_allclose(m.unary.sum(-1), 1, atol=2e-6)
    assert (m.unary[:, 100, 1] == 0).all() and (single[1][0][:, 100, 1] == 0).all()
    assert (m.pairwise[:, 200, 0, 0] == 0).all() and (single[1][1][:, 200, 0, 0] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0**-10])
@pytest.mark.parametrize("scale", [1, 10_000])
def test_long_chains_with_huge_scores_and_low_temperatures(scale, temperature):
    """N = 512. A marginal may err by the rounding of one score over the temperature, no more."""
    unary, pairwise, w_unary, w_pairwise = normal(1, 8, 512, 3)
    unary, pairwise = np.round(3 * unary) * scale, np.round(3 * pairwise) * scale
    unary[:, 100, 1] = pairwise[:, 200, 0, 0] = -np.inf
    single, double = in_both(unary, pairwise, temperature, w_unary, w_pairwise)
    rounding = np.finfo(np.float32).eps * 10 * scale / temperature  # scores are below 13 * scale
    assert worst(single[0][1:], double[0][1:]) <= max(5e-6, 2 * rounding)
    for m, gradient in (single, double):
        assert all(np.isfinite(g).all() for g in gradient)
        assert min(m.unary.min(), m.pairwise.min()) >= 0
        np.testing.assert_allclose(m.unary.sum(-1), 1, atol=2e-6)
        np.testing.assert_allclose(m.pairwise.sum(-1), m.unary[:, :-1], atol=2e-6)
        np.testing.assert_allclose(m.pairwise.sum(-2), m.unary[:, 1:], atol=2e-6)
        np.testing.assert_allclose(m.log_partition, double[0].log_partition, rtol=1e-6)
    # Where float64 is sure of a state, so is float32: ties aside, nothing is left to rounding.
    sure = double[0].unary > 0.999999
    if rounding < 0.1:
        assert single[0].unary[sure].min() > 0.99
        assert sure.any(axis=-1).mean() > 0.01


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e7])
def test_a_common_offset_of_the_scores_costs_no_digits(offset):
    """Every row of transitions must sum to one: over 512 steps an error grows as a power."""
    rng = np.random.default_rng(6)
    *_, w_unary, w_pairwise = normal(1, 1, 512, 3)
    unary = offset + rng.integers(-2, 3, size=(1, 512, 3))
    pairwise = np.zeros((1, 511, 3, 3))
    single, double = in_both(unary, pairwise, 1.0, w_unary, w_pairwise)
    assert worst(single[0][1:], double[0][1:]) <= 5e-6
    assert worst(single[1], double[1]) <= 5e-6


def test_scores_that_float32_cannot_hold_exactly_stay_probabilities():
    """Uniform scores in ±1e4 at temperature 1e-3: 1e7 after division; only rounding may differ."""
    rng = np.random.default_rng(2)
    unary, pairwise, w_unary, w_pairwise = normal(3, 8, 512, 3)
    unary, pairwise = (rng.uniform(-1e4, 1e4, size=x.shape) for x in (unary, pairwise))
    single, _ = in_both(unary, pairwise, 1e-3, w_unary, w_pairwise)
    for x in jax.tree.leaves(single):
        assert np.isfinite(x).all()
    m = single[0]
    assert min(m.unary.min(), m.pairwise.min()) >= 0
    np.testing.assert_allclose(m.unary.sum(-1), 1, atol=2e-6)
    np.testing.assert_allclose(m.pairwise.sum((-1, -2)), 1, atol=2e-6)
    # The best path has a margin of thousands: the marginals are its indicator.
    states, _ = jax.jit(jax.vmap(chain.argmax))(*(jnp.float32(x) for x in (unary, pairwise)))
    one_hot = np.asarray(states)[..., None] == np.arange(3)
    assert np.mean(np.abs(m.unary - one_hot).max((-1, -2)) < 1e-3) == 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_message_may_underflow_every_probability(mirrored):
    """State 1 starts 300 nats behind and wins at the end: as a probability its message is 0."""
    n = 12
    unary = np.zeros((1, n, 2))
    unary[0, 0] = [0.0, -300.0]
    unary[0, -1] = [-301.0, 0.0]
    pairwise = np.tile(np.where(np.eye(2) > 0, 0.0, -np.inf), (1, n - 1, 1, 1))
    if mirrored:
        unary, pairwise = unary[:, ::-1], pairwise[:, ::-1].swapaxes(2, 3)
    w_unary = np.zeros_like(unary)
    w_unary[0, 5, 1] = 1.0
    single, _ = in_both(unary, pairwise, 1.0, w_unary, np.zeros_like(pairwise))
    m, gradient = single
    p = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(m.unary[0, :, 1], p, rtol=1e-5)
    np.testing.assert_allclose(m.log_partition[0], -300 + np.log1p(np.exp(-1.0)), rtol=1e-6)
    np.testing.assert_allclose(gradient[0][0, :, 1], p * (1 - p), rtol=1e-4)


def test_scores_far_apart_at_every_step():
    """200 nats between neighbours' states, alternating, 512 steps: a sure path, found exactly."""
    unary = np.zeros((1, 512, 2))
    unary[0, ::2, 0] = unary[0, 1::2, 1] = 200.0
    pairwise = np.zeros((1, 511, 2, 2))
    pairwise[0, :, [0, 1], [0, 1]] = 199.0  # to stay costs as much as it gains, but for one nat
    single, double = in_both(unary, pairwise, 1.0, unary / 200, pairwise / 199)
    assert worst(single[0][1:], double[0][1:]) <= 1e-4  # 399 rounds to 1.5e-5, a few times over
    assert worst(single[1], double[1]) <= 5e-6
    np.testing.assert_allclose(single[0].unary.sum(-1), 1, atol=1e-6)


@pytest.mark.slow
def test_traced_lengths_compile_once_and_equal_shorter_chains():
    unary, pairwise, *_ = normal(4, 1, 6, 3)
    unary, pairwise = np.float32(unary[0]), np.float32(pairwise[0])
    traces = []

    @jax.jit
    def run(length, temperature):
        traces.append(1)
        return chain.marginals(unary, pairwise, length=length, temperature=temperature)

    batched = jax.vmap(run, (0, None))(jnp.arange(1, 7), 0.5)
    traces.clear()
    for length in range(1, 7):
        m = run(length, 0.5)
        for a, b in zip(m, batched, strict=True):
            np.testing.assert_allclose(a, b[length - 1], atol=1e-6)
        assert (m.unary[length:] == 0).all() and (m.pairwise[length - 1 :] == 0).all()
        np.testing.assert_allclose(m.unary[:length].sum(-1), 1, atol=1e-6)
    assert len(traces) == 1
    short = jax.jit(chain.marginals)(unary[:3], pairwise[:2], temperature=0.5)
    m = run(3, 0.5)
    np.testing.assert_allclose(m.log_partition, short.log_partition, atol=1e-6)
    np.testing.assert_allclose(m.unary[:3], short.unary, atol=1e-6)
    np.testing.assert_allclose(m.pairwise[:2], short.pairwise, atol=1e-6)


def test_the_derivative_in_temperature_with_forbidden_scores():
    unary, pairwise, *_ = normal(5, 1, 4, 3)
    unary, pairwise = unary[0], pairwise[0]
    unary[1, 2] = pairwise[2, 0, 1] = -np.inf
    with jax.enable_x64(True):

        def values(t):
            options = {"temperature": t}
            m = chain.marginals(unary, pairwise, **options)
            return jnp.stack(
                [
                    m.log_partition,
                    m.unary[0, 0],
                    m.pairwise[1, 0, 0],
                    chain.entropy(unary, pairwise, **options),
                    chain.covariance(unary, pairwise, **options).unary_unary[0, 0, 3, 0],
                ]
            )

        values = jax.jit(values)
        slope = jax.jit(jax.jacfwd(values))(0.7)
        numeric = (values(0.7 + 1e-6) - values(0.7 - 1e-6)) / 2e-6
        assert np.abs(slope).min() > 1e-6
        np.testing.assert_allclose(slope, numeric, atol=1e-7, rtol=1e-6)


def _temporary_bytes(infer, num_variables):
    num_states, batch = 8, 4

    def value(unary, pairwise):
        m = infer(unary, pairwise, None)
        return jnp.sum(m.unary**2) + jnp.sum(m.pairwise**2)

    shapes = (batch, num_variables, num_states), (batch, num_variables - 1, num_states, num_states)
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    lowered = jax.jit(jax.vmap(jax.grad(value, argnums=(0, 1)))).lower(*arguments)
    return lowered.compile(FULLY).memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_of_the_gradient():
    """Less than autodiff through the recursion keeps, and linear in N."""
    ours = functools.partial(_temporary_bytes, markov.infer)
    small, double, autodiff = ours(64), ours(128), _temporary_bytes(markov.infer.__wrapped__, 128)
    assert small > 0
    assert double < autodiff
    assert double < 2.3 * small


@pytest.mark.slow
def test_log_probabilities_of_large_scores_are_those_of_float64():
    rng = np.random.default_rng(5)
    unary, pairwise = rng.uniform(-1e4, 1e4, (512, 3)), rng.uniform(-1e4, 1e4, (511, 3, 3))
    narrow = jnp.float32(unary), jnp.float32(pairwise)
    wide = [np.asarray(x, np.float64) for x in narrow]
    for temperature in (1.0, 1e-3):
        states = chain.top_k(*narrow, 2)[0]

        def of(x, states=states, temperature=temperature):
            return jax.vmap(lambda s: chain.log_prob(s, *x, temperature=temperature))(states)

        with jax.enable_x64(True):
            exact = np.asarray(of([jnp.asarray(x) for x in wide]))
        got = of(narrow)
        assert np.all(got <= 0)
        np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1e4, 1e7])
def test_entropy_and_divergence_do_not_feel_a_constant_in_the_scores(offset):
    unary = jnp.float32(np.random.default_rng(6).integers(-3, 4, (4, 3)))
    pairwise, shifted = jnp.zeros((3, 3, 3)), unary + jnp.float32(offset)
    assert jnp.all(shifted - jnp.float32(offset) == unary)  # else the input has lost it already
    args = (jnp.zeros((4, 3)) + jnp.float32(offset), pairwise)
    np.testing.assert_allclose(
        chain.entropy(shifted, pairwise), chain.entropy(unary, pairwise), rtol=1e-6
    )
    np.testing.assert_allclose(
        chain.kl_divergence(shifted, pairwise, *args),
        chain.kl_divergence(unary, pairwise, jnp.zeros((4, 3)), pairwise),
        rtol=1e-6,
    )
