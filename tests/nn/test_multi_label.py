"""Networks over labels, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gasn_jax.nn import multi_label

X = np.random.default_rng(0).normal(size=7).astype(np.float32)
Y = np.array([1.0, 0.0, 0.3], np.float32)


def dense(params, name, x):
    return x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])


def test_the_value_is_that_of_the_formula():
    model = multi_label.LabelValue(3, (5,), num_interactions=4)
    variables = model.init(jax.random.key(0), X, Y)
    params = variables["params"]
    features = np.maximum(dense(params, "layers_0", X), 0)
    unary = Y @ dense(params, "unary", features)
    interactions = np.log1p(np.exp(dense(params, "interactions", Y)))
    wanted = unary + dense(params, "last", interactions)[0]
    np.testing.assert_allclose(model.apply(variables, X, Y), wanted, rtol=1e-5)


def test_the_network_is_logistic_regression_without_hidden_layers():
    model = multi_label.LabelNetwork(3, ())
    variables = model.init(jax.random.key(0), X)
    np.testing.assert_allclose(
        model.apply(variables, X), dense(variables["params"], "Dense_0", X), rtol=1e-4, atol=1e-6
    )
    rare = multi_label.LabelNetwork(3, (5,), initial_logit=-2.0)
    none = np.zeros(7, np.float32)
    np.testing.assert_array_equal(rare.apply(rare.init(jax.random.key(0), X), none), -2.0)
    deeper = multi_label.LabelNetwork(3, (6, 5))
    assert deeper.apply(deeper.init(jax.random.key(0), X), X).shape == (3,)


def test_dropout_is_only_there_in_training():
    for model, inputs in (
        (multi_label.LabelNetwork(3, (8,), 0.5), (X,)),
        (multi_label.LabelValue(3, (8,), 4, 0.5), (X, Y)),
    ):
        variables = model.init(jax.random.key(0), *inputs)
        rngs = {"dropout": jax.random.key(1)}
        dropped = model.apply(variables, *inputs, deterministic=False, rngs=rngs)
        assert np.any(dropped != model.apply(variables, *inputs))
        assert jnp.shape(dropped) == jnp.shape(model.apply(variables, *inputs))


def test_labels_that_are_none_or_too_few_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="num_labels: wanted >= 1, got 0"):
        multi_label.LabelNetwork(0).init(key, X)
    with pytest.raises(ValueError, match="num_labels: wanted >= 1, got 0"):
        multi_label.LabelValue(0).init(key, X, Y[:0])
    with pytest.raises(ValueError, match="num_interactions: wanted >= 1, got 0"):
        multi_label.LabelValue(3, num_interactions=0).init(key, X, Y)
    with pytest.raises(ValueError, match=r"y: wanted shape \(3,\), got \(2,\)"):
        multi_label.LabelValue(3).init(key, X, Y[:2])
