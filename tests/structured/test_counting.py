"""Counting numbers, spanning trees, and the schedule of messages."""

import numpy as np
import pytest

from gasn_jax.structured import counting, graph, schedule

GRAPHS = {
    "grid": graph.grid(4, 5, 2),
    "grid-8": graph.grid(3, 4, 2, neighbours=8),
    "forest": graph.from_edges(7, 3, [(1, 0), (0, 2), (3, 0), (6, 5)]),
    "star": graph.tree(2, [-1] + [0] * 9),
    "regions": graph.from_regions(7, 2, [(0, 1, 2), (2, 3), (3, 4, 5, 0), (1, 4), (5, 2, 3)]),
    "alone": graph.FactorGraph(3, 2, ()),
}
PAIRWISE = [name for name in GRAPHS if name != "regions"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in GRAPHS for kind in (counting.bethe, counting.convex)),
        *((name, counting.tree_reweighted) for name in PAIRWISE),
    ],
)
def test_every_variable_is_counted_once_in_all(name, kind):
    structure = GRAPHS[name]
    numbers = kind(structure)
    total = np.array(numbers.variables, float)
    for rows, values in zip(structure.factors, numbers.factors, strict=True):
        assert values.shape == (len(rows),) and np.all(np.asarray(values) > 0)
        np.add.at(total, rows, np.asarray(values)[:, None])
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    if kind is counting.convex:
        assert np.all(np.asarray(numbers.variables) >= 0)
    is_forest = name in ("forest", "star", "alone")
    assert numbers.concave == (kind is not counting.bethe or is_forest)


@pytest.mark.parametrize("name", PAIRWISE)
def test_even_appearances_are_those_of_spanning_trees(name):
    structure = GRAPHS[name]
    if not structure.factors:
        return
    shares = counting.even_appearances(structure)
    # In each tree of a component with n variables are n - 1 edges.
    components = structure.num_variables - len(
        counting.spanning_tree(structure, np.zeros(len(shares)))
    )
    assert shares.sum() == pytest.approx(structure.num_variables - components)
    if name in ("forest", "star"):
        np.testing.assert_array_equal(shares, 1.0)
    elif name == "grid":
        assert 0.4 < shares.min() and shares.max() < 0.85  # corners need more


def test_a_spanning_tree_is_the_cheapest():
    structure = graph.from_edges(4, 2, [(0, 1), (1, 2), (2, 0), (2, 3)])
    assert sorted(counting.spanning_tree(structure, np.array([3.0, -1.0, 0.0, 9.0]))) == [1, 2, 3]


def test_appearances_are_checked():
    structure = GRAPHS["grid"]
    with pytest.raises(ValueError, match=r"appearances must have shape \(31,\), got \(3,\)"):
        counting.tree_reweighted(structure, np.ones(3))
    shares = np.full(31, 0.5)
    shares[4] = 0.0
    with pytest.raises(ValueError, match=r"appearances must be in \(0, 1\], got 0.0 for factor 4"):
        counting.tree_reweighted(structure, shares)
    with pytest.raises(ValueError, match=r"must join 2 variables, got arities \(2, 3, 4\)"):
        counting.tree_reweighted(GRAPHS["regions"])


def test_numbers_of_ones_own_are_checked():
    structure = graph.from_edges(3, 2, [(0, 1), (1, 2)])
    counting.check_values(structure, counting.bethe(structure))

    def numbers(variables, factors):
        return counting.CountingNumbers(np.array(variables), (np.array(factors),), False)

    counting.check_values(structure, numbers([0.0, -1.9, 0.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match=r"must be finite and > 0, got 0.0 for factor \(1, 2\)"):
        counting.check_values(structure, numbers([1.0, 1.0, 1.0], [1.0, 0.0]))
    with pytest.raises(
        ValueError, match=r"must together be finite and > 0, got 0.0 for variable 1"
    ):
        counting.check_values(structure, numbers([1.0, -2.0, 1.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match=r"shapes \[\(3,\), \(2,\)\], got \[\(3,\), \(1,\)\]"):
        counting.check_values(structure, numbers([1.0, 1.0, 1.0], [1.0]))


def test_without_edges_there_is_nothing_to_appear():
    structure = graph.from_edges(3, 2, [])
    assert counting.even_appearances(structure).shape == (0,)
    assert counting.spanning_tree(structure, np.zeros(0)).shape == (0,)
    numbers = counting.tree_reweighted(structure)
    assert numbers.factors == () and np.all(numbers.variables == 1)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("coloured", [False, True])
def test_a_schedule_sends_every_slot_once_and_never_two_of_a_factor(name, coloured):
    structure = GRAPHS[name]
    plan = schedule.plan(structure, coloured)
    num_slots = sum(rows.size for rows in structure.factors)
    assert sorted(np.concatenate([s.ravel() for s in (*plan.slots, np.zeros(0))])) == list(
        range(num_slots)
    )
    for rows, slots in zip(structure.factors, plan.slots, strict=True):
        np.testing.assert_array_equal(plan.variable[slots], rows.T)
    assert plan.whole.stop == num_slots and (coloured or len(plan.blocks) <= 1)
    np.testing.assert_array_equal(
        plan.whole.variables[plan.order], np.arange(structure.num_variables)
    )
    end = 0
    for block in plan.blocks:
        assert block.start == end
        end = block.stop
        np.testing.assert_array_equal(
            block.variables[block.owner], plan.variable[block.start : block.stop]
        )
        at = 0
        for slots in block.incident:
            for column, variable in enumerate(block.variables[at : at + slots.shape[1]]):
                own = np.flatnonzero(plan.variable == variable) - block.start
                assert sorted(slots[:, column]) == own.tolist()
            at += slots.shape[1]
        assert at == len(block.variables)
        for group in block.groups:
            rows = structure.factors[group.arity][group.factors]
            others = np.delete(rows, group.place, axis=1)
            np.testing.assert_array_equal(plan.variable[group.others], others.T)
        if coloured:
            senders = {slot for group in block.groups for slot in group.others.ravel().tolist()}
            assert not senders & set(range(block.start, block.stop))
    assert end == num_slots


def test_a_grid_and_a_star_have_two_colours():
    assert schedule.colours(graph.grid(30, 40, 2)).max() == 1
    assert schedule.colours(GRAPHS["star"]).tolist() == [0] + [1] * 9
