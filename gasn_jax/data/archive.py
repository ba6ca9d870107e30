"""Arrays of integers out of an `.npz` archive, or one line that says what is wrong with it."""

import os
import zipfile
from collections.abc import Sequence

import numpy as np

from gasn_jax.data import locate


def read(path: str | os.PathLike, fields: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an archive. Pickled objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing, damaged or not of integers;
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
                    arrays[name] = archive[name]
        # a corrupt archive raises a dozen unrelated types, from zlib's to MemoryError
        except Exception as error:
            reason = " ".join(str(error).split())
            raise locate.DataError(f"{path}: cannot read field {name}: {reason}") from error
    for name, array in arrays.items():
        if not (isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.integer)):
            raise locate.DataError(f"{path}: field {name} must be an array of integers")
    return arrays
