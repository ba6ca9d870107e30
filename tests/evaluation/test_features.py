"""Statistics in a feature space against what one can count, and against scipy's square root."""

import numpy as np
import pytest
import scipy.linalg

from gasn_jax.evaluation import features

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("m", "k", "dimension"), [(50, 40, 3), (7, 30, 12), (300, 300, 1)])
def test_the_distance_is_that_of_the_formula(m, k, dimension):
    x = RNG.normal(size=(m, dimension)) @ RNG.normal(size=(dimension, dimension)) + 1
    y = RNG.normal(size=(k, dimension)) ** 3
    first, second = (np.atleast_2d(np.cov(rows.T)) for rows in (x, y))
    root = scipy.linalg.sqrtm(first @ second).real
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first + second - 2 * root)
    got = features.frechet_distance(x, y)
    assert got == pytest.approx(wanted, rel=1e-4)
    assert features.frechet_distance(y, x) == pytest.approx(got)


def test_the_distance_of_what_is_alike_is_zero():
    x = RNG.normal(size=(20, 5))
    assert features.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert features.frechet_distance(x, x + 2) == pytest.approx(20)
    assert features.frechet_distance(np.ones((3, 2)), np.ones((3, 2))) == 0


def test_bad_features_are_refused():
    x = np.ones((3, 2))
    for bad, message in (
        (np.ones((1, 2)), "y must have shape"),
        (np.ones((3, 4)), "y must have shape"),
        (np.full((3, 2), np.nan), "y must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            features.frechet_distance(x, bad)


def test_classes_are_counted():
    assert features.class_entropy(np.arange(10), 10) == pytest.approx(np.log(10))
    assert features.class_entropy(np.zeros(5, int), 10) == 0
    assert features.class_entropy(np.array([0, 0, 1, 1]), 3) == pytest.approx(np.log(2))
    assert features.class_coverage(np.arange(10), 10) == 1
    assert features.class_coverage(np.zeros(5, int), 10) == pytest.approx(0.1)
    # Class 1 occurs 1 time in 101, of 10 classes: about 0.099 times its share.
    rare = np.array([0] * 100 + [1])
    assert features.class_coverage(rare, 10) == pytest.approx(0.1)
    assert features.class_coverage(rare, 10, least=0.05) == pytest.approx(0.2)
    for bad in (np.array([], int), np.array([10]), np.array([-1]), np.zeros((2, 2), int)):
        with pytest.raises(ValueError, match="classes must"):
            features.class_entropy(bad, 10)


def test_the_correlation_with_the_start_is_that_of_an_autoregression():
    start = RNG.normal(size=(20_000, 2)) * np.array([1.0, 3.0]) + 5
    chains, now = [], start - 5
    for _ in range(3):
        now = 0.6 * now + 0.8 * RNG.normal(size=now.shape) * np.array([1.0, 3.0])
        chains.append(now + 5)
    got = features.correlation_with_start(start, np.stack(chains, axis=1))
    np.testing.assert_allclose(got, [0.6, 0.36, 0.216], atol=0.02)
    same = np.repeat(start[:, None], 2, axis=1)
    np.testing.assert_allclose(features.correlation_with_start(start, same), 1)
    np.testing.assert_array_equal(features.correlation_with_start(start, 0 * same), 0)
    with pytest.raises(ValueError, match=r"chains must have shape \[20000, T, 2\]"):
        features.correlation_with_start(start, start)


def test_the_correlation_of_what_does_not_vary_is_zero():
    start = np.full((3, 2), 0.1)
    for value in (0.1, 0.7):
        np.testing.assert_array_equal(
            features.correlation_with_start(start, np.full((3, 2, 2), value)), 0
        )
