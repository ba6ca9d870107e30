"""CelebA: 202599 photographs of celebrities' faces, aligned, 178x218 pixels.

The published layout is read: a folder ``img_align_celeba`` of ``000001.jpg`` to ``202599.jpg``, or
``img_align_celeba.zip`` that holds it, in ``celeba/`` in a folder of data. Where the published
``list_eval_partition.txt`` lies beside it, or in ``celeba/Eval/``, its lines say which images there
are and which part each belongs to. Without it, the numbers in the names say to which; each part
then reaches from the first to the last of its numbers that is there, and a number between them that
is not is a missing image. Every image is cropped to a square about its centre, then resized. Needs
Pillow (the extra ``images``).

Where to get it: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "Align&Cropped Images".

Reference: Z. Liu, P. Luo, X. Wang and X. Tang, "Deep Learning Face Attributes in the Wild", ICCV
2015.
"""

import io
import itertools
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gasn_jax.data import locate

SOURCE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (img_align_celeba.zip)"
_FOLDER, _PARTITION = "img_align_celeba", "list_eval_partition.txt"
_NAME = re.compile(r"(\d+)\.jpe?g", re.IGNORECASE)
# The first numbers of the validation and of the test part, and the last of all.
_FIRST, _LAST = (162_771, 182_638), 202_599
_MOST_BYTES, _MOST_PIXELS = 1 << 24, 1 << 24

_ReadFn = Callable[[str], bytes]


class CelebA(NamedTuple):
    """The three parts, and what was left out of them.

    Attributes:
      train, validation, test: uint8 [M, side, side, 3], in the order of their names.
      skipped: one line for each image that could not be read, with its name and why.
    """

    train: UInt8[np.ndarray, "M S S 3"]
    validation: UInt8[np.ndarray, "M S S 3"]
    test: UInt8[np.ndarray, "M S S 3"]
    skipped: tuple[str, ...]


def load(
    data_dir: str | os.PathLike | None = None,
    *,
    side: int = 64,
    crop: int = 108,
    skip_bad_images: bool = False,
) -> CelebA:
    """All three parts; 2.5 GB at 64x64.

    Args:
      data_dir: folder that holds ``celeba/``; None for ``GASN_DATA``, then the default places (see
        ``locate``).
      side: pixels in a row of a result.
      crop: pixels in a row of the square that is cut from an image's centre.
      skip_bad_images: whether an image that is missing, corrupt or smaller than the square is left
        out and named in the result, instead of refused.

    Raises:
      MissingDataError: neither the folder nor the zip is anywhere; says where to get it.
      DataError: the zip or a line of the partition is malformed, there is no image, or one is bad
        and not to be skipped; names the file.
      ModuleNotFoundError: Pillow is not installed.
    """
    for name, value in (("side", side), ("crop", crop)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    place = _find(data_dir)
    if place.is_dir():
        names = sorted(path.name for path in place.iterdir() if _NAME.fullmatch(path.name))
        return _load(place, names, lambda name: _head(place / name), side, crop, skip_bad_images)
    try:
        archive = zipfile.ZipFile(place)
    # what is damaged in the directory of a zip decides among several types
    except Exception as error:
        raise locate.DataError(f"{place}: is not a zip archive: {error}") from error
    with archive:
        members = {Path(member).name: member for member in sorted(archive.namelist())}
        names = [name for name in members if _NAME.fullmatch(name)]

        def read(name):
            if name not in members:
                raise FileNotFoundError("no such member")
            with archive.open(members[name]) as file:
                return file.read(_MOST_BYTES)

        return _load(place, names, read, side, crop, skip_bad_images)


def _find(data_dir):
    for folder in locate.data_dirs(data_dir):
        if (folder / "celeba" / _FOLDER).is_dir():
            return folder / "celeba" / _FOLDER
    return locate.find(f"celeba/{_FOLDER}.zip", data_dir, source=SOURCE)


def _head(path):
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES)


def _load(
    place: Path, names: Iterable[str], read: _ReadFn, side: int, crop: int, skip: bool
) -> CelebA:
    given = (place.parent / _PARTITION, place.parent / "Eval" / _PARTITION)
    partition = next((path for path in given if path.is_file()), None)
    parts = _read_partition(partition) if partition else _by_number(place, names)
    images, skipped = [], []
    for part in parts:
        found = np.empty((len(part), side, side, 3), np.uint8)
        count = 0
        for name in part:
            try:
                found[count] = _square(read(name), side, crop)
                count += 1
            except ModuleNotFoundError:
                raise
            # a corrupt image raises a dozen unrelated types, from zlib's to SyntaxError
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                line = f"{place}: image {name}: {reason}"
                if not skip:
                    raise locate.DataError(f"{line} (skip_bad_images leaves it out)") from error
                skipped.append(line)
        images.append(found[:count])
    if not sum(map(len, images)):
        raise locate.DataError(f"{place}: holds no image that can be read, as 000001.jpg")
    train, validation, test = images
    return CelebA(train, validation, test, tuple(skipped))


def _square(content, side, crop):
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading CelebA's images needs Pillow: pip install gasn_jax[images]"
        ) from error
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        if min(width, height) < crop or width * height > _MOST_PIXELS:
            wanted = f"{crop}x{crop} to {_MOST_PIXELS} pixels"
            raise ValueError(f"wanted {wanted}, got {width}x{height}")
        left, top = (width - crop) // 2, (height - crop) // 2
        box = (left, top, left + crop, top + crop)
        small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR, box=box)
        return np.asarray(small)


def _read_partition(path):
    parts: tuple[list[str], ...] = ([], [], [])
    known: set[str] = set()
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            words = line.decode("utf-8", "replace").split()
            if not words:
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]) or words[1] not in ("0", "1", "2"):
                wanted = "a name such as 000001.jpg, and 0, 1 or 2"
                raise locate.DataError(f"{path}, line {number}: wanted {wanted}, got {line[:60]!r}")
            if words[0] in known:
                raise locate.DataError(f"{path}, line {number}: {words[0]} is there twice")
            known.add(words[0])
            parts[int(words[1])].append(words[0])
    return parts


def _by_number(place, names):
    """The names of each part, with those of missing numbers between them; 1 to 202599."""
    by_number: dict[int, str] = {}
    for name in names:
        number = int(name.partition(".")[0])
        if number in by_number:
            raise locate.DataError(f"{place}: {name} and {by_number[number]} have one number")
        by_number[number] = name
    ends = (1, *_FIRST, _LAST + 1)
    parts = []
    for first, beyond in itertools.pairwise(ends):
        there = [number for number in by_number if first <= number < beyond]
        numbers = range(min(there), max(there) + 1) if there else ()
        parts.append([by_number.get(number, f"{number:06}.jpg") for number in numbers])
    return parts
