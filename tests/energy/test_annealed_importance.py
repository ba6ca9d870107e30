"""Annealed importance sampling against exact partition functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import annealed_importance as ais
from gasn_jax.energy import rbm as rbms
from tests.compiling import FULLY
from tests.energy import machines

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def estimates(params, rbm, *, num_chains, num_steps, key=KEY):
    path = ais.rbm_path(params, rbm)
    betas = jnp.linspace(0.0, 1.0, num_steps + 1)
    keys = jax.random.split(key, num_chains)
    log_weights, _ = jax.vmap(lambda k: ais.forward(k, path, betas))(keys)
    return log_weights, ais.estimate(log_weights, path.log_partition)


@pytest.mark.parametrize(("visible", "hidden"), machines.KINDS)
def test_the_start_of_the_path_is_normalised(visible, hidden):
    params, rbm = machines.machine(visible, hidden)
    path = ais.rbm_path(params, rbm, base_visible_bias=0.5 * params["visible_bias"])
    base = {
        "weights": np.zeros((4, 3)),
        "visible_bias": 0.5 * params["visible_bias"],
        "hidden_bias": np.zeros(3),
    }
    np.testing.assert_allclose(path.log_partition, rbms.log_partition(base, rbm), rtol=1e-12)
    v = path.sample(KEY)
    for beta, ends in ((0.0, base), (1.0, params)):
        got = path.log_density(v, jnp.asarray(beta))
        np.testing.assert_allclose(got, -rbms.free_energy(ends, rbm, v), rtol=1e-12)


def standardised_errors(num_machines):
    """(estimate - exact) / standard error, of random machines of all kinds and of four scales."""

    def of_kind(visible, hidden, seeds):
        rbm = rbms.RBM(8, 6, visible, hidden)

        def one(seed, params):
            key = jax.random.fold_in(KEY, seed)
            _, estimate = estimates(params, rbm, num_chains=400, num_steps=100, key=key)
            exact = rbms.log_partition(params, rbm)
            return (estimate.log_partition - exact) / estimate.standard_error

        machine = [
            machines.machine(
                *(visible, hidden), num_visible=8, num_hidden=6, seed=s, scale=0.3 + 0.1 * (s % 4)
            )[0]
            for s in seeds
        ]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *machine)
        # a minute of arithmetic, which takes three where it is compiled lightly
        run = jax.jit(lambda x: jax.lax.map(lambda x: one(*x), x), compiler_options=FULLY)
        return run((jnp.asarray(seeds), stacked))

    parts = np.split(np.arange(num_machines), len(machines.DISCRETE))
    return np.concatenate(
        [of_kind(*kind, seeds) for kind, seeds in zip(machines.DISCRETE, parts, strict=True)]
    )


@pytest.mark.slow
def test_a_hundred_machines_lie_within_their_error_bars():
    """All within three, by this key; of normal errors, one of a hundred is beyond in a quarter of
    the draws."""
    errors = standardised_errors(100)
    assert np.max(np.abs(errors)) < 3
    assert 90 <= np.sum(np.abs(errors) < 1.96) <= 99
    assert abs(errors.mean()) < 0.3


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says():
    errors = standardised_errors(1500)
    assert 0.93 < np.mean(np.abs(errors) < 1.96) < 0.97
    assert np.mean(np.abs(errors) > 3) < 0.01


@pytest.mark.parametrize("visible", ["spin", "gaussian"])
def test_the_truth_lies_between_forward_and_reverse(visible):
    params, rbm = machines.machine(visible, "binary", num_visible=6, num_hidden=5)
    exact = rbms.log_partition(params, rbm)
    path = ais.rbm_path(params, rbm)
    betas = jnp.linspace(0.0, 1.0, 11)
    keys = jax.random.split(KEY, 3000)
    forward, _ = jax.jit(jax.vmap(lambda k: ais.forward(k, path, betas)))(keys)
    # Exact samples of the model: hidden states by enumeration, then visible ones given these.
    h = machines.configurations("binary", 5)
    log_p = -jax.vmap(lambda one: rbms.hidden_free_energy(params, rbm, one))(h)
    chosen = jax.random.categorical(KEY, log_p, shape=(3000,))
    v = jax.vmap(lambda k, one: rbms.sample_visible(k, params, rbm, one))(
        keys, jnp.asarray(h)[chosen]
    )
    backward, _ = jax.jit(jax.vmap(lambda k, one: ais.backward(k, path, one, betas)))(keys, v)
    # Each log-weight alone is below (above) in expectation, and their mean over many is right.
    below = path.log_partition + forward.mean()
    above = path.log_partition - backward.mean()
    assert below < exact < above
    for log_weights, reverse in ((forward, False), (backward, True)):
        result = ais.estimate(log_weights, path.log_partition, reverse=reverse)
        assert abs(result.log_partition - exact) < 4 * result.standard_error
        assert 100 < result.effective_sample_size < 3000


def test_error_bars_and_effective_sizes():
    same = ais.estimate(jnp.full(7, -800.0), jnp.asarray(2.0))
    assert same.log_partition == pytest.approx(-798) and same.standard_error == 0
    assert same.effective_sample_size == pytest.approx(7)
    lone = ais.estimate(jnp.array([0.0, -1000.0, -1000.0]), jnp.asarray(0.0))
    assert lone.log_partition == pytest.approx(-np.log(3))
    assert lone.effective_sample_size == pytest.approx(1) and lone.standard_error > 0.9
    assert not lone.reliable and not same.reliable
    assert ais.estimate(jnp.zeros(10), jnp.asarray(0.0)).reliable
    assert not ais.estimate(jnp.zeros(10).at[0].set(1.0), jnp.asarray(0.0)).reliable
    alone = ais.estimate(jnp.zeros(1), jnp.asarray(0.0))
    assert np.isnan(alone.standard_error) and not alone.reliable


@pytest.mark.parametrize("visible", ["spin", "binary", "gaussian"])
def test_base_rates_are_those_of_the_data(visible):
    rbm = rbms.RBM(3, 2, visible)
    rng = np.random.default_rng(0)
    on = rng.random((500, 3)) < np.array([0.1, 0.5, 0.0])
    data = on if visible != "spin" else 2.0 * on - 1
    means = rbms.mean(visible, ais.base_rates(rbm, jnp.asarray(data, float)))
    np.testing.assert_allclose(means, data.mean(0), atol=0.01)
    assert np.all(np.isfinite(ais.base_rates(rbm, jnp.asarray(data, float))))
    odd = jnp.asarray(data, float).at[3, 1].set(np.inf)
    assert np.any(np.isnan(ais.base_rates(rbm, odd)))
    for wrong in (odd[0], odd[:0], odd[:, :2]):
        with pytest.raises(ValueError, match=r"data must have shape \[M, 3\] with M >= 1, got \("):
            ais.base_rates(rbm, wrong)
    if visible != "gaussian":
        with pytest.raises(ValueError, match="smoothing: wanted > 0, got 0"):
            ais.base_rates(rbm, jnp.asarray(data, float), smoothing=0)


def test_held_out_likelihoods_are_those_of_enumeration():
    params, rbm = machines.machine("spin", "binary", num_visible=6, num_hidden=5)
    v = machines.configurations("spin", 6)
    exact = rbms.log_likelihood(params, rbm, jnp.asarray(v))
    evaluate = jax.jit(
        lambda key: ais.rbm_log_likelihood(
            key, params, rbm, jnp.asarray(v), num_chains=400, num_steps=100
        )
    )
    found = evaluate(KEY)
    low, high = found.interval()
    assert low < exact < high and high - low < 0.1 and found.reliable
    assert abs(found.reverse_log_likelihood - exact) < 0.2
    lower, upper = found.reverse_interval()
    assert lower < found.reverse_log_likelihood < upper
    for options in (dict(num_chains=0), dict(num_steps=0)):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be >= 1, got 0"):
            ais.rbm_log_likelihood(KEY, params, rbm, jnp.asarray(v), **options)
    with pytest.raises(ValueError, match=r"v must have shape \[M, 6\] with M >= 1, got \(0, 6\)"):
        ais.rbm_log_likelihood(KEY, params, rbm, jnp.ones((0, 6)))


@pytest.mark.slow
def test_schedules_run_from_0_to_1():
    params, rbm = machines.machine("spin", "binary")
    v, options = jnp.ones((2, 4)), dict(num_chains=20)
    even = ais.rbm_log_likelihood(KEY, params, rbm, v, num_steps=7, **options)
    given = ais.rbm_log_likelihood(KEY, params, rbm, v, betas=jnp.linspace(0, 1, 8), **options)
    np.testing.assert_array_equal(even.log_likelihood, given.log_likelihood)
    uneven = ais.rbm_log_likelihood(KEY, params, rbm, v, betas=jnp.linspace(0, 1, 8) ** 2)
    exact = rbms.log_likelihood(params, rbm, v)
    assert abs(uneven.log_likelihood - exact) < 5 * uneven.forward.standard_error
    for betas in ([0.0, 0.5], [0.3, 1.0], [1.0, 0.5, 0.0], [0.0, 3.0, -5.0, 1.0]):
        found = ais.rbm_log_likelihood(KEY, params, rbm, v, betas=jnp.array(betas), **options)
        assert np.isnan(found.log_likelihood) and not found.reliable
    with pytest.raises(ValueError, match=r"betas must have shape \[K\] with K >= 2, got \(1,\)"):
        ais.rbm_log_likelihood(KEY, params, rbm, v, betas=jnp.zeros(1))
    path = ais.rbm_path(params, rbm)
    for whole in ([0, 1], jnp.array([0, 1])):
        assert np.isfinite(ais.forward(KEY, path, whole)[0])
        assert np.isfinite(ais.backward(KEY, path, v[0], whole)[0])


@pytest.mark.slow
def test_a_sigmoid_schedule_is_dense_at_its_ends():
    betas = np.asarray(ais.sigmoid_schedule(100))
    steps = np.diff(betas)
    assert betas.shape == (101,) and betas[0] == 0 and betas[-1] == 1
    np.testing.assert_allclose(betas, 1 - betas[::-1], atol=1e-12)
    assert np.all(np.diff(steps[:50]) > 0) and steps[50] > 5 * steps[0]
    even = ais.sigmoid_schedule(10, sharpness=1e-3)
    np.testing.assert_allclose(even, np.linspace(0, 1, 11), atol=1e-6)
    params, rbm = machines.machine("spin", "binary")
    v = jnp.ones((20, 4))
    found = ais.rbm_log_likelihood(KEY, params, rbm, v, betas=ais.sigmoid_schedule(50))
    exact = rbms.log_likelihood(params, rbm, v)
    assert abs(found.log_likelihood - exact) < 5 * found.forward.standard_error
    with pytest.raises(ValueError, match="num_steps: wanted >= 1, got 0"):
        ais.sigmoid_schedule(0)
    with pytest.raises(ValueError, match="sharpness: wanted > 0 and finite, got 0"):
        ais.sigmoid_schedule(3, sharpness=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_precisions_than_the_default_are_computed_in_float32(dtype):
    params, rbm = machines.machine("spin", "binary")
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    v = jnp.ones((3, 4), dtype)
    found = ais.rbm_log_likelihood(KEY, params, rbm, v, num_chains=200, num_steps=50)
    exact = rbms.log_likelihood(
        jax.tree.map(lambda x: x.astype(float), params), rbm, v.astype(float)
    )
    assert found.log_likelihood.dtype == jnp.float32
    assert abs(found.log_likelihood - exact) < 5 * found.forward.standard_error


@pytest.mark.slow
def test_estimates_that_disagree_are_not_reliable():
    """Two far modes: chains from the middle find both, those from data in one never leave it."""
    rbm = rbms.RBM(8, 1)
    params = {
        "weights": jnp.full((8, 1), 2.0),
        "visible_bias": jnp.full(8, 0.4),
        "hidden_bias": jnp.zeros(1),
    }
    options = dict(num_chains=200, num_steps=100)
    for row, reliable in ((1.0, True), (-1.0, False)):
        v = jnp.full((200, 8), row)
        found = ais.rbm_log_likelihood(KEY, params, rbm, v, **options)
        assert found.forward.reliable and found.backward.reliable
        assert found.reliable == reliable


@pytest.mark.slow
def test_a_mode_that_nobody_finds_is_not_noticed():
    """The limit of ``reliable``, which its documentation states: a mode of most of the mass that
    the start of the path all but excludes, and that the data do not come from."""
    rbm = rbms.RBM(20, 2, "spin", "binary")
    params = {
        "weights": jnp.zeros((20, 2)).at[:, 0].set(-3.0),
        "visible_bias": jnp.ones(20),
        "hidden_bias": jnp.array([-14.0, 0.0]),
    }
    v = jnp.where(jax.random.uniform(KEY, (200, 20)) < jax.nn.sigmoid(2.0), 1.0, -1.0)
    evaluate = jax.jit(
        lambda key: ais.rbm_log_likelihood(key, params, rbm, v, num_chains=100, num_steps=500)
    )
    found = evaluate(KEY)
    assert found.reliable
    assert found.log_likelihood > rbms.log_likelihood(params, rbm, v) + 3
    # From even spins the forward chains find it.
    options = dict(base_visible_bias=jnp.zeros(20), num_chains=100, num_steps=500)
    even = ais.rbm_log_likelihood(KEY, params, rbm, v, **options)
    error = even.log_likelihood - rbms.log_likelihood(params, rbm, v)
    assert abs(error) < 3 * even.forward.standard_error and not even.reliable


def test_the_path_s_slope_in_beta_is_right_at_both_ends():
    params, rbm = machines.machine("binary", "binary")
    params |= {"visible_bias": jnp.asarray(params["visible_bias"]).at[0].set(-jnp.inf)}
    path = ais.rbm_path(params, rbm, base_visible_bias=0.5 * params["visible_bias"])
    v = jnp.array([0.0, 1.0, 0.0, 1.0])
    slope = jax.grad(path.log_density, argnums=1)
    for beta, step in ((0.0, 1e-6), (1.0, -1e-6)):
        ends = path.log_density(v, jnp.asarray(beta + step)), path.log_density(v, jnp.asarray(beta))
        wanted = (ends[0] - ends[1]) / step
        np.testing.assert_allclose(slope(v, jnp.asarray(beta)), wanted, rtol=1e-4)


@pytest.mark.parametrize(("num_steps", "sharpness"), [(1000, 15.0), (100_000, 8.0), (10, 1e-3)])
def test_schedules_rise_in_float32(num_steps, sharpness):
    with jax.enable_x64(False):
        betas = ais.sigmoid_schedule(num_steps, sharpness=sharpness)
    assert betas.dtype == jnp.float32 and betas.shape == (num_steps + 1,)
    assert betas[0] == 0 and betas[-1] == 1 and np.all(np.diff(betas) >= 0)


def test_base_rates_of_integers_that_are_no_states_are_nan():
    _, rbm = machines.machine("binary", "binary")
    assert np.all(np.isnan(ais.base_rates(rbm, np.full((3, 4), 255, np.uint8))))
    assert np.all(np.isfinite(ais.base_rates(rbm, np.ones((3, 4), np.uint8))))


def test_a_half_precision_machine_is_annealed_in_float32():
    params, rbm = machines.machine("binary", "binary")
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params)
    log_weights, _ = estimates(params, rbm, num_chains=3, num_steps=5)
    assert np.all(np.isfinite(log_weights))
