"""Chow-Liu trees against all trees, and data that come from a tree."""

import itertools

import numpy as np
import pytest

from gasn_jax.learning import chow_liu


def mutual_information(x, y):
    total = 0.0
    for a, b in itertools.product(set(x), set(y)):
        joint = np.mean((x == a) & (y == b))
        if joint:
            total += joint * np.log(joint / (np.mean(x == a) * np.mean(y == b)))
    return total


def every_tree(num_variables):
    """Parents of all labelled trees rooted in 0."""
    for parents in itertools.product(range(num_variables), repeat=num_variables - 1):
        above = (-1, *parents)
        reached = [0]
        for _ in range(num_variables):
            reached += [i for i in range(num_variables) if above[i] in reached and i not in reached]
        if len(reached) == num_variables:
            yield above


@pytest.mark.parametrize("seed", range(5))
def test_no_tree_has_more_mutual_information(seed):
    states = np.random.default_rng(seed).integers(0, 3, size=(12, 5))
    states[:, 3] = np.where(states[:, 0] == 1, states[:, 1], states[:, 3])

    def total(above):
        pairs = ((i, j) for i, j in enumerate(above) if j >= 0)
        return sum(mutual_information(states[:, i], states[:, j]) for i, j in pairs)

    trees = list(every_tree(5))
    assert len(trees) == 125  # Cayley: 5^3
    found = chow_liu.parents(states, 3)
    assert tuple(found) in trees and found.dtype == np.int32
    assert total(found) == pytest.approx(max(map(total, trees)), abs=1e-12)


def test_a_walk_is_found_whatever_the_order_of_its_variables():
    rng = np.random.default_rng(0)
    flips = rng.random((4000, 6)) < 0.2
    walk = np.cumsum(flips, axis=1) % 2
    order = np.array([3, 0, 5, 1, 4, 2])  # column k of the data is step order[k] of the walk
    above = chow_liu.parents(walk[:, order], 2)
    edges = {frozenset((int(order[i]), int(order[j]))) for i, j in enumerate(above) if j >= 0}
    assert edges == {frozenset((i, i + 1)) for i in range(5)}


def test_constant_variables_and_a_single_one():
    assert chow_liu.parents(np.zeros((3, 1), int), 1).tolist() == [-1]
    above = chow_liu.parents(np.zeros((3, 4), int), 2)
    assert above[0] == -1 and tuple(above) in list(every_tree(4))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (np.zeros(3, int), r"states must have shape \[M, N\], got \[3\]"),
        (np.zeros((0, 3), int), r"states must have shape \[M, N\], got \[0, 3\]"),
        (np.full((2, 2), 2), "states must be 0..1, got 2"),
        (np.full((2, 2), 0.5), "states must be 0..1, got 0.5"),
        (np.full((2, 2), np.nan), "states must be 0..1, got nan"),
    ],
)
def test_other_data_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        chow_liu.parents(states, 2)
