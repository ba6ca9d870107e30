"""LFW parts as they are published: photographs, and labels of pixels and of superpixels.

A folder ``lfw_parts/`` with the published names::

    parts_train.txt, parts_validation.txt, parts_test.txt       a name and a number a line
    lfw_funneled/NAME/NAME_0001.jpg                             the photograph
    parts_lfw_funneled_gt_images/NAME_0001.ppm                  hair red, face green, else blue
    parts_lfw_funneled_superpixels_mat/NAME/NAME_0001.dat       number of each pixel's superpixel
    parts_lfw_funneled_gt/NAME/NAME_0001.dat                    how many, then the label of each

with labels as in `lfw_parts`: 0 hair, 1 face, 2 background. Needs Pillow (the extra ``images``).

Where to get it: http://vis-www.cs.umass.edu/lfw/part_labels/.

Reference: A. Kae, K. Sohn, H. Lee and E. Learned-Miller, "Augmenting CRFs with Boltzmann Machine
Shape Priors for Image Labeling", CVPR 2013.
"""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gasn_jax.data import locate
from gasn_jax.data.lfw_parts import LABELS

SOURCE = "http://vis-www.cs.umass.edu/lfw/part_labels/"
_MOST_BYTES = 1 << 24
_MOST_PIXELS = 1 << 20


class Faces(NamedTuple):
    """M photographs.

    Attributes:
      images: uint8, made smaller.
      labels: that of most of the pixels that became one, int32.
      superpixels: of the photograph's own size, the superpixel of each pixel, int32 [H, W] each.
      superpixel_labels: int32 [S], -1 beyond the last superpixel of a photograph.
    """

    images: UInt8[np.ndarray, "M side side 3"]
    labels: Int[np.ndarray, "M side side"]
    superpixels: Int[np.ndarray, "M H W"]
    superpixel_labels: Int[np.ndarray, "M S"]


class Superpixels(NamedTuple):
    """The three parts of the published split."""

    train: Faces
    validation: Faces
    test: Faces


def load(data_dir: str | os.PathLike | None = None, *, side: int = 32) -> Superpixels:
    """All three parts, photographs and labels of ``side`` pixels in a row.

    Args:
      data_dir: folder that holds ``lfw_parts/``; None for ``GASN_DATA``, then the default places
        (see ``locate``).
      side: of the smaller images, from 1 to that of the photographs, 250.

    Raises:
      MissingDataError: a file is nowhere; says where to get it.
      DataError: a file is malformed; names it, and the line where it has lines.
      ModuleNotFoundError: without Pillow.
      ValueError: for another side.
    """
    parts = []
    for part in Superpixels._fields:
        path = locate.find(f"lfw_parts/parts_{part}.txt", data_dir, source=SOURCE)
        parts.append(_part(path.parent, read_names(path), side))
    return Superpixels(*parts)


def enlarged(labels: Int[np.ndarray, "M side side"], size: int) -> Int[np.ndarray, "M size size"]:
    """Labels of small images for the pixels of the photographs, by the nearest one."""
    places = np.arange(size) * labels.shape[1] // size
    return labels[:, places][:, :, places]


def read_names(path: str | os.PathLike) -> list[str]:
    """The photographs of a list, as ``NAME_0001``."""
    names: dict[str, None] = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        usable = len(words) == 2 and words[1].isdecimal() and len(words[1]) < 8
        if not usable or set(words[0]) & set("/\\\0") or words[0] in (".", ".."):
            raise locate.DataError(
                f"{path}, line {number}: wanted a name and a number, got {line[:60]!r}"
            )
        name = f"{words[0]}_{int(words[1]):04d}"
        if name in names:
            raise locate.DataError(f"{path}, line {number}: {name[:60]} is there twice")
        names[name] = None
    if not names:
        raise locate.DataError(f"{path}: names no photograph")
    return list(names)


def read_superpixels(path: str | os.PathLike) -> Int[np.ndarray, "H W"]:
    """The superpixel of each pixel, 0 and up: a row of numbers a line."""
    rows: list[list[int]] = []
    for number, line in enumerate(_lines(path), start=1):
        row = _numbers(path, number, line)
        if row and rows and len(row) != len(rows[0]):
            raise locate.DataError(
                f"{path}, line {number}: wanted {len(rows[0])} numbers, got {len(row)}"
            )
        rows.extend([row] if row else [])
    if not rows:
        raise locate.DataError(f"{path}: holds no numbers")
    return np.array(rows, np.int32)


