"""A SPEN's losses against their formulas, its prediction, its first steps, and that it learns."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy.gradient_inference import Ascent
from gasn_jax.nn import multi_label
from gasn_jax.systems import spen
from tests.systems.steps import check_first_step, check_kept_types

KEY = jax.random.key(0)
M, D, L = 6, 4, 3
HINGE = spen.SPENConfig(
    value=multi_label.LabelValue(L, (6,), 2), ascent=Ascent(4, 0.2), cost_weight=0.7,
    value_rate=3e-2, value_decay=0.7,
)  # fmt: skip
END_TO_END = dataclasses.replace(HINGE, loss="end_to_end", ascent=Ascent(4, 0.5, momentum=0.3))
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(M, D)), jnp.float32)
Y = jnp.asarray(RNG.random((M, L)) < 0.5, jnp.float32)
step = jax.jit(spen.train_step, static_argnums=0)


def v(params, x, y):
    return HINGE.value.apply(params, x, y)


def cost(z, y):
    return 0.7 * jnp.sum(jnp.abs(z - y))


def hinge(params, constant, x, y):
    z = jnp.zeros(L)
    for _ in range(4):
        slope = jax.grad(lambda z: v(constant, x, z))(z) + 0.7 * (1 - 2 * y)
        z = jnp.clip(z + 0.2 * slope, 0, 1)
    return jnp.maximum(0.0, cost(z, y) + v(params, x, z) - v(params, x, y))


def cross_entropy(logits, y):
    p = 1 / (1 + jnp.exp(-logits))
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def logits_of(params, x):
    """After every step."""
    logits, direction, found = jnp.zeros(L), jnp.zeros(L), []
    for _ in range(4):
        slope = jax.grad(lambda z: v(params, x, 1 / (1 + jnp.exp(-z))))(logits)
        direction = 0.3 * direction + slope
        logits = logits + 0.5 * direction
        found.append(logits)
    return found


def end_to_end(params, constant, x, y):
    del constant
    return sum(cross_entropy(logits, y) for logits in logits_of(params, x)) / 4


@pytest.mark.parametrize(("config", "loss"), [(HINGE, hinge), (END_TO_END, end_to_end)])
def test_a_step_is_that_of_the_formulas(config, loss):
    state = spen.init(config, KEY, X[0], Y[0])

    def mean_loss(params):
        return jnp.mean(jax.vmap(loss, (None, None, 0, 0))(params, state.value, X, Y))

    after, metrics = step(config, state, X, Y, KEY)
    assert float(metrics["loss"]) == pytest.approx(float(mean_loss(state.value)), rel=1e-4)
    jax.tree.map(  # Adam's first moment after one step is a tenth of the gradient
        lambda m, g: np.testing.assert_allclose(m, 0.1 * g, rtol=2e-3, atol=1e-6),
        after.optimizer[0].mu,
        jax.grad(mean_loss)(state.value),
    )
    gradient = jax.grad(mean_loss)(state.value)
    check_first_step(after.value, state.value, gradient, rate=3e-2, decay=0.7)


def test_a_step_keeps_the_types_of_its_state():
    check_kept_types(spen, END_TO_END, X, Y)


@pytest.mark.parametrize("loss", spen.LOSSES)
def test_training_drops_units(loss):
    config = dataclasses.replace(HINGE, loss=loss, value=multi_label.LabelValue(L, (6,), 2, 0.5))
    state = spen.init(config, KEY, X[0], Y[0])
    losses = [step(config, state, X, Y, key)[1]["loss"] for key in jax.random.split(KEY, 3)]
    assert len(set(map(float, losses))) == 3


class _Dropped(nn.Module):
    """Twice the number of labels, or nothing: an ascent that it keeps finds them all."""

    @nn.compact
    def __call__(self, x, y, *, deterministic=True):
        bias = self.param("bias", nn.initializers.zeros, ())
        return nn.Dropout(0.5, deterministic=deterministic)(jnp.sum(y) + bias)


def test_an_ascent_and_the_loss_on_its_end_drop_the_same_units():
    config = dataclasses.replace(HINGE, value=_Dropped(), cost_weight=0.0, ascent=Ascent(1, 1.0))
    state = spen.init(config, KEY, X[0], Y[0])
    one = jnp.zeros((1, L))
    keys = jax.random.split(KEY, 400)
    losses = jax.vmap(lambda key: spen.train_step(config, state, X[:1], one, key)[1]["loss"])(keys)
    # kept, the end is worth 2 L; a loss that dropped other units would be 0 for half of these
    assert set(np.unique(losses)) == {0.0, 2.0 * L}
    assert abs(float(jnp.sum(losses > 0)) - 200) < 50


def test_the_first_steps_train_the_unary_part():
    config = dataclasses.replace(HINGE, num_unary_steps=1)
    state = spen.init(config, KEY, X[0], Y[0])
    after, metrics = step(config, state, X, Y, KEY)
    slopes = jax.vmap(lambda x: jax.grad(lambda y: v(state.value, x, y))(jnp.zeros(L)))(X)
    wanted = np.mean([cross_entropy(*pair) for pair in zip(slopes, Y, strict=True)])
    assert float(metrics["loss"]) == pytest.approx(wanted, rel=1e-4)
    _, metrics = step(config, after, X, Y, KEY)
    wanted = np.mean([hinge(after.value, after.value, x, y) for x, y in zip(X, Y, strict=True)])
    assert float(metrics["loss"]) == pytest.approx(wanted, rel=1e-4)


def test_predictions_are_ascents():
    state = spen.init(END_TO_END, KEY, X[0], Y[0])
    found = spen.predict(END_TO_END, state, X[0], Y[0], num_steps=4)
    wanted = [1 / (1 + np.exp(-logits)) for logits in logits_of(state.value, X[0])]
    np.testing.assert_allclose(found.trajectory, [np.full(L, 0.5), *wanted], rtol=1e-4)
    np.testing.assert_allclose(found.y, wanted[-1], rtol=1e-4)
    found = spen.predict(HINGE, state, X[0], Y[0], num_steps=2)
    y = jnp.zeros(L)
    for _ in range(2):
        y = jnp.clip(y + 0.2 * jax.grad(lambda y: v(state.value, X[0], y))(y), 0, 1)
    np.testing.assert_allclose(found.y, y, rtol=1e-4)


@pytest.mark.parametrize("config", [HINGE, END_TO_END], ids=["hinge", "end to end"])
def test_it_learns(config):
    """Two labels, on where the input's numbers are positive."""
    x = jnp.asarray(RNG.normal(size=(256, 2)), jnp.float32)
    y = jnp.float32(x > 0)
    config = dataclasses.replace(config, value=multi_label.LabelValue(2, (16,), 4), value_rate=1e-2)

    @jax.jit
    def train(state, keys):
        def body(state, key):
            rows = jax.random.randint(key, (32,), 0, 256)
            return spen.train_step(config, state, x[rows], y[rows], key)[0], None

        return jax.lax.scan(body, state, keys)[0]

    state = train(spen.init(config, KEY, x[0], y[0]), jax.random.split(KEY, 300))
    found = jax.vmap(lambda x: spen.predict(config, state, x, jnp.zeros(2), num_steps=20).y)(x)
    assert np.mean((np.asarray(found) > 0.5) == np.asarray(y)) > 0.9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(loss="ranking"), "loss: wanted one of structured_hinge, end_to_end, got 'ranking'"),
        (dict(ascent=Ascent(0)), "ascent.num_steps: wanted >= 1, got 0"),
        (dict(num_unary_steps=-1), "num_unary_steps: wanted >= 0"),
        (dict(value_rate=-1.0), "value_rate: wanted > 0 and finite"),
        (dict(cost_weight=float("nan")), "cost_weight: wanted >= 0 and finite"),
    ],
)
def test_bad_configs_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HINGE, **fields)
