"""Restricted Boltzmann machines against sums over all their states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import rbm as rbms
from tests.energy import machines

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("visible", "hidden"), machines.DISCRETE)
def test_energies_of_all_states(visible, hidden):
    params, rbm = machines.machine(visible, hidden)
    v, h, scores = machines.joint(params, rbm)
    run = functools.partial(rbms.energy, params, rbm)
    np.testing.assert_allclose(
        jax.vmap(lambda a: jax.vmap(lambda b: run(a, b))(h))(v), -scores, atol=1e-12
    )
    free = jax.vmap(lambda a: rbms.free_energy(params, rbm, a))(v)
    np.testing.assert_allclose(free, -machines.log_sum_exp(scores, axis=1), atol=1e-12)
    free = jax.vmap(lambda b: rbms.hidden_free_energy(params, rbm, b))(h)
    np.testing.assert_allclose(free, -machines.log_sum_exp(scores, axis=0), atol=1e-12)
    exact = machines.log_sum_exp(scores)
    for chunk_size in (1, 3, 4, 7, 4096):
        got = rbms.log_partition(params, rbm, chunk_size=chunk_size)
        np.testing.assert_allclose(got, exact, rtol=1e-12)
    log_p = machines.log_sum_exp(scores, axis=1) - exact
    np.testing.assert_allclose(rbms.log_ratio(params, rbm, v[0], v[5]), log_p[0] - log_p[5])
    np.testing.assert_allclose(rbms.log_likelihood(params, rbm, v[:6]), log_p[:6].mean())


@pytest.mark.parametrize(("visible", "hidden"), machines.DISCRETE)
def test_conditional_means(visible, hidden):
    params, rbm = machines.machine(visible, hidden)
    v, h, scores = machines.joint(params, rbm)
    p = np.exp(scores)
    wanted = (p / p.sum(1, keepdims=True)) @ h
    got = jax.vmap(lambda a: rbms.hidden_mean(params, rbm, a))(v)
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    wanted = (p / p.sum(0)).T @ v
    got = jax.vmap(lambda b: rbms.visible_mean(params, rbm, b))(h)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("hidden", ["spin", "binary"])
def test_gaussian_units_by_integration(hidden):
    params, rbm = machines.machine("gaussian", hidden, num_visible=1)
    h = machines.configurations(hidden, rbm.num_hidden)
    line = np.linspace(-12, 12, 4001)
    scores = machines.negative_energies(params, line[:, None], h) - 0.5 * line[:, None] ** 2
    density, step = np.exp(scores), line[1] - line[0]
    np.testing.assert_allclose(rbms.energy(params, rbm, line[7:8], h[3]), -scores[7, 3], rtol=1e-12)
    free = jax.vmap(lambda b: rbms.hidden_free_energy(params, rbm, b))(h)
    np.testing.assert_allclose(free, -np.log(density.sum(0) * step), atol=1e-9)
    np.testing.assert_allclose(
        rbms.log_partition(params, rbm), np.log(density.sum() * step), atol=1e-9
    )
    means = jax.vmap(lambda b: rbms.visible_mean(params, rbm, b))(h)[:, 0]
    np.testing.assert_allclose(means, (line @ density) / density.sum(0), atol=1e-9)


def test_it_sums_over_the_smaller_layer_and_refuses_more_than_it_can():
    params, rbm = machines.machine("binary", "spin", num_visible=30, num_hidden=2)
    summed = rbms.log_partition(params, rbm)
    swapped = {
        "weights": params["weights"].T,
        "visible_bias": params["hidden_bias"],
        "hidden_bias": params["visible_bias"],
    }
    other = rbms.RBM(2, 30, "spin", "binary")
    np.testing.assert_allclose(rbms.log_partition(swapped, other), summed, rtol=1e-12)
    params, rbm = machines.machine("spin", "spin", num_visible=26, num_hidden=26)
    with pytest.raises(ValueError, match="at most 25 units can be enumerated, got 26"):
        rbms.log_partition(params, rbm)
    params, rbm = machines.machine("gaussian", "spin", num_visible=3, num_hidden=26)
    with pytest.raises(ValueError, match="at most 25 units can be enumerated, got 26"):
        rbms.log_partition(params, rbm)


def test_the_gradient_of_log_z_keeps_little_of_its_chunks():
    params, rbm = machines.machine("spin", "spin", num_visible=16, num_hidden=16)
    small, large = (
        jax.jit(jax.grad(lambda p, size=size: rbms.log_partition(p, rbm, chunk_size=size)))
        .lower(params)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for size in (2**8, 2**16)
    )
    assert small < large / 100


@pytest.mark.parametrize(("visible", "hidden"), machines.KINDS)
def test_the_likelihoods_gradient_is_that_of_finite_differences(visible, hidden):
    params, rbm = machines.machine(visible, hidden)
    states = machines.STATES.get(visible, (-1.0, 1.0))
    data = np.random.default_rng(1).choice(states, size=(5, 4))
    direction = machines.machine(visible, hidden, seed=2)[0]
    run = jax.jit(lambda p: rbms.log_likelihood(p, rbm, data))

    def along(t):
        return run(jax.tree.map(lambda p, d: p + t * d, params, direction))

    slope = jax.tree.map(lambda g, d: jnp.sum(g * d), jax.jit(jax.grad(run))(params), direction)
    wanted = (along(1e-5) - along(-1e-5)) / 2e-5
    np.testing.assert_allclose(sum(jax.tree.leaves(slope)), wanted, rtol=1e-7)


@pytest.mark.parametrize(("visible", "hidden"), machines.KINDS)
def test_samples_have_the_conditional_means(visible, hidden):
    params, rbm = machines.machine(visible, hidden)
    keys = jax.random.split(jax.random.key(0), 20000)
    v = np.array([1.0, machines.STATES.get(visible, (-1.0,))[0], 1.0, 1.0])
    drawn = np.asarray(jax.vmap(lambda k: rbms.sample_hidden(k, params, rbm, v))(keys))
    assert set(np.unique(drawn)) == set(machines.STATES[hidden])
    np.testing.assert_allclose(drawn.mean(0), rbms.hidden_mean(params, rbm, v), atol=0.03)
    h = drawn[0]
    drawn = np.asarray(jax.vmap(lambda k: rbms.sample_visible(k, params, rbm, h))(keys))
    np.testing.assert_allclose(drawn.mean(0), rbms.visible_mean(params, rbm, h), atol=0.04)
    if visible == "gaussian":
        np.testing.assert_allclose(np.cov(drawn.T), np.eye(4), atol=0.05)


def test_units_that_cannot_turn_do_not():
    received = jnp.array([-jnp.inf, jnp.inf, -800.0, 800.0])
    for kind, (low, high) in machines.STATES.items():
        drawn = jax.vmap(lambda k, kind=kind: rbms.draw(k, kind, received))(
            jax.random.split(jax.random.key(0), 1000)
        )
        assert np.all(np.asarray(drawn) == np.array([low, high, low, high]))


def test_fresh_parameters():
    rbm = rbms.RBM(50, 40)
    params = rbms.init(jax.random.key(0), rbm, scale=0.1)
    rbms.check(params, rbm)
    assert not np.any(params["visible_bias"]) and not np.any(params["hidden_bias"])
    assert np.std(params["weights"]) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rbms.RBM(0, 3), "num_visible must be >= 1, got 0"),
        (lambda: rbms.RBM(3, 3, visible="real"), r"visible must be one of \('spin', 'binary', '"),
        (lambda: rbms.RBM(3, 3, hidden="gaussian"), r"hidden must be one of \('spin', 'binary'\)"),
        (
            lambda: rbms.free_energy(*machines.machine("spin", "spin"), np.ones(3)),
            r"v must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: rbms.visible_mean(*machines.machine("spin", "spin"), np.ones(4)),
            r"h must have shape \(3,\), got \(4,\)",
        ),
        (
            lambda: rbms.log_partition(machines.machine("spin", "spin")[0], rbms.RBM(4, 5)),
            r"weights must have shape \(4, 5\), got \(4, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_state_of_its_units_is_not_valued():
    for visible, good, bad in (
        ("spin", -1.0, 0.0),
        ("binary", 0.0, 255.0),
        ("gaussian", 3.0, np.inf),
    ):
        params, rbm = machines.machine(visible, "spin")
        v = jnp.ones((3, 4)).at[1, 2].set(good)
        assert np.isfinite(rbms.log_likelihood(params, rbm, v))
        assert rbms.validity(visible, v) == 1
        v = v.at[1, 2].set(bad)
        assert np.isnan(rbms.log_likelihood(params, rbm, v))
        assert np.isnan(rbms.validity(visible, v))
        assert np.isfinite(rbms.log_ratio(params, rbm, v[0], v[2]))
        assert np.isnan(rbms.log_ratio(params, rbm, v[0], v[1]))
        assert np.isnan(rbms.log_ratio(params, rbm, v[1], v[0]))
        assert np.isfinite(rbms.log_prob(params, rbm, v[0]))
        assert np.isnan(rbms.log_prob(params, rbm, v[1]))
        slope = jax.grad(lambda p, rbm=rbm, v=v: rbms.log_likelihood(p, rbm, v))(params)
        assert all(np.all(np.isnan(leaf)) for leaf in slope.values())
        with pytest.raises(ValueError, match="v must be floating, got int"):
            rbms.free_energy(params, rbm, np.ones(4, np.int8))
    params, rbm = machines.machine("spin", "spin")
    with pytest.raises(ValueError, match="chunk_size must be >= 1, got 0"):
        rbms.log_partition(params, rbm, chunk_size=0)
    for v in (jnp.ones((0, 4)), jnp.ones(4)):
        with pytest.raises(ValueError, match=r"v must have shape \[M, 4\] with M >= 1, got \("):
            rbms.log_likelihood(params, rbm, v)


@pytest.mark.parametrize(("kind", "mean", "neither"), [("spin", -0.9, -1.1), ("binary", 0.3, -1.0)])
def test_energies_and_conditionals_also_take_means(kind, mean, neither):
    params, rbm = machines.machine(kind, kind)
    key = jax.random.key(0)
    for value, finite in ((mean, True), (neither, False)):
        v, h = jnp.ones(4).at[1].set(value), jnp.ones(3).at[2].set(value)
        for got in (
            rbms.energy(params, rbm, v, jnp.ones(3)),
            rbms.energy(params, rbm, jnp.ones(4), h),
            rbms.free_energy(params, rbm, v),
            rbms.hidden_free_energy(params, rbm, h),
            rbms.hidden_mean(params, rbm, v),
            rbms.visible_mean(params, rbm, h),
            rbms.sample_hidden(key, params, rbm, v),
            rbms.sample_visible(key, params, rbm, h),
        ):
            assert np.all(np.isfinite(got)) == finite and np.all(np.isnan(got)) != finite


def test_a_binary_unit_whose_bias_is_minus_infinity_is_always_off():
    params, rbm = machines.machine("binary", "binary")
    off = params | {
        "visible_bias": jnp.asarray(params["visible_bias"]).at[1].set(-jnp.inf),
        "hidden_bias": jnp.asarray(params["hidden_bias"]).at[0].set(-jnp.inf),
    }
    v, h = np.delete(np.arange(4), 1), np.arange(1, 3)
    without = {
        "weights": params["weights"][v][:, h],
        "visible_bias": params["visible_bias"][v],
        "hidden_bias": params["hidden_bias"][h],
    }
    data = np.array([[1.0, 0, 0, 1], [0, 0, 1, 1]])
    small = rbms.RBM(3, 2, "binary", "binary")
    found, slope = jax.value_and_grad(lambda p: rbms.log_likelihood(p, rbm, data))(off)
    wanted, of_small = jax.value_and_grad(lambda p: rbms.log_likelihood(p, small, data[:, v]))(
        without
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(slope["weights"][v][:, h], of_small["weights"], atol=1e-12)
    for name, index in (("weights", 1), ("visible_bias", 1), ("hidden_bias", 0)):
        np.testing.assert_array_equal(slope[name][index], 0)
    assert rbms.log_prob(off, rbm, jnp.ones(4)) == -np.inf
    assert rbms.energy(off, rbm, jnp.zeros(4), jnp.zeros(3)) == 0


def test_halves_are_drawn_as_precisely_as_float32():
    keys = jax.random.split(jax.random.key(0), 100)
    for dtype in (jnp.bfloat16, jnp.float16):
        received = jnp.full(2000, -7.0, dtype)
        drawn = jax.vmap(lambda k, x=received: rbms.draw(k, "binary", x))(keys)
        assert drawn.dtype == dtype
        assert np.mean(np.asarray(drawn, float)) == pytest.approx(1 / (1 + np.exp(7)), rel=0.3)


@pytest.mark.parametrize("visible", ["binary", "spin", "gaussian"])
def test_gradients_in_the_units_are_right_where_a_unit_is_zero(visible):
    params, rbm = machines.machine(visible, "binary", num_visible=3, num_hidden=2)
    v, h = jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 0.0])
    received = params["visible_bias"] + params["weights"] @ h
    wanted = (v if visible == "gaussian" else 0.0) - received
    given = jax.grad(rbms.energy, argnums=2)(params, rbm, v, h)
    np.testing.assert_allclose(given, wanted, rtol=1e-12)
    mean = jax.nn.sigmoid(params["hidden_bias"] + v @ params["weights"])
    wanted = (v if visible == "gaussian" else 0.0) - params["visible_bias"]
    wanted = wanted - params["weights"] @ mean
    given = jax.grad(rbms.free_energy, argnums=2)(params, rbm, v)
    np.testing.assert_allclose(given, wanted, rtol=1e-12)


def test_a_forbidden_unit_has_no_gradient_and_no_configuration():
    params, rbm = machines.machine("binary", "binary", num_visible=3, num_hidden=2)
    params |= {"visible_bias": jnp.asarray(params["visible_bias"]).at[2].set(-jnp.inf)}
    v = jnp.array([0.0, 1.0, 0.0])
    assert rbms.free_energy(params, rbm, v.at[2].set(1.0)) == jnp.inf
    slope = jax.grad(rbms.free_energy)(params, rbm, v)
    assert slope["visible_bias"][2] == 0 and np.all(np.isfinite(slope["weights"]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_likelihoods_of_half_precision_are_those_of_its_numbers_in_float32(dtype):
    params, rbm = machines.machine("binary", "binary", num_visible=60, num_hidden=5)
    half = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), half)
    v = jnp.asarray(np.random.default_rng(0).integers(0, 2, (7, 60)), jnp.float32)
    found = rbms.log_likelihood(half, rbm, v.astype(dtype))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rbms.log_likelihood(single, rbm, v), rtol=1e-6)