def read_superpixel_labels(path: str | os.PathLike) -> Int[np.ndarray, "S"]:
    """The label of each superpixel: how many there are, then as many labels."""
    found: list[int] = []
    number = 0
    for number, line in enumerate(_lines(path), start=1):
        row = _numbers(path, number, line)
        labels = row if found else row[1:]
        if any(label >= len(LABELS) for label in labels):
            raise locate.DataError(f"{path}, line {number}: labels must be below {len(LABELS)}")
        found.extend(row)
    if not found or found[0] != len(found) - 1 or not found[0]:
        wanted = "a number > 0 and as many labels"
        raise locate.DataError(f"{path}, line {number}: wanted {wanted}, got {len(found)} numbers")
    return np.array(found[1:], np.int32)


def read_labels(path: str | os.PathLike) -> Int[np.ndarray, "H W"]:
    """The label of each pixel of a picture in pure red, green and blue."""
    pixels = np.asarray(_picture(path).convert("RGB"))
    labels = np.argmax(pixels, axis=-1)
    if np.any(pixels != 255 * np.eye(3, dtype=np.uint8)[labels]):
        raise locate.DataError(f"{path}: wanted pure red, green and blue, got other colours")
    return labels.astype(np.int32)


def _part(folder: Path, names: list[str], side: int) -> Faces:
    images, labels, superpixels, superpixel_labels = [], [], [], []
    for name in names:
        person = name.rpartition("_")[0]
        photograph = _picture(folder / "lfw_funneled" / person / f"{name}.jpg").convert("RGB")
        path = folder / "parts_lfw_funneled_gt_images" / f"{name}.ppm"
        pixels = read_labels(path)
        shape = photograph.height, photograph.width
        _same(path, pixels.shape, shape)
        path = folder / "parts_lfw_funneled_superpixels_mat" / person / f"{name}.dat"
        superpixels.append(read_superpixels(path))
        _same(path, superpixels[-1].shape, superpixels[0].shape)
        _same(path, superpixels[-1].shape, shape)
        path = folder / "parts_lfw_funneled_gt" / person / f"{name}.dat"
        superpixel_labels.append(read_superpixel_labels(path))
        most = int(superpixels[-1].max())
        if most >= len(superpixel_labels[-1]):
            wanted = f"more than {most} labels"
            raise locate.DataError(f"{path}: wanted {wanted}, got {len(superpixel_labels[-1])}")
        if not 1 <= side <= min(shape):
            raise ValueError(f"side must be in 1..{min(shape)}, got {side}")
        small = photograph.resize((side, side), _pillow().Resampling.BILINEAR)
        images.append(np.asarray(small))
        labels.append(_most_frequent(pixels, side))
    padded = np.full((len(names), max(map(len, superpixel_labels))), -1, np.int32)
    for row, own in zip(padded, superpixel_labels, strict=True):
        row[: len(own)] = own
    return Faces(np.stack(images), np.stack(labels), np.stack(superpixels), padded)


def _same(path, got, wanted):
    if got != wanted:
        raise locate.DataError(f"{path}: wanted {list(wanted)} pixels, got {list(got)}")


def _most_frequent(pixels, side):
    """Of the pixels that become one; the first of equally frequent labels."""
    rows, columns = (np.arange(size) * side // size for size in pixels.shape)
    counts = np.zeros((side, side, len(LABELS)), int)
    np.add.at(counts, (rows[:, None], columns[None], pixels), 1)
    return counts.argmax(axis=-1).astype(np.int32)


def _lines(path):
    if not Path(path).is_file():
        raise locate.MissingDataError(f"data file {path} not found; get it from {SOURCE}")
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise locate.DataError(f"{path}: has more than {_MOST_BYTES} bytes")
    return content.decode("ascii", "replace").splitlines()


def _numbers(path, number, line):
    words = line.split()
    if not all(word.isascii() and word.isdecimal() and len(word) < 8 for word in words):
        raise locate.DataError(f"{path}, line {number}: wanted numbers, got {line[:60]!r}")
    return [int(word) for word in words]


def _picture(path) -> Any:
    if not Path(path).is_file():
        raise locate.MissingDataError(f"data file {path} not found; get it from {SOURCE}")
    image = _pillow()
    try:
        with open(path, "rb") as file, image.open(io.BytesIO(file.read(_MOST_BYTES))) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"wanted at most {_MOST_PIXELS} pixels")
            picture.load()
            return picture
    # a corrupt image raises a dozen unrelated types, from zlib's to SyntaxError
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise locate.DataError(f"{path}: cannot read the image: {reason}") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading LFW's photographs needs Pillow: pip install gasn_jax[images]"
        ) from error
    return Image
