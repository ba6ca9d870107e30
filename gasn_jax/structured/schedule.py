"""Where the messages of a factor graph lie, and which are sent together; in numpy.

A *slot* is one variable of one factor, and has one message. Slots are numbered in the order of
sending, block after block: the slots of a block belong to variables of which no two share a factor
(one colour), or to all variables (a parallel schedule). Inside a block, slots at the same place
of factors of the same arity form a group.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from gasn_jax.structured.graph import FactorGraph


class Group(NamedTuple):
    """Slots at one place of factors of one arity."""

    number: int  # of the group, among all
    arity: int  # index in the graph's ``factors``
    place: int  # which of the factor's variables
    factors: Int[np.ndarray, "G"]
    others: Int[np.ndarray, "arity-1 G"]  # slots of the factor's other variables, in order


class Block(NamedTuple):
    """Slots ``start .. stop - 1``, which are sent together, and their variables by degree."""

    start: int
    stop: int
    groups: tuple[Group, ...]
    variables: Int[np.ndarray, "V"]
    incident: tuple[Int[np.ndarray, "degree n"], ...]  # their slots less start, by degree
    owner: Int[np.ndarray, "stop-start"]  # the place in ``variables`` of each slot's variable


class Plan(NamedTuple):
    """The schedule of a graph.

    Attributes:
      blocks: in the order of sending; each slot is in one of them.
      whole: all slots and all variables, also those without factors.
      alone: the variables without factors, and no slots.
      variable: of each slot, [M].
      slots: of each factor, for each arity [arity, F].
      order: the place in ``whole.variables`` of each variable, [N].
    """

    blocks: tuple[Block, ...]
    whole: Block
    alone: Block
    variable: Int[np.ndarray, "M"]
    slots: tuple[Int[np.ndarray, "arity F"], ...]
    order: Int[np.ndarray, "N"]


@functools.lru_cache(maxsize=64)
def plan(graph: FactorGraph, coloured: bool) -> Plan:
    """One block for each colour that has factors; or one for all. O(M log M) and the colouring."""
    colour = colours(graph) if coloured else np.zeros(graph.num_variables, int)
    places = []  # block, arity, place, factors
    for number in range(colour.max() + 1):
        for arity, rows in enumerate(graph.factors):
            chosen = (np.flatnonzero(colour[column] == number) for column in rows.T)
            places += [
                (number, arity, place, c.astype(np.int32))
                for place, c in enumerate(chosen)
                if len(c)
            ]

    slots = tuple(np.empty(rows.T.shape, np.int32) for rows in graph.factors)
    ends = np.cumsum([len(factors) for *_, factors in places], dtype=int)
    for (_, arity, place, factors), end in zip(places, ends, strict=True):
        slots[arity][place, factors] = np.arange(end - len(factors), end)
    variable = np.empty(ends[-1] if len(ends) else 0, np.int32)
    for rows, numbers in zip(graph.factors, slots, strict=True):
        variable[numbers] = rows.T

    groups = [
        Group(number, arity, place, factors, np.delete(slots[arity], place, 0)[:, factors])
        for number, (_, arity, place, factors) in enumerate(places)
    ]
    blocks, start = [], 0
    for number in dict.fromkeys(block for block, *_ in places):
        members = tuple(g for g, p in zip(groups, places, strict=True) if p[0] == number)
        stop = start + sum(len(group.factors) for group in members)
        owners = variable[start:stop]
        blocks.append(Block(start, stop, members, *_incident(owners, np.unique(owners))))
        start = stop
    everyone = np.arange(graph.num_variables)
    whole = Block(0, start, tuple(groups), *_incident(variable, everyone))
    alone = Block(0, 0, (), *_incident(variable[:0], np.setdiff1d(everyone, variable)))
    order = np.argsort(whole.variables).astype(np.int32)
    return Plan(tuple(blocks), whole, alone, variable, slots, order)


@functools.lru_cache(maxsize=64)
def colours(graph: FactorGraph) -> Int[np.ndarray, "N"]:
    """A colour for each variable, none twice in a factor: the first free one, in order."""
    neighbours: list[set[int]] = [set() for _ in range(graph.num_variables)]
    for rows in graph.factors:
        for factor in rows.tolist():
            for variable in factor:
                neighbours[variable].update(factor)
    colour = [-1] * graph.num_variables
    for variable, near in enumerate(neighbours):
        taken = {colour[other] for other in near}
        colour[variable] = next(c for c in range(len(taken) + 1) if c not in taken)
    return np.array(colour)


def _incident(owners, variables):
    """The variables by degree; for each degree, their slots; and where each slot's variable is."""
    degree = np.bincount(owners, minlength=variables.max(initial=0) + 1)[variables]
    variables = variables[np.argsort(degree, kind="stable")]
    by_owner = np.argsort(owners, kind="stable")
    first = np.searchsorted(owners[by_owner], variables)
    degree = np.sort(degree)
    incident = tuple(
        by_owner[first[degree == size] + np.arange(size)[:, None]].astype(np.int32)
        for size in np.unique(degree)
    )
    place = np.empty(variables.max(initial=0) + 1, np.int32)
    place[variables] = np.arange(len(variables))
    return variables.astype(np.int32), incident, place[owners]
