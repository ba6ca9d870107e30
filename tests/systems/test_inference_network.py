"""An inference network's steps against its formulas, its phases, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import multi_label
from gasn_jax.systems import inference_network
from tests.systems.steps import check_first_step, check_kept_types

KEY = jax.random.key(0)
M, D, L = 6, 4, 3
CONFIG = inference_network.InferenceNetworkConfig(
    network=multi_label.LabelNetwork(L, (6,)), value=multi_label.LabelValue(L, (6,), 2),
    cost_weight=0.7, adversarial_weight=0.3, num_joint_steps=1,
    network_rate=1e-2, value_rate=3e-2, network_decay=0.3, value_decay=0.7,
)  # fmt: skip
ALONE = dataclasses.replace(CONFIG, value=None)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(M, D)), jnp.float32)
Y = jnp.asarray(RNG.random((M, L)) < 0.5, jnp.float32)
step = jax.jit(inference_network.train_step, static_argnums=0)


def g(params, x):
    return 1 / (1 + jnp.exp(-CONFIG.network.apply(params, x)))


def v(params, x, y):
    return CONFIG.value.apply(params, x, y)


def hinge(value, network, x, y):
    z = g(network, x)
    cost = 0.7 * jnp.sum(jnp.abs(z - y))
    return jnp.maximum(0.0, cost + v(value, x, z) - v(value, x, y))


def network_loss(network, value, x, y, cost_weight, adversarial_weight=0.3):
    p = g(network, x)
    cross_entropy = -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))
    offence = v(value, x, p) + cost_weight * jnp.sum(jnp.abs(p - y))
    return cross_entropy - adversarial_weight * offence


def mean_over_examples(loss, params, *constants):
    return lambda p: jnp.mean(
        jnp.stack([loss(p, *params, x, y, *constants) for x, y in zip(X, Y, strict=True)])
    )


def check_moments(optimizer, gradient):
    jax.tree.map(  # Adam's first moment after one step is a tenth of the gradient
        lambda m, g: np.testing.assert_allclose(m, 0.1 * g, rtol=2e-3, atol=1e-6),
        optimizer[0].mu,
        gradient,
    )


@pytest.mark.slow
def test_both_learn_then_the_network_alone():
    state = inference_network.init(CONFIG, KEY, X[0], Y[0])
    after, metrics = step(CONFIG, state, X, Y, KEY)
    value_loss = mean_over_examples(hinge, (state.network,))
    assert float(metrics["value_loss"]) == pytest.approx(float(value_loss(state.value)), rel=1e-4)
    gradient = jax.grad(value_loss)(state.value)
    check_moments(after.value_optimizer, gradient)
    check_first_step(after.value, state.value, gradient, rate=3e-2, decay=0.7)
    loss = mean_over_examples(network_loss, (after.value,), 0.7)
    assert float(metrics["network_loss"]) == pytest.approx(float(loss(state.network)), rel=1e-4)
    gradient = jax.grad(loss)(state.network)
    check_moments(after.network_optimizer, gradient)
    check_first_step(after.network, state.network, gradient, rate=1e-2, decay=0.3)
    last, metrics = step(CONFIG, after, X, Y, KEY)
    jax.tree.map(np.testing.assert_array_equal, last.value, after.value)
    jax.tree.map(np.testing.assert_array_equal, last.value_optimizer, after.value_optimizer)
    loss = mean_over_examples(network_loss, (after.value,), 0.0)
    assert float(metrics["network_loss"]) == pytest.approx(float(loss(after.network)), rel=1e-4)


def test_a_step_keeps_the_types_of_its_state():
    check_kept_types(inference_network, CONFIG, X, Y)


def test_without_a_value_network_it_is_feed_forward():
    state = inference_network.init(ALONE, KEY, X[0], Y[0])
    after, metrics = step(ALONE, state, X, Y, KEY)
    p = np.stack([g(state.network, x) for x in X])
    true = np.asarray(Y)
    wanted = -np.mean(true * np.log(p) + (1 - true) * np.log(1 - p))
    assert float(metrics["network_loss"]) == pytest.approx(wanted, rel=1e-4)
    assert after.value == {} and metrics["value_loss"] == 0
    found = inference_network.predict(ALONE, state, X[0])
    np.testing.assert_allclose(found, p[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "changing"),
    [
        (dict(value=multi_label.LabelValue(L, (6,), 2, 0.5)), {"value_loss"}),
        (dict(network=multi_label.LabelNetwork(L, (6,), 0.5)), {"value_loss", "network_loss"}),
    ],
)
def test_networks_drop_units_where_they_learn(fields, changing):
    # the value network moves too little to change what it gives the other
    config = dataclasses.replace(CONFIG, **fields, value_rate=1e-12)
    state = inference_network.init(config, KEY, X[0], Y[0])
    found = [step(config, state, X, Y, key)[1] for key in jax.random.split(KEY, 3)]
    kinds = {name: len({round(float(one[name]), 5) for one in found}) for name in found[0]}
    assert {name for name, count in kinds.items() if count == 3} == changing
    assert all(count in (1, 3) for count in kinds.values())


@pytest.mark.parametrize("config", [CONFIG, ALONE], ids=["with a value", "alone"])
def test_it_learns(config):
    """Two labels, on where the input's numbers are positive."""
    x = jnp.asarray(RNG.normal(size=(256, 2)), jnp.float32)
    y = jnp.float32(x > 0)
    value = None if config.value is None else multi_label.LabelValue(2, (16,), 4)
    config = dataclasses.replace(
        config, network=multi_label.LabelNetwork(2, (16,)), value=value, network_rate=1e-2,
        adversarial_weight=0.1, num_joint_steps=250,
    )  # fmt: skip

    @jax.jit
    def train(state, keys):
        def body(state, key):
            rows = jax.random.randint(key, (32,), 0, 256)
            return inference_network.train_step(config, state, x[rows], y[rows], key)[0], None

        return jax.lax.scan(body, state, keys)[0]

    state = train(inference_network.init(config, KEY, x[0], y[0]), jax.random.split(KEY, 300))
    found = jax.vmap(lambda x: inference_network.predict(config, state, x))(x)
    assert np.mean((np.asarray(found) > 0.5) == np.asarray(y)) > 0.9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_joint_steps=-1), "num_joint_steps: wanted >= 0"),
        (dict(network_rate=0.0), "network_rate: wanted > 0 and finite"),
        (dict(adversarial_weight=-1.0), "adversarial_weight: wanted >= 0 and finite"),
    ],
)
def test_bad_configs_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields)
