import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from gasn_jax.data import digits


def test_the_parts_are_a_partition_of_the_bundled_images():
    parts = digits.load()
    assert [part.labels.size for part in parts] == list(digits.SPLIT_SIZES)
    for part in parts:
        assert part.images.dtype == part.labels.dtype == np.int32
        assert part.images.shape == (part.labels.size, digits.HEIGHT, digits.WIDTH)
    images = np.concatenate([part.images.reshape(-1, 64) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    bundled = datasets.load_digits()
    rows = np.concatenate([images, labels[:, None]], 1)
    expected = np.concatenate([bundled["data"] >= 8, bundled["target"][:, None]], 1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.astype(int).tolist()))


def test_the_split_never_changes():
    # Published numbers rest on this split; the labels pin the permutation.
    parts = digits.load()
    assert parts.train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    assert parts.validation.labels[:8].tolist() == [5, 3, 9, 6, 1, 6, 0, 6]
    assert parts.test.labels[:8].tolist() == [8, 8, 2, 2, 2, 9, 8, 8]


def test_the_threshold_is_the_lowest_grey_level_of_ink():
    grey = datasets.load_digits()["images"]
    for threshold in (1, 8, 16):
        ink = sum(int(part.images.sum()) for part in digits.load(threshold=threshold))
        assert ink == int((grey >= threshold).sum())


@pytest.mark.parametrize("threshold", [0, 17, -3])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold must be in 1..16, got {threshold}"):
        digits.load(threshold=threshold)


def test_without_scikit_learn_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match="scikit-learn, which is not installed"):
        digits.load()


def test_the_snake_by_hand():
    assert digits.snake_order(3, 3).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    assert digits.snake_order(1, 4).tolist() == [0, 1, 2, 3]
    assert digits.snake_order(3, 1).tolist() == [0, 1, 2]


@given(st.integers(1, 12), st.integers(1, 12))
def test_the_snake_visits_every_pixel_and_steps_to_neighbours(height, width):
    order = digits.snake_order(height, width)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(height * width))
    rows, columns = np.divmod(order, width)
    assert np.all(np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1)


@given(st.permutations(range(9)))
def test_the_inverse_undoes_a_permutation(order):
    order = np.array(order)
    inverse = digits.inverse_order(order)
    values = np.arange(100, 109)
    assert inverse.dtype == np.int32
    assert np.array_equal(values[order][inverse], values)
    assert np.array_equal(values[inverse][order], values)


@pytest.mark.parametrize("order", [[0, 0], [1, 2], [[0, 1]], [-1, 0]])
def test_what_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="order must be a permutation"):
        digits.inverse_order(np.array(order))


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match="height and width"):
        digits.snake_order(0, 3)
