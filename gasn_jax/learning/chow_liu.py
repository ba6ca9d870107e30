"""The tree-structured model that is closest to data, among all trees."""

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Int


def parents(states: Int[np.ndarray, "M N"], num_states: int) -> Int[np.ndarray, "N"]:
    """The Chow-Liu tree: the spanning tree of most mutual information between its neighbours.

    Of all trees, its maximum-likelihood fit to the data is best. With constant variables, or ties,
    any of the best trees.

    >>> x = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]])
    >>> parents(x, 2)[2].item()  # variable 2 is the opposite of variable 0
    0

    Args:
      states: M >= 1 examples of N variables, 0..L-1.
      num_states: L.

    Returns:
      The parent of each variable, [N] int32, -1 for the root 0: what
      :func:`gasn_jax.structured.graph.tree` takes. O(M N^2 L^2).

    Raises:
      ValueError: for another shape, or states outside 0..L-1.

    Reference: C. Chow and C. Liu, "Approximating Discrete Probability Distributions with Dependence
    Trees", IEEE Transactions on Information Theory 14, 1968.
    """
    states = np.asarray(states)
    if states.ndim != 2 or not states.size:
        raise ValueError(f"states must have shape [M, N], got {list(states.shape)}")
    wrong = states[~np.isin(states, np.arange(num_states))]
    if wrong.size:
        raise ValueError(f"states must be 0..{num_states - 1}, got {wrong[0]}")
    num_variables = states.shape[1]
    # Every edge is in the graph: sparse matrices take a weight of 0 for none.
    weights = 1.0 + np.maximum(np.triu(_mutual_information(states, num_states), 1), 0.0)
    tree = scipy.sparse.csgraph.minimum_spanning_tree(np.triu(-weights, 1))
    _, above = scipy.sparse.csgraph.breadth_first_order(tree, 0, directed=False)
    return np.maximum(above, -1).astype(np.int32).reshape(num_variables)


def _mutual_information(states, num_states):
    """Of every pair of variables in nats, [N, N]."""
    one_hot = (states[:, :, None] == np.arange(num_states)).astype(float)
    rows = one_hot.reshape(len(states), -1)
    joint = (rows.T @ rows / len(states)).reshape(states.shape[1], num_states, -1, num_states)
    single = one_hot.mean(axis=0)
    expected = single[:, :, None, None] * single[None, None]
    ratio = np.where(joint > 0, joint, 1.0) / np.where(joint > 0, expected, 1.0)
    return np.sum(joint * np.log(ratio), axis=(1, 3))
