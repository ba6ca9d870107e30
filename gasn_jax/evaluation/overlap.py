r"""How well predicted labels and masks match true ones: F1 and intersection over union.

Relaxed oracle values of one pair, for outputs in [0, 1] (differentiable, JAX):

.. math:: y \cap y^* = \sum_i \min(y_i, y^*_i), \quad y \cup y^* = \sum_i \max(y_i, y^*_i), \quad
          F_1 = \frac{2\, y \cap y^*}{y \cap y^* + y \cup y^*}, \quad
          \mathrm{IOU} = \frac{y \cap y^*}{y \cup y^*}

and numbers of whole sets of predictions (numpy). Where both sets are empty they are equal: the
value is 1. Where y_i = y*_i is 0 or 1 the relaxed values have a kink; their derivative is then that
into the box [0, 1], so that an ascent may start from the true output.

Reference: Pan et al., "Adversarial Localized Energy Network for Structured Prediction", Equations 8
to 10; Gygli, Norouzi and Angelova, "Deep Value Networks ..." (2017).
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Output = Float[Array, "..."]


def f1(y: Output, true: Output) -> Float[Array, ""]:
    """The relaxed F1 of one output (ALEN, Equations 8 to 10); ValueError for other shapes."""
    both, either = _intersection_and_union(y, true)
    return _ratio(2 * both, both + either).astype(jnp.result_type(y, true, float))


def iou(y: Output, true: Output) -> Float[Array, ""]:
    """The relaxed intersection over union (ALEN, Equations 9 and 10); errors as :func:`f1`."""
    return _ratio(*_intersection_and_union(y, true)).astype(jnp.result_type(y, true, float))


def variable_f1(y: Output, true: Output, *, classes: bool = False) -> Output:
    """The relaxed F1 of every variable's classes: how much of it is right.

    ``1 - |y - y*|`` of binary variables, whose two classes have y and 1 - y; or, with ``classes``
    along the last axis, ``sum_l min(y_l, y*_l)``. ValueError for other shapes.
    """
    both, either = _minimum_and_maximum(y, true)
    dtype = jnp.result_type(y, true, float)
    both, either = both.astype(dtype), either.astype(dtype)
    return jnp.sum(both, axis=-1) if classes else 1 - (either - both)


def example_f1(predicted: Bool[np.ndarray, "M L"], true: Bool[np.ndarray, "M L"]) -> float:
    """The mean over examples of each one's F1 over its labels."""
    predicted, true = _table(predicted, true)
    return float(np.mean(_f1_counts(predicted, true, axis=1)))


def macro_f1(predicted: Bool[np.ndarray, "M L"], true: Bool[np.ndarray, "M L"]) -> float:
    """The mean over labels of each one's F1 over the examples; 1 for one that never occurs."""
    predicted, true = _table(predicted, true)
    return float(np.mean(_f1_counts(predicted, true, axis=0)))


def micro_f1(predicted: Bool[np.ndarray, "M L"], true: Bool[np.ndarray, "M L"]) -> float:
    """F1 of all labels of all examples taken together."""
    predicted, true = _pair(predicted, true)
    return float(_f1_counts(predicted.ravel(), true.ravel(), axis=0))


def best_threshold(
    y: Float[np.ndarray, "M ..."],
    true: Bool[np.ndarray, "M ..."],
    candidates: np.ndarray,
    score_fn: Callable[[np.ndarray, np.ndarray], float] = example_f1,
) -> tuple[float, float]:
    """The candidate t whose predictions ``y > t`` have the best score, the first such; and it.

    Raises:
      ValueError: without candidates, or for NaN in these or in y.
    """
    if not len(candidates):
        raise ValueError("candidates must have at least one entry")
    for name, given in (("y", y), ("candidates", candidates)):
        if np.any(np.isnan(given)):
            raise ValueError(f"{name} must not be NaN")
    values = [score_fn(np.asarray(y) > t, true) for t in candidates]
    best = int(np.argmax(values))
    return float(candidates[best]), float(values[best])


def mean_iou(predicted: Bool[np.ndarray, "M ..."], true: Bool[np.ndarray, "M ..."]) -> float:
    """The mean over masks of each one's intersection over union."""
    predicted, true = _pair(predicted, true)
    both = np.sum(predicted & true, axis=tuple(range(1, true.ndim)))
    either = np.sum(predicted | true, axis=tuple(range(1, true.ndim)))
    return float(np.mean(np.where(either, both / np.maximum(either, 1), 1.0)))


