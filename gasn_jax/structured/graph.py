r"""Factor graphs: which variables share a factor, and the score of their states.

.. math:: F(x) = \sum_{i=1}^{N} u_i(x_i) + \sum_{f} w_f(x_f)

A :class:`FactorGraph` is static: built once in numpy, hashable, an argument that ``jax.jit`` treats
as a constant. The potentials are a plain pytree beside it, scores, higher is better:

* ``unary``: u, [N, L]; a variable with fewer than L states has ``-inf`` in the others;
* ``factors``: w, a tuple with one array for each arity of the graph, in its order: [F, L, L] for
  the F factors of two variables, [F, L, L, L] for those of three, and so on. Axis k + 1 is the
  state of the factor's k-th variable.

A forbidden state or combination has the score ``-inf``. Functions take one example; batch them with
``jax.vmap`` over the potentials.

Reference: London and Schwing, "Generative Adversarial Structured Networks", Equation 4: a factor is
a region r with more than one variable.
"""

import dataclasses
import hashlib
import json
import numbers
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from gasn_jax import checks

Factors = tuple[Float[Array, "F *L"], ...]

_ARITIES = range(2, 5)
_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class FactorGraph:
    """Variables 0..N-1 with L states each, and the factors that join them.

    Equal graphs are equal keys: two builds of the same graph share one compiled program.

    Attributes:
      num_variables: N >= 1.
      num_states: L >= 1, the most that any variable has.
      factors: for each arity that occurs, ascending, the variables of its factors, read-only int32
        [F, arity] with arity in 2..4. No factor names a variable twice, and no two factors join
        the same variables.

    Raises:
      ValueError: names the first factor that is not like this, and what was wanted.
    """

    num_variables: int
    num_states: int
    factors: tuple[Int[np.ndarray, "F arity"], ...]

    def __post_init__(self):
        """Checks and freezes the arrays; O(F log F) in numpy."""
        for name in ("num_variables", "num_states"):
            size = getattr(self, name)
            if not isinstance(size, numbers.Integral) or size < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {size}")
            object.__setattr__(self, name, int(size))  # numpy's would make equal graphs differ
        arrays = [_checked(np.asarray(rows), self.num_variables) for rows in self.factors]
        arrays = sorted((rows for rows in arrays if len(rows)), key=lambda rows: rows.shape[1])
        arities = [rows.shape[1] for rows in arrays]
        if len(set(arities)) < len(arities):
            raise ValueError(f"factors must have one array for each arity, got arities {arities}")
        object.__setattr__(self, "factors", tuple(arrays))
        digest = hashlib.sha256(repr((self.num_variables, self.num_states, arities)).encode())
        for rows in arrays:
            digest.update(rows.data)
        object.__setattr__(self, "_key", digest.digest())

    def __eq__(self, other: object) -> bool:
        """Whether both have the same variables, states and factors, in the same order."""
        return isinstance(other, FactorGraph) and self._key == other._key  # pyright: ignore

    def __hash__(self) -> int:
        """Of what ``__eq__`` compares, computed once."""
        return hash(self._key)  # pyright: ignore

    def __repr__(self) -> str:
        """Sizes, not the factors."""
        counts = ", ".join(f"{len(rows)} factors of {rows.shape[1]}" for rows in self.factors)
        states = f"{self.num_variables} variables with {self.num_states} states"
        return f"FactorGraph({states}, {counts or 'no factors'})"

    @property
    def arities(self) -> tuple[int, ...]:
        """How many variables the factors of each array in ``factors`` have."""
        return tuple(rows.shape[1] for rows in self.factors)

    @property
    def factor_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that the potentials of ``factors`` have."""
        return tuple((len(rows), *(self.num_states,) * rows.shape[1]) for rows in self.factors)


class Marginals(NamedTuple):
    """What inference in a graph gives.

    Attributes:
      log_partition: ``log Z``, scalar.
      unary: ``p(x_i)``, [N, L].
      factors: the joint probabilities of each factor's variables, of the potentials' shapes.
    """

    log_partition: Float[Array, ""]
    unary: Float[Array, "N L"]
    factors: Factors


def from_edges(
    num_variables: int, num_states: int, edges: Int[np.ndarray, "F 2"] | Sequence[tuple[int, int]]
) -> FactorGraph:
    """A pairwise graph with the factors ``edges``, in this order.

    Raises:
      ValueError: for edges that are not pairs of different variables of the graph, each once.
    """
    try:
        pairs: np.ndarray = np.asarray(edges)
    except ValueError:  # rows of several lengths
        pairs = np.zeros(0)
    if len(edges) and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise ValueError(f"edges must have shape [F, 2], got {list(pairs.shape)} or uneven rows")
    return FactorGraph(num_variables, num_states, (np.reshape(pairs, (-1, 2)),))


def from_regions(
    num_variables: int, num_states: int, regions: Iterable[Sequence[int]]
) -> FactorGraph:
    """A graph with factors of 2 to 4 variables, of each arity in the order given."""
    by_arity: dict[int, list[Sequence[int]]] = {}
    for number, region in enumerate(regions):
        if len(region) not in _ARITIES:
            raise ValueError(f"region {number} must join 2 to 4 variables, got {tuple(region)}")
        by_arity.setdefault(len(region), []).append(region)
    return FactorGraph(num_variables, num_states, tuple(np.array(r) for r in by_arity.values()))


def chain(num_variables: int, num_states: int) -> FactorGraph:
    """A chain; factor i joins i and i + 1, as in :mod:`gasn_jax.structured.chain`."""
    steps = np.arange(max(num_variables - 1, 0))
    return from_edges(num_variables, num_states, np.stack([steps, steps + 1], axis=1))


def tree(num_states: int, parents: Sequence[int] | Int[np.ndarray, "N"]) -> FactorGraph:
    """A tree or forest; ``parents[i] < 0`` makes i a root. Factors (parent, child) by child.

    Raises:
      ValueError: if the parents form a cycle or name a missing variable.
    """
    parents = np.asarray(parents)
    children = np.flatnonzero(parents >= 0)
    edges = np.stack([parents[children], children], axis=1)
    graph = from_edges(len(parents), num_states, edges)
    # Everyone's parent's parent's ... parent, in log N doublings: without a cycle, a root's.
    above = np.append(np.where(parents < 0, len(parents), parents), len(parents))
    for _ in range(len(parents).bit_length()):
        above = above[above]
    if np.any(above != len(parents)):
        number = int(np.argmax(above != len(parents)))
        raise ValueError(f"parents must not form a cycle, variable {number} never meets a root")
    return graph


def grid(height: int, width: int, num_states: int, *, neighbours: int = 4) -> FactorGraph:
    """A grid; variable ``row * width + column``. Factors rightward, then downward, then diagonal.

    Args:
      height, width: of the grid.
      num_states: L.
      neighbours: 4, or 8 with both diagonals.

    Raises:
      ValueError: if ``neighbours`` is neither, or a size is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be >= 1, got {height} and {width}")
    if neighbours not in (4, 8):
        raise ValueError(f"neighbours must be 4 or 8, got {neighbours}")
    index = np.arange(height * width).reshape(height, width)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    if neighbours == 8:
        pairs += [(index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    return from_edges(height * width, num_states, edges)


def score(
    graph: FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: Factors,
) -> Float[Array, ""]:
    """The score ``F(x)`` of one assignment (GASN paper, Equation 4).

    Args:
      graph: the structure, static.
      states: [N] integers in 0..L-1.
      unary, factors: the potentials, see the module.

    Returns:
      Scalar; ``-inf``, with gradient 0, for a forbidden assignment and if a state lies outside
      0..L-1. O(N + number of factors).

    Raises:
      ValueError: at trace time, for shapes that are not the graph's, and for states that are no
        integers.
    """
    check_shapes(graph, unary, factors)
    states = checks.integers("states", states, (graph.num_variables,))
    safe = jnp.clip(states, 0, graph.num_states - 1)
    terms = [jnp.take_along_axis(jnp.asarray(unary), safe[:, None], axis=1)[:, 0]]
    for rows, table in zip(graph.factors, factors, strict=True):
        terms.append(jnp.asarray(table)[(np.arange(len(rows)), *safe[rows].T)])
    terms = jnp.concatenate(terms)
    forbidden = jnp.any(terms == -jnp.inf) | jnp.any(safe != states)
    return jnp.where(forbidden, -jnp.inf, jnp.sum(terms))


def log_prob(
    graph: FactorGraph,
    states: Int[Array, "N"],
    unary: Float[Array, "N L"],
    factors: Factors,
    *,
    log_partition: Float[Array, ""],
    temperature: Float[Array, ""] | float = 1.0,
) -> Float[Array, ""]:
    """``F(x) / temperature - log Z`` of one assignment, for a log-partition function that is known.

    Args:
      graph, states, unary, factors: as for :func:`score`.
      log_partition: at this temperature: of an exact engine; or an upper bound by
        :mod:`gasn_jax.structured.belief_propagation`, which makes this a lower bound.
      temperature: epsilon > 0.

    Returns:
      Scalar, ``-inf`` for what :func:`score` forbids. Trees, chains and grids have a ``log_prob``
      of their own, which does not cancel where scores are large.
    """
    value = score(graph, states, unary, factors)
    possible = value != -jnp.inf
    value = jnp.where(possible, value, 0.0) / temperature - log_partition
    return jnp.where(possible, value, -jnp.inf)


def clamp(unary: Float[Array, "N L"], evidence: Int[Array, "N"]) -> Float[Array, "N L"]:
    """Unary potentials in which observed variables keep their observed state only.

    Args:
      unary: scores, [N, L].
      evidence: the observed state of each variable, -1 where it is not observed; [N].

    Returns:
      [N, L]; ``-inf`` elsewhere. What is computed from them is conditioned on the evidence, and
      ``log_partition`` is the joint one of the evidence. A state >= L makes the model infeasible.

    Raises:
      ValueError: at trace time, for evidence of another shape, or that is no integers.
    """
    evidence = checks.integers("evidence", evidence, jnp.shape(unary)[:1])
    states = jnp.arange(jnp.shape(unary)[1])[None, :]
    allowed = (evidence < 0)[:, None] | (states == evidence[:, None])
    return jnp.where(allowed, unary, -jnp.inf)


def pairwise_potentials(
    graph: FactorGraph, unary: Float[Array, "N L"], factors: Factors
) -> tuple[Float[Array, "N L"], Float[Array, "F L L"]]:
    """The potentials of a graph without larger factors, of one dtype; F = 0 without any factor.

    Raises:
      ValueError: at trace time, for shapes that are not the graph's.
    """
    check_shapes(graph, unary, factors)
    dtype = jnp.result_type(unary, *factors, float)
    none = jnp.zeros((0, graph.num_states, graph.num_states), dtype)
    return jnp.asarray(unary, dtype), jnp.asarray(factors[0], dtype) if factors else none


def check_shapes(graph: FactorGraph, unary: ArrayLike, factors: Sequence[ArrayLike]) -> None:
    """Raises ``ValueError`` naming the potentials whose shape is not the graph's."""
    if not isinstance(factors, (tuple, list)):
        raise ValueError(f"factors must be a tuple of arrays, got {type(factors).__name__}")
    wanted = {"unary": (graph.num_variables, graph.num_states)}
    wanted |= {f"factors[{i}]": shape for i, shape in enumerate(graph.factor_shapes)}
    if len(factors) != len(graph.factors):
        raise ValueError(
            f"factors must be {len(graph.factors)} arrays, for arities {graph.arities}, "
            f"got {len(factors)}"
        )
    for (name, shape), array in zip(wanted.items(), (unary, *factors), strict=True):
        if jnp.shape(array) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {jnp.shape(array)}")


def is_valid(unary: Float[Array, "N L"], factors: Sequence[Array]) -> Bool[Array, ""]:
    """Whether no potential is NaN or ``+inf``; for compiled code, see :func:`check_values`."""
    bad = [jnp.any(jnp.isnan(x) | (x == jnp.inf)) for x in map(jnp.asarray, (unary, *factors))]
    return ~jnp.any(jnp.stack(bad))


def check_values(graph: FactorGraph, unary: ArrayLike, factors: Sequence[ArrayLike]) -> None:
    """Raises ``ValueError`` for the first NaN or ``+inf``, naming its variable or factor.

    For arrays with values, outside ``jax.jit``; the shapes are checked too.
    """
    check_shapes(graph, unary, factors)
    for array, places in zip((unary, *factors), (None, *graph.factors), strict=True):
        values = np.asarray(jax.device_get(array))
        bad = np.isnan(values) | (values == np.inf)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            variables = where[0] if places is None else tuple(places[where[0]].tolist())
            kind = "variable" if places is None else "factor"
            raise ValueError(
                f"potentials must be finite or -inf, got {values[where]} for {kind} {variables}, "
                f"states {where[1:]}"
            )


def save(path: str | os.PathLike, graph: FactorGraph, unary: ArrayLike, factors: Factors) -> None:
    """Writes ``path.json``, which says what it is, and ``path.npz`` with the arrays.

    Args:
      path: without a suffix; its folder must exist.
      graph: the structure.
      unary, factors: the potentials, see the module; their dtypes are kept, but bfloat16 becomes
        float32.

    Raises:
      ValueError: as :func:`check_values`; nothing is written then.
    """
    check_values(graph, unary, factors)
    sizes = {"num_variables": graph.num_variables, "num_states": graph.num_states}
    description = {"format": _FORMAT, **sizes, "arities": list(graph.arities)}
    arrays: dict[str, Any] = {"unary": _plain(unary)}
    for arity, rows, table in zip(graph.arities, graph.factors, factors, strict=True):
        arrays |= {f"variables_{arity}": rows, f"factors_{arity}": _plain(table)}
    np.savez(_with_suffix(path, ".npz"), **arrays)
    text = json.dumps(description, indent=1) + "\n"
    _with_suffix(path, ".json").write_text(text, encoding="utf-8")


def load(
    path: str | os.PathLike,
) -> tuple[FactorGraph, Float[np.ndarray, "N L"], tuple[Float[np.ndarray, "F *L"], ...]]:
    """The graph and its potentials ``(graph, unary, factors)``, as ``save`` wrote them.

    Raises:
      FileNotFoundError: if one of the two files is missing.
      ValueError: if one is damaged, of another format, or holds no factor graph, or a NaN or
        ``+inf`` among the potentials; one line.
    """
    json_path, npz_path = _with_suffix(path, ".json"), _with_suffix(path, ".npz")
    try:
        description = json.loads(json_path.read_text(encoding="utf-8"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {description['format']!r}")
        arities = description["arities"]
        with open(npz_path, "rb") as file:
            if not zipfile.is_zipfile(file):  # else numpy takes it for a pickle, and says so
                raise ValueError(f"{npz_path.name} is not an .npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                variables = tuple(arrays[f"variables_{arity}"] for arity in arities)
                factors = tuple(arrays[f"factors_{arity}"] for arity in arities)
                unary = arrays["unary"]
        graph = FactorGraph(description["num_variables"], description["num_states"], variables)
        check_values(graph, unary, factors)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: no factor graph: {' '.join(str(error).split())}") from error
    return graph, unary, factors


def _plain(array: ArrayLike) -> np.ndarray:
    """In a dtype of numpy's own: of bfloat16 an archive would keep the bytes, not what they are."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _with_suffix(path: str | os.PathLike, suffix: str) -> Path:
    return Path(os.fspath(path) + suffix)


def _checked(rows: np.ndarray, num_variables: int) -> Int[np.ndarray, "F arity"]:
    """A read-only int32 copy of factors of one arity, after looking at each."""
    if rows.ndim != 2 or rows.shape[1] not in _ARITIES:
        raise ValueError(f"factors must have shape [F, 2..4], got {list(rows.shape)}")
    if len(rows) and not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"factors must be integers, got {rows.dtype}")
    kind = f"(of {rows.shape[1]} variables)"
    outside = (rows < 0) | (rows >= num_variables)
    if outside.any():
        number = int(np.argmax(outside.any(axis=1)))
        raise ValueError(
            f"factor {number} {kind} must join variables in 0..{num_variables - 1}, "
            f"got {tuple(rows[number].tolist())}"
        )
    ordered = np.sort(rows, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if twice.any():
        number = int(np.argmax(twice))
        raise ValueError(
            f"factor {number} {kind} must name each variable once, "
            f"got {tuple(rows[number].tolist())}"
        )
    order = np.lexsort(ordered.T)
    same = (ordered[order[1:]] == ordered[order[:-1]]).all(axis=1)
    if same.any():
        first, second = sorted(order[np.argmax(same) :][:2].tolist())
        raise ValueError(
            f"factor {second} {kind} must join other variables than factor {first}, "
            f"got {tuple(rows[second].tolist())} and {tuple(rows[first].tolist())}"
        )
    rows = np.array(rows, np.int32, order="C")
    rows.setflags(write=False)
    return rows
