"""LFW parts, 32x32: photographs of faces with hair, face or background at every pixel.

2927 photographs of the Part Labels database in the split of the reference, resized. The packed copy
that this module reads, ``lfw_parts_32x32.npz``, holds ``train_images`` [1500, 32, 32, 3] and
``train_labels`` [1500, 32, 32], likewise ``validation_`` (500) and ``test_`` (927), all uint8; a
label is that of most of the pixels of the original, 250x250.

Where to get it: the photographs and labels are published at http://vis-www.cs.umass.edu/lfw/part_labels/;
resized, they go to ``lfw_parts/lfw_parts_32x32.npz`` in a folder of data (:func:`write_npz`).

Reference: A. Kae, K. Sohn, H. Lee and E. Learned-Miller, "Augmenting CRFs with Boltzmann Machine
Shape Priors for Image Labeling", CVPR 2013.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gasn_jax.data import archive, locate

SIDE = 32
LABELS = ("hair", "face", "background")
SOURCE = "the LFW Part Labels database (see gasn_jax.data.lfw_parts for the file's layout)"
_FILE = "lfw_parts/lfw_parts_32x32.npz"


class LabelledFaces(NamedTuple):
    """Photographs and labels."""

    images: UInt8[np.ndarray, "M 32 32 3"]
    labels: Int[np.ndarray, "M 32 32"]  # int32, index of LABELS


class LFWParts(NamedTuple):
    """The three disjoint parts: 1500, 500 and 927 faces of the published split."""

    train: LabelledFaces
    validation: LabelledFaces
    test: LabelledFaces


def load(data_dir: str | os.PathLike | None = None) -> LFWParts:
    """All three parts.

    Args:
      data_dir: folder that holds ``lfw_parts/``; None for ``GASN_DATA``, then the default places
        (see ``locate``).

    Raises:
      MissingDataError: the file is nowhere; says where to get it.
      DataError: the file is malformed; names the file and the field.
    """
    return read_npz(locate.find(_FILE, data_dir, source=SOURCE))


def read_npz(path: str | os.PathLike) -> LFWParts:
    """The three parts of one file, see the module.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing or has a wrong type, shape or
        value; names the file and the field.
    """
    parts = archive.read_segmented(path, LFWParts._fields, "labels", len(LABELS), SIDE)
    return LFWParts(*(LabelledFaces(images, labels) for images, labels in parts))


def write_npz(parts: LFWParts, path: str | os.PathLike) -> None:
    """Writes the file that ``read_npz`` and ``load`` read; makes the folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, (images, labels) in zip(LFWParts._fields, parts, strict=True):
        arrays |= {f"{name}_images": images, f"{name}_labels": labels.astype(np.uint8)}
    np.savez_compressed(path, **arrays)
