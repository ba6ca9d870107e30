"""A DVN's step against its formulas, what its outputs are, its prediction, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy.gradient_inference import Ascent
from gasn_jax.nn import multi_label
from gasn_jax.systems import dvn
from tests.systems.steps import check_first_step, check_kept_types

KEY = jax.random.key(0)
M, D, L = 8, 4, 3
CONFIG = dvn.DVNConfig(
    value=multi_label.LabelValue(L, (6,), 2), ascent=Ascent(3, 0.5), num_adversarial_steps=2,
    value_rate=3e-2, value_decay=0.7,
)  # fmt: skip
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(M, D)), jnp.float32)
Y = jnp.asarray(RNG.random((M, L)) < 0.5, jnp.float32)
step = jax.jit(dvn.train_step, static_argnums=0)


def f1(y, true):
    both, either = (y * true).sum(), (y + true - y * true).sum()  # for true ones of 0 and 1
    return jnp.where(either > 0, 2 * both / jnp.where(either > 0, both + either, 1), 1.0)


def value(params, x, y):
    return 1 / (1 + jnp.exp(-CONFIG.value.apply(params, x, y)))


def cross_entropy(params, x, z, y, constant=False):
    v, h = value(params, x, z), f1(z, y)
    h = jax.lax.stop_gradient(h) if constant else h
    return -h * jnp.log(v) - (1 - h) * jnp.log(1 - v)


def climb(fn, y, num_steps=3):
    for _ in range(num_steps):
        y = jnp.clip(y + 0.5 * jax.grad(fn)(y), 0, 1)
    return y


@pytest.mark.parametrize("constant_oracle", [True, False])
@pytest.mark.parametrize(
    ("shares", "first", "second"),
    [
        ((0.25, 0.25), 2, 4),
        ((0.0, 1.0), 0, 8),
        ((1.0, 0.0), 8, 8),
        ((0.0, 0.0), 0, 0),
        ((0.01, 0.05), 1, 2),  # the least that a share other than 0 comes to is one output
        ((0.95, 0.05), 7, 8),
        ((0.45, 0.5), 3, 7),  # and one is inferred
    ],
)
def test_a_step_is_that_of_the_formulas(shares, first, second, constant_oracle):
    fields = dict(true_share=shares[0], adversarial_share=shares[1])
    config = dataclasses.replace(CONFIG, **fields, constant_oracle=constant_oracle)
    state = dvn.init(config, KEY, X[0], Y[0])
    outputs = []
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        if i < first:
            outputs.append(y)
        elif i < second:
            fixed = functools.partial(cross_entropy, state.value, x, constant=constant_oracle)
            outputs.append(climb(lambda z, y=y, fixed=fixed: fixed(z, y), y, 2))
        else:
            outputs.append(climb(lambda z, x=x: value(state.value, x, z), jnp.zeros(L)))

    def loss(params):
        return jnp.mean(jax.vmap(cross_entropy, (None, 0, 0, 0))(params, X, jnp.stack(outputs), Y))

    after, metrics = step(config, state, X, Y, KEY)
    assert float(metrics["loss"]) == pytest.approx(float(loss(state.value)), rel=1e-4)
    oracle = np.mean([f1(z, y) for z, y in zip(outputs, Y, strict=True)])
    assert float(metrics["oracle"]) == pytest.approx(oracle, rel=1e-4)
    jax.tree.map(  # Adam's first moment after one step is a tenth of the gradient
        lambda m, g: np.testing.assert_allclose(m, 0.1 * g, rtol=2e-3, atol=1e-6),
        after.optimizer[0].mu,
        jax.grad(loss)(state.value),
    )
    gradient = jax.grad(loss)(state.value)
    check_first_step(after.value, state.value, gradient, rate=3e-2, decay=0.7)


def test_a_step_keeps_the_types_of_its_state():
    check_kept_types(dvn, CONFIG, X, Y)


def test_the_loss_drops_units():
    config = dataclasses.replace(CONFIG, value=multi_label.LabelValue(L, (6,), 2, 0.5))
    state = dvn.init(config, KEY, X[0], Y[0])
    found = [step(config, state, X, Y, key)[1] for key in jax.random.split(KEY, 3)]
    assert len({float(one["loss"]) for one in found}) == 3
    # what it is taught by is found without
    assert len({float(one["oracle"]) for one in found}) == 1


def test_a_minibatch_holds_every_kind_of_output():
    state = dvn.init(CONFIG, KEY, X[0], Y[0])
    step(CONFIG, state, X[:3], Y[:3], KEY)
    with pytest.raises(ValueError, match="y must have 3 outputs or more, got 2"):
        step(CONFIG, state, X[:2], Y[:2], KEY)


def test_a_prediction_is_the_ascent_from_its_start():
    state = dvn.init(CONFIG, KEY, X[0], Y[0])
    found = dvn.predict(CONFIG, state, X[0], jnp.zeros(L), num_steps=3)
    wanted = climb(lambda z: value(state.value, X[0], z), jnp.zeros(L))
    np.testing.assert_allclose(found.y, wanted, rtol=1e-4)
    assert np.all(np.diff(found.values) >= 0) and found.trajectory.shape == (4, L)


@pytest.mark.slow
def test_it_learns_to_value_outputs():
    """Two labels, on where the input's numbers are positive."""
    x = jnp.asarray(RNG.normal(size=(256, 2)), jnp.float32)
    y = jnp.float32(x > 0)
    config = dataclasses.replace(
        CONFIG, value=multi_label.LabelValue(2, (16,), 4), value_rate=1e-2, ascent=Ascent(10, 1.0)
    )

    @jax.jit
    def train(state, keys):
        def body(state, key):
            rows = jax.random.randint(key, (64,), 0, 256)
            return dvn.train_step(config, state, x[rows], y[rows], key)

        return jax.lax.scan(body, state, keys)

    state, metrics = train(dvn.init(config, KEY, x[0], y[0]), jax.random.split(KEY, 600))
    assert metrics["loss"][-50:].mean() < 0.8 * metrics["loss"][:50].mean()
    found = jax.vmap(lambda x: dvn.predict(config, state, x, jnp.zeros(2), num_steps=30).y)(x)
    assert np.mean((np.asarray(found) > 0.5) == np.asarray(y)) > 0.85


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(value_rate=0.0), "value_rate: wanted > 0 and finite"),
        (dict(true_share=1.5), r"true_share: wanted in \[0, 1\], got 1.5"),
        (dict(true_share=0.6, adversarial_share=0.6), "adversarial_share: wanted <= 0.4, got 0.6"),
        (dict(value_decay=float("inf")), "value_decay: wanted >= 0 and finite"),
        (dict(num_adversarial_steps=0), "num_adversarial_steps: wanted >= 1, got 0"),
    ],
)
def test_bad_configs_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **fields)
