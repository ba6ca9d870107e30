"""Handwritten digits, 8x8 pixels, bundled with scikit-learn: real data that needs no download.

1797 images of UCI's Optical Recognition of Handwritten Digits (its test part), with grey levels
0..16, here made binary. An image becomes a chain by reading its pixels in snake order, in which
neighbours in the chain are neighbours in the image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

HEIGHT = 8
WIDTH = 8
NUM_IMAGES = 1797
SPLIT_SIZES = (1197, 300, 300)  # train, validation, test
_SPLIT_SEED = 0


class LabelledImages(NamedTuple):
    """Binary images with the digit each shows."""

    images: Int[np.ndarray, "M 8 8"]  # int32 states, 0 paper and 1 ink
    labels: Int[np.ndarray, " M"]  # int32, 0..9


class Digits(NamedTuple):
    """The three disjoint parts of the set: 1197, 300 and 300 images."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load(*, threshold: int = 8) -> Digits:
    """Binary digits in three fixed parts.

    A pixel is 1 where its grey level (0..16) is at least ``threshold``. The parts come from one
    fixed permutation of the 1797 images (the bundled order groups images by writer), the same on
    every machine and with every version of numpy.

    Args:
      threshold: lowest grey level that counts as ink, 1..16.

    Returns:
      ``Digits`` of int32 numpy arrays.

    Raises:
      ValueError: ``threshold`` is outside 1..16.
      ModuleNotFoundError: scikit-learn is not installed; the extra ``experiments`` brings it.

    Reference: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998.
    """
    if not 1 <= threshold <= 16:
        raise ValueError(f"threshold must be in 1..16, got {threshold}")
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed"
        ) from error
    grey_levels, digits = datasets.load_digits(return_X_y=True)
    images = (np.reshape(grey_levels, (-1, HEIGHT, WIDTH)) >= threshold).astype(np.int32)
    labels = np.asarray(digits, np.int32)
    # RandomState, not Generator: only the former's stream is frozen across versions of numpy
    order = np.random.RandomState(_SPLIT_SEED).permutation(NUM_IMAGES)
    parts = np.split(order, np.cumsum(SPLIT_SIZES)[:-1])
    return Digits(*(LabelledImages(images[part], labels[part]) for part in parts))


def snake_order(height: int, width: int) -> Int[np.ndarray, " N"]:
    """Pixels of an image in snake (boustrophedon) order: even rows rightward, odd rows leftward.

    Consecutive pixels of the order are neighbours in the image. With ``order = snake_order(8, 8)``,
    ``images.reshape(-1, 64)[:, order]`` are the chains, and
    ``chains[:, inverse_order(order)].reshape(-1, 8, 8)`` the images again.

    >>> snake_order(2, 3).tolist()
    [0, 1, 2, 5, 4, 3]

    Args:
      height: number of rows, at least 1.
      width: number of columns, at least 1.

    Returns:
      int32 permutation of N = ``height * width`` row-major pixel numbers; O(N).

    Raises:
      ValueError: ``height`` or ``width`` is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    order = np.arange(height * width, dtype=np.int32).reshape(height, width)
    order[1::2] = order[1::2, ::-1]
    return order.reshape(-1)


def inverse_order(order: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The permutation that undoes ``order``: ``x[order][inverse_order(order)] == x``.

    >>> inverse_order(np.array([2, 0, 1])).tolist()
    [1, 2, 0]

    Args:
      order: a permutation of 0..N-1.

    Returns:
      int32 permutation; O(N).

    Raises:
      ValueError: ``order`` is not a permutation of 0..N-1.
    """
    order = np.asarray(order)
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
        raise ValueError(f"order must be a permutation of 0..N-1, got {order.tolist()}")
    inverse = np.empty(order.size, np.int32)
    inverse[order] = np.arange(order.size, dtype=np.int32)
    return inverse
