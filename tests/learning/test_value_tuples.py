"""Training tuples of value networks: what they maximise, and that they are constants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.energy import gradient_inference
from gasn_jax.evaluation import overlap
from gasn_jax.learning import value_tuples

WEIGHTS = jnp.array([2.0, -1.0, 0.5, -3.0])
TRUE = jnp.array([0.0, 1.0, 1.0, 0.0])


def ascend(value_fn, start):
    return gradient_inference.maximize(value_fn, start, num_steps=200, step_size=0.2).y


def logit_fn(y, weights=WEIGHTS):
    return weights @ y


oracle_fn = functools.partial(overlap.f1, true=TRUE)


def test_inferred_outputs_have_the_highest_value():
    found = value_tuples.inferred(logit_fn, jnp.zeros(4), ascend=ascend)
    np.testing.assert_array_equal(found, [1, 0, 1, 0])


def test_adversarial_outputs_are_those_the_network_errs_on():
    found = value_tuples.adversarial(logit_fn, oracle_fn, TRUE, ascend=ascend)
    losses = {y: float(value_tuples.loss(logit_fn, oracle_fn, jnp.array(y))) for y in vertices()}
    got = float(value_tuples.loss(logit_fn, oracle_fn, found))
    start = losses[tuple(TRUE.tolist())]
    assert got > start + 0.3  # uphill from the true output
    assert sum(loss > got for loss in losses.values()) <= 2  # and above nearly all others


def test_an_ascent_from_the_true_output_takes_away_as_it_adds():
    found = value_tuples.adversarial(logit_fn, oracle_fn, TRUE, ascend=ascend)
    np.testing.assert_array_equal(found, [0, 1, 0, 1])  # where the network's value is lowest


@pytest.mark.parametrize("constant_oracle", [True, False])
def test_the_gradient_of_an_adversarial_ascent(constant_oracle):
    """That of the cross-entropy by hand, with the oracle's derivative and without."""
    y = jnp.array([0.3, 0.9, 0.2, 0.4])
    gradients = []

    def ascend(fn, start):
        gradients.append(jax.grad(fn)(start))
        return start

    options = dict(ascend=ascend, constant_oracle=constant_oracle)
    value_tuples.adversarial(logit_fn, oracle_fn, y, **options)
    value, oracle = jax.nn.sigmoid(logit_fn(y)), oracle_fn(y)
    wanted = (value - oracle) * WEIGHTS
    if not constant_oracle:
        wanted -= logit_fn(y) * jax.grad(oracle_fn)(y)
    np.testing.assert_allclose(gradients[0], wanted, rtol=1e-5)


def vertices():
    return [tuple(map(float, np.binary_repr(number, 4))) for number in range(16)]


def test_the_loss_is_the_cross_entropy():
    y = jnp.array([0.3, 0.9, 0.2, 0.0])
    value, oracle = 1 / (1 + np.exp(-float(logit_fn(y)))), float(oracle_fn(y))
    wanted = -oracle * np.log(value) - (1 - oracle) * np.log(1 - value)
    assert float(value_tuples.loss(logit_fn, oracle_fn, y)) == pytest.approx(wanted, rel=1e-5)


def test_tuples_are_constants_of_the_network():
    def of_weights(weights):
        fn = functools.partial(logit_fn, weights=weights)
        found = value_tuples.inferred(fn, jnp.full(4, 0.5), ascend=lambda f, y: y + jax.grad(f)(y))
        other = value_tuples.adversarial(
            fn, oracle_fn, TRUE, ascend=lambda f, y: y + jax.grad(f)(y)
        )
        return jnp.sum(found) + jnp.sum(other)

    np.testing.assert_array_equal(jax.grad(of_weights)(WEIGHTS), 0)
