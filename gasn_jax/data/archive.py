"""Reads arrays of numbers from an `.npz` archive; what is wrong with one is one line."""

import os
import zipfile
from collections.abc import Sequence

import numpy as np

from gasn_jax.data import locate


def read(
    path: str | os.PathLike, fields: Sequence[str], *, floating: bool = False
) -> dict[str, np.ndarray]:
    """The named arrays of an archive, of integers or also ``floating``; objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing, damaged or of another kind;
        names the file and the field.
    """
    arrays: dict[str, np.ndarray] = {}
    name = fields[0]
    with open(path, "rb") as file:
        # Else numpy takes the file for a pickle, and says so.
        if not zipfile.is_zipfile(file):
            raise locate.DataError(f"{path}: is not an .npz archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                for name in fields:
                    if name not in archive.files:
                        raise KeyError(f"the archive holds {', '.join(archive.files) or 'nothing'}")
                    arrays[name] = archive[name]
        # a corrupt archive raises a dozen unrelated types, from zlib's to MemoryError
        except Exception as error:
            reason = " ".join(str(error).strip("'").split())
            raise locate.DataError(f"{path}: cannot read field {name}: {reason}") from error
    kinds, wanted = ("biuf", "numbers") if floating else ("iu", "integers")
    for name, array in arrays.items():
        if not (isinstance(array, np.ndarray) and array.dtype.kind in kinds):
            raise locate.DataError(f"{path}: field {name} must be an array of {wanted}")
    return arrays


def read_segmented(
    path: str | os.PathLike, parts: Sequence[str], labels: str, num_labels: int, side: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Square colour images with a label for every pixel, part by part.

    Args:
      path: the archive; it has fields ``{part}_images`` uint8 [M, side, side, 3], and of the same M
        ``{part}_{labels}`` uint8 [M, side, side].
      parts: their names.
      labels: the second field's name.
      num_labels: labels are below.
      side: pixels in a row.

    Returns:
      For each part its images, and its labels as int32.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing or has a wrong type, shape or
        value; names the file and the field.
    """
    arrays = read(path, [f"{part}_{kind}" for part in parts for kind in ("images", labels)])
    for name, array in arrays.items():
        is_images = name.endswith("_images")
        wanted = (side, side, 3) if is_images else (side, side)
        count = len(arrays[name.replace(labels, "images")]) if array.ndim else 0
        if array.dtype != np.uint8 or array.shape != (count, *wanted) or not count:
            raise locate.DataError(
                f"{path}: field {name} must be uint8 {['M', *wanted]} with M > 0 the same for "
                f"images and {labels}, got {array.dtype} {list(array.shape)}".replace("'", "")
            )
        if not is_images and array.max() >= num_labels:
            wanted_labels = f"0 or {num_labels - 1}" if num_labels == 2 else f"below {num_labels}"
            raise locate.DataError(
                f"{path}: field {name} must be {wanted_labels}, got {array.max()}"
            )
    return [
        (arrays[f"{part}_images"], arrays[f"{part}_{labels}"].astype(np.int32)) for part in parts
    ]