def global_iou(predicted: Bool[np.ndarray, "M ..."], true: Bool[np.ndarray, "M ..."]) -> float:
    """Intersection over union of all pixels of all masks taken together."""
    predicted, true = _pair(predicted, true)
    either = np.sum(predicted | true)
    return float(np.sum(predicted & true) / either) if either else 1.0


def pixel_accuracy(predicted: Int[np.ndarray, "M ..."], true: Int[np.ndarray, "M ..."]) -> float:
    """The share of all pixels whose label is right."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    _check_shapes(predicted, true)
    return float(np.mean(predicted == true))


def superpixel_accuracy(
    predicted: Int[np.ndarray, "M H W"],
    superpixels: Int[np.ndarray, "M H W"],
    true: Int[np.ndarray, "M S"],
) -> float:
    """The share of superpixels whose most frequent predicted label is the true one.

    Args:
      predicted: labels of the pixels, from 0; of equally frequent ones the smallest counts.
      superpixels: of each pixel the number of its superpixel, 0..S-1.
      true: labels of the superpixels, -1 where an image has fewer than S.

    Raises:
      ValueError: for other shapes, what is no integer, negative labels, or numbers of superpixels
        without a label.
    """
    predicted, superpixels, true = map(np.asarray, (predicted, superpixels, true))
    _check_shapes(predicted, superpixels)
    if true.ndim != 2 or len(true) != len(predicted):
        raise ValueError(f"true must have shape [{len(predicted)}, S], got {true.shape}")
    for name, values in (("predicted", predicted), ("superpixels", superpixels), ("true", true)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be integers, got {values.dtype}")
    if predicted.min() < 0:
        raise ValueError(f"predicted must be >= 0, got {predicted.min()}")
    rows = np.arange(len(true)).reshape(-1, *[1] * (superpixels.ndim - 1))
    if superpixels.min() < 0 or superpixels.max() >= true.shape[1]:
        raise ValueError(f"superpixels must be 0 to {true.shape[1] - 1}")
    if np.any(true[np.broadcast_to(rows, superpixels.shape), superpixels] < 0):
        raise ValueError("superpixels must have a label in true, got one of -1")
    counts = np.zeros((*true.shape, int(predicted.max()) + 1), int)
    np.add.at(counts, (np.broadcast_to(rows, superpixels.shape), superpixels, predicted), 1)
    used = (true >= 0) & (counts.sum(axis=2) > 0)
    return float(np.mean((counts.argmax(axis=2) == true)[used]))


def _intersection_and_union(y, true):
    """Equations 9 and 10."""
    # half precision ends at 65504
    entries = _minimum_and_maximum(y, true)
    return [jnp.sum(x, dtype=jnp.promote_types(x.dtype, jnp.float32)) for x in entries]


def _minimum_and_maximum(y, true):
    """Of each entry; where they are equal, with the derivative into the box [0, 1]."""
    _check_shapes(y, true)
    # asked so that a NaN of either stays
    unknown = true != true
    both = jnp.where((y > true) | ((y == true) & (true <= 0)) | unknown, true, y)
    either = jnp.where((y < true) | ((y == true) & (true >= 1)) | unknown, true, y)
    return both, either


def _ratio(part, whole):
    """Their ratio; 1, with derivative 0, of two empty sets."""
    empty = whole <= 0
    return jnp.where(empty, 1.0, part / jnp.where(empty, 1.0, whole))


def _pair(predicted, true):
    """Both as booleans."""
    predicted, true = np.asarray(predicted), np.asarray(true)
    _check_shapes(predicted, true)
    for name, values in (("predicted", predicted), ("true", true)):
        if not np.all((values == 0) | (values == 1)):
            raise ValueError(f"{name} must be 0 or 1")
    return predicted.astype(bool), true.astype(bool)


def _table(predicted, true):
    """Both as booleans [M, L]."""
    predicted, true = _pair(predicted, true)
    if true.ndim != 2:
        raise ValueError(f"true must have shape [M, L], got {true.shape}")
    return predicted, true


def _check_shapes(predicted, true):
    if predicted.shape != true.shape or not true.size:
        raise ValueError(f"wanted equal shapes with entries, got {predicted.shape}, {true.shape}")


def _f1_counts(predicted, true, axis):
    """F1 along an axis; 1 where nothing is there and nothing is said to be."""
    right = 2 * np.sum(predicted & true, axis=axis)
    both = np.sum(predicted, axis=axis) + np.sum(true, axis=axis)
    return np.where(both, right / np.maximum(both, 1), 1.0)
