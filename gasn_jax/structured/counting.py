r"""Counting numbers: the free energies whose stationary points belief propagation finds.

.. math:: F(b) = \langle \theta, b \rangle
          + \sum_f c_f H(b_f) + \sum_i c_i H(b_i)

is maximised over beliefs b whose factors agree with their variables (the local polytope). The
numbers c say how often each entropy counts:

* :func:`bethe`: c_f = 1, exact in forests; neither concave nor a bound elsewhere;
* :func:`tree_reweighted`: c_f is the share of spanning trees that have the edge; concave, and an
  upper bound of the log-partition function;
* :func:`convex`: no number is negative, so that sweeps over the variables never raise the dual
  and converge; an upper bound too, a looser one.

Reference: London and Schwing, "Generative Adversarial Structured Networks", §3.2.1, which names
convex belief propagation. The free energies are those of Wainwright, Jaakkola and Willsky, "A New
Class of Upper Bounds on the Log Partition Function" (2005), and of Hazan and Shashua,
"Norm-Product Belief Propagation" (2010); that an entropy is at most a covering by entropies is
Shearer's inequality.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.sparse import coo_array, csgraph

from gasn_jax.structured.graph import FactorGraph


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("variables", "factors"),
    meta_fields=("concave",),
)
@dataclasses.dataclass(frozen=True)
class CountingNumbers:
    """How often each entropy counts. A pytree; numbers of one's own are welcome.

    For each variable, c_i and the c_f of its factors must together be > 0; inference does not look
    at values, :func:`check_values` does.

    Attributes:
      variables: c_i, [N], of any sign.
      factors: c_f > 0, one array [F] for each arity of the graph.
      concave: whether the free energy is known to be concave and an upper bound.
    """

    variables: Float[Array, "N"]
    factors: tuple[Float[Array, "F"], ...]
    concave: bool


def bethe(graph: FactorGraph) -> CountingNumbers:
    """The Bethe free energy, of ordinary belief propagation; concave if the graph is a forest."""
    return _covering(graph, [np.ones(len(rows)) for rows in graph.factors], _is_forest(graph))


def convex(graph: FactorGraph) -> CountingNumbers:
    """Each factor counts one over the most factors that any of its variables has.

    Every variable is covered exactly once by its factors and itself, with no negative number.
    """
    degree = _degrees(graph)
    shares = [1.0 / degree[rows].max(axis=1) for rows in graph.factors]
    return _covering(graph, shares, True)


def tree_reweighted(graph: FactorGraph, appearances: ArrayLike | None = None) -> CountingNumbers:
    """Edges count with their share in spanning trees.

    Args:
      graph: of factors of two variables.
      appearances: [F], each edge's share in some distribution over spanning trees; None for
        :func:`even_appearances`. That they are such shares is not checked.

    Raises:
      ValueError: for larger factors, and for appearances outside (0, 1] or of another shape.
    """
    edges = _edges(graph)
    values = even_appearances(graph) if appearances is None else np.asarray(appearances)
    if values.shape != (len(edges),):
        raise ValueError(f"appearances must have shape ({len(edges)},), got {values.shape}")
    if not np.all((values > 0) & (values <= 1)):
        number = int(np.argmax(~((values > 0) & (values <= 1))))
        raise ValueError(f"appearances must be in (0, 1], got {values[number]} for factor {number}")
    return _covering(graph, [values][: len(graph.factors)], True)


def check_values(graph: FactorGraph, counting: CountingNumbers) -> None:
    """Raises ``ValueError`` for the first factor or variable whose number is out of range.

    For arrays with values, outside ``jax.jit``. Whether the free energy is as concave as
    ``counting.concave`` says is not checked.
    """
    shapes = [(graph.num_variables,), *((len(rows),) for rows in graph.factors)]
    got = [np.shape(numbers) for numbers in (counting.variables, *counting.factors)]
    if got != shapes:
        raise ValueError(f"counting numbers must have shapes {shapes}, got {got}")
    total = np.array(counting.variables, float)
    for rows, numbers in zip(graph.factors, counting.factors, strict=True):
        numbers = np.asarray(numbers, float)
        fine = (numbers > 0) & (numbers < np.inf)
        if not np.all(fine):
            number = int(np.argmax(~fine))
            raise ValueError(
                f"counting numbers of factors must be finite and > 0, got {numbers[number]} "
                f"for factor {tuple(rows[number].tolist())}"
            )
        np.add.at(total, rows, numbers[:, None])
    fine = (total > 0) & (total < np.inf)
    if not np.all(fine):
        number = int(np.argmax(~fine))
        raise ValueError(
            "counting numbers of a variable and its factors must together be finite and > 0, "
            f"got {total[number]} for variable {number}"
        )


@functools.lru_cache(maxsize=64)
def even_appearances(graph: FactorGraph) -> Float[np.ndarray, "F"]:
    """Shares [F], nearly equal, of the edges in a mixture of spanning trees; read-only.

    One tree after the other through the edges that appeared least, until each edge has appeared
    several times.
    """
    edges = _edges(graph)
    if not len(edges):
        return np.zeros(0)
    counts = np.zeros(len(edges))
    num_trees = 0
    while num_trees < 16 or counts.min() < 4:
        # Fractions break ties differently in each tree.
        ties = np.random.default_rng(num_trees).random(len(edges))
        counts[spanning_tree(graph, counts + ties)] += 1
        num_trees += 1
    shares = counts / num_trees
    shares.setflags(write=False)
    return shares


def spanning_tree(graph: FactorGraph, costs: Float[np.ndarray, "F"]) -> np.ndarray:
    """The edges of a cheapest spanning forest, as numbers of factors."""
    edges = _edges(graph)
    # Ranks, since scipy reads a cost of 0 as no edge.
    ranks = np.empty(len(edges))
    ranks[np.argsort(costs, kind="stable")] = np.arange(1, len(edges) + 1)
    shape = (graph.num_variables,) * 2
    chosen = csgraph.minimum_spanning_tree(coo_array((ranks, edges.T), shape).tocsr())
    return np.argsort(ranks)[chosen.data.astype(int) - 1]


def _covering(graph, factors, concave):
    """Variables make up for what their factors leave of 1."""
    variables = np.ones(graph.num_variables)
    for rows, values in zip(graph.factors, factors, strict=True):
        for column in rows.T:
            np.subtract.at(variables, column, values)
    variables[np.abs(variables) < 1e-12] = 0.0
    numbers = tuple(jnp.asarray(values, float) for values in factors)
    return CountingNumbers(jnp.asarray(variables, float), numbers, concave)


def _edges(graph):
    if graph.arities not in ((), (2,)):
        raise ValueError(
            f"tree-reweighted factors must join 2 variables, got arities {graph.arities}"
        )
    return graph.factors[0] if graph.factors else np.zeros((0, 2), int)


def _degrees(graph):
    degree = np.zeros(graph.num_variables, int)
    for rows in graph.factors:
        degree += np.bincount(rows.ravel(), minlength=graph.num_variables)
    return degree


def _is_forest(graph):
    """Whether variables and factors together form no cycle."""
    nodes = graph.num_variables
    rows, columns = [], []
    for factors in graph.factors:
        numbers = np.arange(len(factors)) + nodes
        nodes += len(factors)
        rows.append(factors.ravel())
        columns.append(np.repeat(numbers, factors.shape[1]))
    if not rows:
        return True
    row, column = np.concatenate(rows), np.concatenate(columns)
    both = coo_array((np.ones(len(row)), (row, column)), (nodes, nodes))
    count = csgraph.connected_components(both, directed=False, return_labels=False)
    return count + len(row) == nodes
