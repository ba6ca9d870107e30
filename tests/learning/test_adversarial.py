import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.learning import adversarial

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(0, 3, (2, 7))


def probability(logits):
    return 1 / (1 + np.exp(-logits))


# Loss -> its formula in D, as the papers print it.
FORMULAS = {
    adversarial.saturating_generator_loss: lambda d: np.mean(np.log(1 - d)),
    adversarial.non_saturating_generator_loss: lambda d: np.mean(-np.log(d)),
}


def test_discriminator_loss_is_equation_1(x64):
    wanted = np.mean(-np.log(probability(REAL)) - np.log(1 - probability(FAKE)))
    np.testing.assert_allclose(adversarial.discriminator_loss(REAL, FAKE), wanted, rtol=1e-12)


@pytest.mark.parametrize("loss", FORMULAS)
def test_generator_losses_are_their_formulas(x64, loss):
    np.testing.assert_allclose(loss(FAKE), FORMULAS[loss](probability(FAKE)), rtol=1e-12)


def test_saturating_loss_is_the_generators_part_of_equation_1(x64):
    def both_players(fake):
        return adversarial.discriminator_loss(REAL, fake)

    ascent = jax.grad(both_players)(FAKE)
    descent = jax.grad(adversarial.saturating_generator_loss)(FAKE)
    np.testing.assert_allclose(descent, -ascent, rtol=1e-12)


def test_every_generator_loss_has_a_name():
    assert set(adversarial.GENERATOR_LOSSES.values()) == set(FORMULAS)
    for name, loss in adversarial.GENERATOR_LOSSES.items():
        assert loss.__name__ == f"{name}_generator_loss"


@pytest.mark.parametrize("loss", FORMULAS)
def test_a_better_fake_lowers_the_generators_loss(loss):
    assert np.all(np.asarray(jax.grad(loss)(jnp.float32(FAKE))) < 0)


@pytest.mark.parametrize(
    ("logit", "discriminator", "saturating", "non_saturating"),
    # Of a fake: value and derivative of -log(1 - D), of log(1 - D), and of -log D.
    [
        (1e4, (1e4, 1.0), (-1e4, -1.0), (0.0, 0.0)),
        (0.0, (np.log(2), 0.5), (-np.log(2), -0.5), (np.log(2), -0.5)),
        (-1e4, (0.0, 0.0), (0.0, 0.0), (1e4, -1.0)),
    ],
)
def test_logits_of_any_size(logit, discriminator, saturating, non_saturating):
    sure = jnp.full(1, 1e9)
    for loss, wanted in [
        (lambda x: adversarial.discriminator_loss(sure, x), discriminator),
        (adversarial.saturating_generator_loss, saturating),
        (adversarial.non_saturating_generator_loss, non_saturating),
    ]:
        value, slope = jax.value_and_grad(loss)(jnp.full(1, logit))
        np.testing.assert_allclose((value, slope[0]), wanted, rtol=1e-6)


def test_l2_penalty():
    params = {"kernel": jnp.array([[1.0, -2.0], [0.0, 3.0]]), "bias": jnp.array([4.0])}
    assert adversarial.l2_penalty(params) == 15.0


def test_r1_penalty_is_the_slope_by_finite_differences(x64):
    weights, real = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 4, 3))

    def logit(x):
        return jnp.sum(jnp.tanh(weights * x)) ** 2

    def slope(x, step=1e-6):
        basis = step * np.eye(x.size).reshape(-1, *x.shape)
        return np.array([float(logit(x + b) - logit(x - b)) / (2 * step) for b in basis])

    wanted = 0.5 * np.mean([np.sum(slope(x) ** 2) for x in real])
    got = jax.jit(lambda x: adversarial.r1_penalty(logit, x))(real)
    np.testing.assert_allclose(got, wanted, rtol=1e-7)


def test_r1_penalty_averages_over_examples_of_any_rank():
    linear = jnp.array([3.0, 4.0])
    assert adversarial.r1_penalty(lambda x: x @ linear, jnp.zeros((6, 2))) == 12.5
    assert adversarial.r1_penalty(lambda x: 2.0 * x, jnp.zeros(6)) == 2.0
