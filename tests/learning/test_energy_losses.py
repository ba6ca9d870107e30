"""Energy losses against their formulas, and which way their gradients push."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.learning import energy_losses as losses
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs

pytestmark = pytest.mark.usefixtures("x64")
TRUE, NETWORK, REFINED = 0.7, 0.2, -1.3
RNG = np.random.default_rng(0)
Y, LABELS = RNG.random(6), np.array([1.0, 0, 0, 1, 0, 1])


def test_losses_are_their_formulas():
    assert losses.generalized_perceptron(TRUE, NETWORK) == pytest.approx(-0.5)
    assert losses.adversarial_perceptron(TRUE, NETWORK) == pytest.approx(-0.5)
    assert losses.adversarial_perceptron(TRUE, NETWORK, REFINED) == pytest.approx(-1.8)
    assert losses.margin_rescaled(TRUE, NETWORK, 0.3) == 0
    assert losses.margin_rescaled(TRUE, NETWORK, 2.0) == pytest.approx(1.5)
    wanted = 0.5 * (0.3**2) + 0.25 * (0.2 - 0.9) ** 2 + (-1.3 - 0.4) ** 2
    got = losses.least_squares(
        jnp.float64(TRUE), NETWORK, REFINED, network_target=0.9, refined_target=0.4,
        network_weight=0.5, refined_weight=2.0,
    )  # fmt: skip
    assert got == pytest.approx(wanted)
    assert losses.least_squares_generator(jnp.float64(NETWORK)) == pytest.approx(0.32)


def test_the_soft_cost_of_sets_is_hammings():
    other = np.array([1.0, 1, 0, 0, 0, 1])
    assert losses.soft_hamming(other, LABELS) == 2
    assert losses.soft_hamming(np.full(6, 0.5), LABELS) == 3
    assert RelaxedOutputs("binary").cost(other, LABELS) == 2


def test_a_class_that_differs_costs_one():
    true, other = np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[0, 2, 1, 2]]
    classes = RelaxedOutputs("classes")
    assert classes.cost(other, true) == 2
    assert classes.cost(np.full((4, 3), 1 / 3), true) == pytest.approx(4 * 2 / 3)


def test_cross_entropies_are_their_formulas():
    logits = 3 * RNG.normal(size=6)
    p = 1 / (1 + np.exp(-logits))
    wanted = -np.mean(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p))
    assert losses.binary_cross_entropy(logits, LABELS) == pytest.approx(wanted)
    scores, one_hot = RNG.normal(size=(4, 5, 3)), np.eye(3)[RNG.integers(0, 3, (4, 5))]
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = -np.mean(np.sum(one_hot * log_p, axis=-1))
    assert losses.categorical_cross_entropy(scores, one_hot) == pytest.approx(wanted)
    for target in (0.0, 0.3, 1.0):
        p = 1 / (1 + np.exp(-0.4))
        wanted = -target * np.log(p) - (1 - target) * np.log(1 - p)
        assert losses.oracle_regression(0.4, target) == pytest.approx(wanted)
        slope = jax.grad(losses.oracle_regression)(np.log(0.3 / 0.7), target)
        assert slope == pytest.approx(0.3 - target)


def test_what_is_impossible_costs_nothing_where_it_is_right():
    """Infinite logits: 0 and no gradient where right, infinite where wrong, and never NaN."""
    inf, right = jnp.inf, jnp.array([1.0, 0.0])
    for loss, logits, true, wanted in (
        (losses.categorical_cross_entropy, jnp.array([0.0, -inf]), right, 0.0),
        (losses.categorical_cross_entropy, jnp.array([-inf, 0.0]), right, inf),
        (losses.categorical_cross_entropy, jnp.array([-inf, -inf]), right, inf),
        (losses.binary_cross_entropy, jnp.array([inf, -inf]), right, 0.0),
        (losses.binary_cross_entropy, jnp.array([inf, inf]), right, inf),
        (losses.oracle_regression, jnp.array(inf), 1.0, 0.0),
        (losses.oracle_regression, jnp.array(-inf), 0.0, 0.0),
        (losses.oracle_regression, jnp.array(-inf), 0.5, inf),
    ):
        assert loss(logits, true) == wanted
        gradient, hessian = jax.grad(loss)(logits, true), jax.hessian(loss)(logits, true)
        assert np.all(np.isfinite(gradient)) and np.all(np.isfinite(hessian))
        assert np.all(np.where(np.isinf(logits), gradient, 0) == 0)
    unknown = jnp.array([jnp.nan, 1.0])
    for loss in (losses.binary_cross_entropy, losses.categorical_cross_entropy):
        assert np.isnan(loss(jnp.array([-inf, 0.0]), unknown))
    # the derivative in what is true is that of the formula also at 0 and 1
    for true in (0.0, 0.4, 1.0):
        slope = jax.grad(losses.oracle_regression, argnums=1)(0.7, true)
        assert slope == pytest.approx(-0.7)


def test_what_is_nearly_right_costs_a_little():
    """In float32, whose rounding of the logit itself would be larger."""
    logits = jnp.array([17.0, -17.0], jnp.float32)
    for true in (np.array([1, 0], dtype) for dtype in (np.float32, np.uint8, bool)):
        wanted = np.log1p(np.exp(-17.0))
        assert losses.binary_cross_entropy(logits, true) == pytest.approx(wanted, rel=1e-5)
        assert losses.oracle_regression(logits[0], true[0]) == pytest.approx(wanted, rel=1e-5)
        wanted = np.log1p(np.exp(-6.0))
        found = losses.categorical_cross_entropy(jnp.array([3.0, -3.0], jnp.float32), true)
        assert found == pytest.approx(wanted, rel=1e-4)


def test_other_shapes_are_refused():
    for loss in (
        losses.soft_hamming,
        losses.binary_cross_entropy,
        losses.categorical_cross_entropy,
    ):
        with pytest.raises(ValueError, match=r"wanted equal shapes, got \w+ \(3,\), true \(1,\)"):
            loss(np.zeros(3), np.zeros(1))
    of_values = (
        (losses.oracle_regression, 2), (losses.generalized_perceptron, 2),
        (losses.adversarial_perceptron, 2), (losses.adversarial_perceptron, 3),
        (losses.margin_rescaled, 3),
    )  # fmt: skip
    for loss, count in of_values:
        for place in range(count):
            values = [np.zeros(3)] * count
            values[place] = np.zeros(())
            with pytest.raises(ValueError, match=r"wanted equal shapes, got .*\(3,\)"):
                loss(*values)


def test_float32_agrees_with_float64_at_size():
    rng = np.random.default_rng(2)
    logits, labels = 20 * rng.normal(size=(64, 512)), rng.integers(0, 2, (64, 512)).astype(float)
    for loss in (
        losses.binary_cross_entropy,
        losses.categorical_cross_entropy,
        losses.soft_hamming,
    ):
        both = jax.jit(jax.value_and_grad(loss))
        wanted, found = both(logits, labels), both(logits.astype("f"), labels.astype("f"))
        assert found[0].dtype == found[1].dtype == jnp.float32
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-12)


def test_gradients_raise_the_true_value_and_lower_the_others():
    for loss in (losses.generalized_perceptron, losses.adversarial_perceptron):
        assert jax.grad(loss, argnums=(0, 1))(TRUE, NETWORK) == (-1, 1)
    assert jax.grad(losses.margin_rescaled, argnums=(0, 1))(TRUE, NETWORK, 2.0) == (-1, 1)
    assert jax.grad(losses.margin_rescaled, argnums=(0, 1))(TRUE, NETWORK, 0.1) == (0, 0)
    assert jax.grad(losses.least_squares_generator)(NETWORK) == pytest.approx(NETWORK - 1)
    np.testing.assert_allclose(jax.grad(losses.soft_hamming)(Y, LABELS), 1 - 2 * LABELS)
