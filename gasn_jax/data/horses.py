"""Weizmann horses, 32x32: photographs with a mask of the horse each.

328 colour images, each a horse seen from its left, and binary masks of their pixels. The packed
copy that this module reads, ``weizmann_horse_32x32.npz``, holds ``train_images`` [160, 32, 32, 3]
and ``train_masks`` [160, 32, 32], likewise ``val_`` (40) and ``test_`` (128), all uint8; masks are
0 and 1.

Where to get it: the photographs and masks are published at
https://www.msri.org/people/members/eranb/ (Weizmann Horse Database); resized to 32x32 and split as
in the second reference, they go to ``weizmann_horses/weizmann_horse_32x32.npz`` in a folder of data
(:func:`write_npz`).

Reference: E. Borenstein and S. Ullman, "Class-Specific, Top-Down Segmentation", ECCV 2002; Y. Li,
D. Tarlow and R. Zemel, "Exploring Compositional High Order Pattern Potentials for Structured Output
Learning", CVPR 2013, for the split.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gasn_jax.data import archive, locate

SIDE = 32
SOURCE = "the Weizmann Horse Database (see gasn_jax.data.horses for the file's layout)"
_FILE = "weizmann_horses/weizmann_horse_32x32.npz"
_PARTS = {"train": "train", "validation": "val", "test": "test"}


class MaskedImages(NamedTuple):
    """Photographs and masks."""

    images: UInt8[np.ndarray, "M 32 32 3"]
    masks: Int[np.ndarray, "M 32 32"]  # int32, 1 horse and 0 background


class Horses(NamedTuple):
    """The three disjoint parts: 160, 40 and 128 images of the published split."""

    train: MaskedImages
    validation: MaskedImages
    test: MaskedImages


def load(data_dir: str | os.PathLike | None = None) -> Horses:
    """All three parts.

    Args:
      data_dir: folder that holds ``weizmann_horses/``; None for ``GASN_DATA``, then the default
        places (see ``locate``).

    Raises:
      MissingDataError: the file is nowhere; says where to get it.
      DataError: the file is malformed; names the file and the field.
    """
    return read_npz(locate.find(_FILE, data_dir, source=SOURCE))


def read_npz(path: str | os.PathLike) -> Horses:
    """The three parts of one file, see the module.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing or has a wrong type, shape or
        value; names the file and the field.
    """
    parts = archive.read_segmented(path, list(_PARTS.values()), "masks", 2, SIDE)
    return Horses(*(MaskedImages(images, masks) for images, masks in parts))


def write_npz(horses: Horses, path: str | os.PathLike) -> None:
    """Writes the file that ``read_npz`` and ``load`` read; makes the folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, name in _PARTS.items():
        images, masks = getattr(horses, part)
        arrays |= {f"{name}_images": images, f"{name}_masks": masks.astype(np.uint8)}
    np.savez_compressed(path, **arrays)
