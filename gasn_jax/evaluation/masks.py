"""Statistics of binary images: how much, how smooth, in how many pieces."""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.stats
from jaxtyping import Float, Int


class Shapes(NamedTuple):
    """Numbers of M images, by 4 neighbours throughout.

    Attributes:
      area: share of the pixels that are 1, in 0..1.
      boundary: pairs of neighbours that differ; the image's edge does not count.
      components: connected pieces of 1s.
      holes: connected pieces of 0s that do not touch the image's edge.
    """

    area: Float[np.ndarray, " M"]
    boundary: Int[np.ndarray, " M"]
    components: Int[np.ndarray, " M"]
    holes: Int[np.ndarray, " M"]


def shapes(images: Int[np.ndarray, "M H W"]) -> Shapes:
    """The statistics of each binary image; O(M H W).

    >>> ring = np.array([[[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]])
    >>> [numbers.item() for numbers in shapes(ring)]
    [0.5625, 12, 2, 1]

    Raises:
      ValueError: for another shape, or values that are neither 0 nor 1.
    """
    images = np.asarray(images)
    if images.ndim != 3:
        raise ValueError(f"images must have shape [M, H, W], got {list(images.shape)}")
    wrong = images[~np.isin(images, (0, 1))]
    if wrong.size:
        raise ValueError(f"images must be 0 or 1, got {wrong[0]}")
    across = np.sum(images[:, :, 1:] != images[:, :, :-1], axis=(1, 2))
    down = np.sum(images[:, 1:] != images[:, :-1], axis=(1, 2))
    pieces = _num_components(images)
    # Framed in 0s, all 0s that touch the edge are one piece.
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    holes = _num_components(1 - framed) - 1
    return Shapes(images.mean(axis=(1, 2)), across + down, pieces, holes)


def _num_components(images):
    labelled = np.empty(images.shape[1:], np.int32)  # given, label returns the number alone
    return np.array([scipy.ndimage.label(image, output=labelled) for image in images], int)


def shape_distances(
    images: Int[np.ndarray, "M H W"], reference: Int[np.ndarray, "K H W"]
) -> dict[str, float]:
    """How far apart the distributions of each statistic are: Wasserstein-1, in its own unit."""
    pairs = zip(shapes(images), shapes(reference), strict=True)
    distances = [scipy.stats.wasserstein_distance(a, b) for a, b in pairs]
    return dict(zip(Shapes._fields, map(float, distances), strict=True))
