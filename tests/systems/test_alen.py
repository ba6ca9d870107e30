"""ALEN's step against the paper's formulas, its ablations, its prediction, and that it learns."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy.gradient_inference import Ascent
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs
from gasn_jax.nn import multi_label
from gasn_jax.systems import alen
from tests.systems.steps import check_first_step, check_kept_types

KEY = jax.random.key(0)
M, D, L = 5, 4, 3
CONFIG = alen.ALENConfig(
    network=multi_label.LabelNetwork(L, (6,)), value=multi_label.LabelValue(L, (6,), 2),
    ascent=Ascent(3, 0.3, normalize=True), network_weight=0.7, refined_weight=1.3,
    adversarial_weight=0.4, surrogate_weight=0.9, true_target=0.95, network_target=1.05,
)  # fmt: skip
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(M, D)), jnp.float32)
Y = jnp.asarray(RNG.random((M, L)) < 0.5, jnp.float32)
step = jax.jit(alen.train_step, static_argnums=0)


def change(**fields):
    return dataclasses.replace(CONFIG, **fields)


def f1(y, true):
    both, either = np.minimum(y, true).sum(), np.maximum(y, true).sum()
    return 2 * both / (both + either) if either else 1.0


def ascent(config, params, x, y):
    """Equation 12 (or 4), step by step."""
    for _ in range(config.ascent.num_steps):
        gradient = jax.grad(lambda y: value(config, params, x, y))(y)
        if config.ascent.normalize:
            gradient /= jnp.linalg.norm(gradient)
        y = jnp.clip(y + config.ascent.step_size * gradient, 0, 1)
    return y


def value(config, params, x, y):
    logit = config.value.apply(params, x, y)
    return 1 / (1 + jnp.exp(-logit)) if config.bounded else logit


RATES = dict(network_rate=1e-2, value_rate=3e-2, network_decay=0.3, value_decay=0.7)
CHOICES = [
    change(**RATES),
    change(**RATES, ascent=Ascent(3, 0.3), surrogate_weight=0.0, bounded=False),
    change(**RATES, refined_weight=0.0, ascent=Ascent(0)),
]


@pytest.mark.parametrize("config", CHOICES, ids=["paper", "plain gradients, no task", "AEN"])
def test_a_step_is_that_of_the_formulas(config):
    state = alen.init(config, KEY, X[0], Y[0])
    after, metrics = step(config, state, X, Y, KEY)
    g = jax.vmap(lambda params, x: jax.nn.sigmoid(config.network.apply(params, x)), (None, 0))
    v = jax.vmap(functools.partial(value, config), (None, 0, 0))
    proposed = g(state.network, X)
    refined = jnp.stack(
        [ascent(config, state.value, x, y) for x, y in zip(X, proposed, strict=True)]
    )
    b, c = (np.array([f1(*pair) for pair in zip(z, Y, strict=True)]) for z in (proposed, refined))

    def equation_6(params):
        total = 0.5 * (v(params, X, Y) - config.true_target) ** 2
        total += 0.5 * config.network_weight * (v(params, X, proposed) - b) ** 2
        total += 0.5 * config.refined_weight * (v(params, X, refined) - c) ** 2
        return total.mean()

    def equation_11(params):
        p = g(params, X)
        task = -jnp.mean(Y * jnp.log(p) + (1 - Y) * jnp.log(1 - p))
        adversarial = jnp.mean(0.5 * (v(after.value, X, p) - config.network_target) ** 2)
        return config.surrogate_weight * task + config.adversarial_weight * adversarial

    assert float(metrics["value_loss"]) == pytest.approx(float(equation_6(state.value)), rel=1e-4)
    assert float(metrics["network_loss"]) == pytest.approx(
        float(equation_11(state.network)), rel=1e-4
    )
    assert float(metrics["refined_oracle"]) == pytest.approx(c.mean(), rel=1e-4)
    # Adam's first moment after one step with b1 = 0.5 is half the gradient.
    for optimizer, loss, new, params, rate, decay in (
        (after.value_optimizer, equation_6, after.value, state.value, 3e-2, 0.7),
        (after.network_optimizer, equation_11, after.network, state.network, 1e-2, 0.3),
    ):
        gradient = jax.grad(loss)(params)
        jax.tree.map(
            lambda m, g: np.testing.assert_allclose(m, 0.5 * g, rtol=1e-3, atol=1e-6),
            optimizer[0].mu,
            gradient,
        )
        check_first_step(new, params, gradient, rate=rate, decay=decay)


def test_a_step_keeps_the_types_of_its_state():
    check_kept_types(alen, CONFIG, X, Y)


class _Dropped(nn.Module):
    """A logit that is dropped or not, in the same place of the module whatever it is used as."""

    @nn.compact
    def __call__(self, x, y=None, *, deterministic=True):
        bias = self.param("bias", nn.initializers.zeros, x.shape)
        kept = nn.Dropout(0.5, deterministic=deterministic)(jnp.full_like(x, 5.0) + bias)
        return kept if y is None else jnp.sum(kept)


@pytest.mark.slow
def test_the_networks_drop_units_independently():
    config = alen.ALENConfig(network=_Dropped(), value=_Dropped(), ascent=Ascent(0))
    one = jnp.ones((1, 1))
    state = alen.init(config, KEY, one[0], one[0])
    found = jax.vmap(lambda key: alen.train_step(config, state, one, one, key)[1])
    metrics = found(jax.random.split(KEY, 400))
    proposed, valued = metrics["network_oracle"] > 0.8, metrics["true_value"] > 0.8
    # of 400, by chance, 200 are kept, and equal, with a standard deviation of 10
    for count in (proposed, valued, proposed == valued):
        assert abs(float(jnp.sum(count)) - 200) < 50


def test_the_value_network_drops_units_where_it_learns():
    """In Equation 6 alone: neither in the ascent nor in Equation 11."""
    value = multi_label.LabelValue(L, (6,), 2, 0.5)
    # it moves too little to change what it gives the other
    config = change(value=value, value_rate=1e-12)
    state = alen.init(config, KEY, X[0], Y[0])
    found = [step(config, state, X, Y, key)[1] for key in jax.random.split(KEY, 3)]
    kinds = {name: len({round(float(one[name]), 5) for one in found}) for name in found[0]}
    changing = {"value_loss", "true_value", "network_value", "refined_value"}
    assert {name for name, count in kinds.items() if count == 3} == changing
    assert all(count in (1, 3) for count in kinds.values())


class _ValueOfEach(nn.Module):
    """A logit for every variable."""

    @nn.compact
    def __call__(self, x, y, *, deterministic=True):
        return nn.Dense(L)(nn.tanh(nn.Dense(6)(jnp.concatenate([x, y]))))


def test_a_value_of_every_variable_is_averaged():
    """Equation 6 of each variable, with its own oracle, and the ascent on their mean."""
    outputs = RelaxedOutputs("binary", "variable_f1")
    config = change(value=_ValueOfEach(), outputs=outputs, ascent=Ascent(3, 0.5))
    state = alen.init(config, KEY, X[0], Y[0])
    _, metrics = step(config, state, X, Y, KEY)
    values = jax.nn.sigmoid(jax.vmap(lambda x, y: config.value.apply(state.value, x, y))(X, Y))
    proposed = jax.nn.sigmoid(jax.vmap(lambda x: config.network.apply(state.network, x))(X))
    assert float(metrics["true_value"]) == pytest.approx(float(values.mean()), rel=1e-5)
    oracle = 1 - np.abs(np.asarray(proposed) - np.asarray(Y))
    assert float(metrics["network_oracle"]) == pytest.approx(oracle.mean(), rel=1e-5)
    found = alen.predict(config, state, X[0], num_steps=3).refined
    y = proposed[0]
    for wanted in found.trajectory[1:]:
        slope = jax.grad(
            lambda y: jnp.mean(jax.nn.sigmoid(config.value.apply(state.value, X[0], y)))
        )(y)
        y = jnp.clip(y + 0.5 * slope, 0, 1)
        np.testing.assert_allclose(wanted, y, rtol=1e-4)
    assert np.all(np.diff(found.values) > 0)


def test_a_prediction_is_the_ascent_from_the_proposal():
    state = alen.init(CONFIG, KEY, X[0], Y[0])
    found = alen.predict(CONFIG, state, X[0], num_steps=3)
    proposed = jax.nn.sigmoid(CONFIG.network.apply(state.network, X[0]))
    np.testing.assert_allclose(found.network, proposed, rtol=1e-6)
    wanted = ascent(CONFIG, state.value, X[0], proposed)
    np.testing.assert_allclose(found.refined.y, wanted, rtol=1e-4)
    assert found.refined.trajectory.shape == (4, L)
    none = alen.predict(CONFIG, state, X[0], num_steps=0)
    np.testing.assert_array_equal(none.refined.y, none.network)


@pytest.mark.slow
def test_labels_that_exclude_each_other_are_learned():
    """Which of two labels it is cannot be known; that it is one of them can."""
    rng = np.random.default_rng(0)
    y = np.zeros((400, 4), np.float32)
    kind = rng.integers(0, 2, 400)
    y[np.arange(400), 2 * kind + rng.integers(0, 2, 400)] = 1
    x = jnp.asarray(np.eye(2, dtype=np.float32)[kind])
    config = change(
        network=multi_label.LabelNetwork(4, (16,)), value=multi_label.LabelValue(4, (16,), 8),
        network_rate=5e-3, value_rate=5e-3, ascent=Ascent(8, 0.3, normalize=True),
    )  # fmt: skip

    @jax.jit
    def train(state, keys):
        def body(state, key):
            rows = jax.random.randint(key, (32,), 0, 400)
            return alen.train_step(config, state, x[rows], jnp.asarray(y)[rows], key)

        return jax.lax.scan(body, state, keys)

    start = alen.init(config, KEY, x[0], y[0])
    state, metrics = train(start, jax.random.split(KEY, 1500))
    assert metrics["value_loss"][-100:].mean() < 0.7 * metrics["value_loss"][:5].mean()
    found = jax.vmap(lambda x: alen.predict(config, state, x, num_steps=20))(jnp.eye(2))
    # a network that is asked for each label by itself leaves it open: both labels near one half
    own_kind, wrong_kind = np.array([[0, 1], [2, 3]]), np.array([[2, 3], [0, 1]])
    refined = np.asarray(found.refined.y)
    assert np.take_along_axis(np.asarray(found.network), own_kind, axis=1).max() < 0.8
    assert np.take_along_axis(refined, wrong_kind, axis=1).max() < 0.3
    np.testing.assert_array_equal((np.take_along_axis(refined, own_kind, axis=1) > 0.5).sum(1), 1)
    assert np.all(found.refined.values[:, -1] >= found.refined.values[:, 0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(network_decay=-1.0), "network_decay: wanted >= 0"),
        (dict(value_rate=float("inf")), "value_rate: wanted > 0 and finite"),
        (dict(refined_weight=-0.1), "refined_weight: wanted >= 0"),
        (dict(true_target=float("nan")), "true_target: wanted finite"),
    ],
)
def test_bad_configs_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        change(**fields)


def test_outputs_of_classes_take_their_own_functions():
    outputs = RelaxedOutputs("classes", "iou")
    logits = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)
    p = outputs.probabilities(logits)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(outputs.project(p + 0.3), p, atol=1e-6)
    true = jnp.eye(3)[jnp.array([0, 2])]
    np.testing.assert_allclose(
        outputs.cross_entropy(logits, true), -np.mean(np.log([p[0, 0], p[1, 2]])), rtol=1e-5
    )
    both, either = np.minimum(p, true).sum(), np.maximum(p, true).sum()
    np.testing.assert_allclose(outputs.oracle_value(p, true), both / either, rtol=1e-5)
    np.testing.assert_allclose(outputs.initial(p), 1 / 3, rtol=1e-6)
    assert np.all(RelaxedOutputs().initial(Y) == 0)
    with pytest.raises(ValueError, match="kind must be one of binary, classes, got 'real'"):
        RelaxedOutputs("real")
    with pytest.raises(ValueError, match="oracle must be one of f1, iou"):
        RelaxedOutputs(oracle="accuracy")
