"""Binarized MNIST: handwritten digits whose pixels were drawn once, 0 or 1, by their grey values.

On this fixed set likelihoods are comparable between papers. 28x28 pixels, row by row; no labels,
and not in MNIST's order. The packed copy that this module reads, ``binarized_mnist_packed.npz``,
holds ``train`` [50000, 98], ``valid`` and ``test`` [10000, 98], uint8, by ``numpy.packbits``.

Where to get it: the published files ``binarized_mnist_train.amat``, ``_valid`` and ``_test`` are at
http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/; :func:`read_amat` reads them
and :func:`write_npz` packs them for ``binarized_mnist/`` in a folder of data.

Reference: R. Salakhutdinov and I. Murray, "On the Quantitative Analysis of Deep Belief Networks",
ICML 2008; H. Larochelle and I. Murray, "The Neural Autoregressive Distribution Estimator", AISTATS
2011, for the published files.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gasn_jax.data import archive, locate

SIDE = 28
NUM_PIXELS = SIDE * SIDE
SOURCE = "Larochelle's binarized MNIST (see gasn_jax.data.binarized_mnist)"
_FILE = "binarized_mnist/binarized_mnist_packed.npz"
_PARTS = {"train": "train", "validation": "valid", "test": "test"}


class BinarizedMNIST(NamedTuple):
    """The three parts, pixels 0 (paper) or 1: 50000, 10000 and 10000 of the published set."""

    train: UInt8[np.ndarray, "M 784"]
    validation: UInt8[np.ndarray, "M 784"]
    test: UInt8[np.ndarray, "M 784"]


def load(data_dir: str | os.PathLike | None = None) -> BinarizedMNIST:
    """All three parts.

    Args:
      data_dir: folder that holds ``binarized_mnist/``; None for ``GASN_DATA``, then the default
        places (see ``locate``).

    Raises:
      MissingDataError: the file is nowhere; says where to get it.
      DataError: the file is malformed; names the file and the field.
    """
    return read_npz(locate.find(_FILE, data_dir, source=SOURCE))


def read_npz(path: str | os.PathLike) -> BinarizedMNIST:
    """The three parts of one packed file, see the module.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing or has a wrong type or shape.
    """
    arrays = archive.read(path, list(_PARTS.values()))
    width = NUM_PIXELS // 8
    for name, array in arrays.items():
        if array.dtype != np.uint8 or array.shape[1:] != (width,) or not len(array):
            wanted, got = f"uint8 [M, {width}] with M > 0", f"{array.dtype} {list(array.shape)}"
            raise locate.DataError(f"{path}: field {name} must be {wanted}, got {got}")
    return BinarizedMNIST(*(np.unpackbits(array, axis=1) for array in arrays.values()))


def write_npz(parts: BinarizedMNIST, path: str | os.PathLike) -> None:
    """Writes the file that ``read_npz`` and ``load`` read; makes the folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        name: np.packbits(array, axis=1) for name, array in zip(_PARTS.values(), parts, strict=True)
    }
    np.savez_compressed(path, **arrays)


def read_amat(path: str | os.PathLike) -> UInt8[np.ndarray, "M 784"]:
    """One part as published: a line of 784 characters 0 or 1, separated by spaces, per image.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: a line is of another form, or there is none; names the file and the line.
    """
    rows = []
    with open(path, "rb") as lines:
        # Of a file without line ends no more than this is taken into memory.
        while line := lines.readline(4 * NUM_PIXELS):
            values = np.frombuffer(line.rstrip(), np.uint8)
            pixels, gaps = values[::2], values[1::2]
            fits = len(values) == 2 * NUM_PIXELS - 1 and np.all(gaps == ord(" "))
            if not fits or not np.all((pixels == ord("0")) | (pixels == ord("1"))):
                wanted = f"{NUM_PIXELS} characters 0 or 1, separated by spaces"
                raise locate.DataError(f"{path}, line {len(rows) + 1}: wanted {wanted}")
            rows.append(pixels - ord("0"))
    if not rows:
        raise locate.DataError(f"{path}: is empty")
    return np.stack(rows)
