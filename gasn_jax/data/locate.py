"""Where data sets are looked for, and what is said when one is missing or malformed.

A folder of data is, in this order: the one given by the caller; the one in the environment
variable ``GASN_DATA``; ``../shared/data`` relative to the current directory, then relative to the
source checkout. The first two are orders: when given, nothing else is searched.
"""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "GASN_DATA"
_DEFAULT = Path("..", "shared", "data")
_CHECKOUT = Path(__file__).resolve().parents[2]


class DataError(ValueError):
    """A data set is malformed or missing; ``str(error)`` is one line that names the file."""


class MissingDataError(DataError, FileNotFoundError):
    """A data set is not where it was looked for; the line also says where to get it."""


def data_dirs(data_dir: str | os.PathLike | None = None) -> tuple[Path, ...]:
    """Folders that are searched for data sets, in order.

    Args:
      data_dir: the caller's choice, or None for the environment variable and the defaults.

    Returns:
      At least one path; they need not exist.
    """
    chosen = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return (Path(chosen).expanduser(),)
    return (_DEFAULT, _CHECKOUT / _DEFAULT)


def find(relative: str, data_dir: str | os.PathLike | None = None, *, source: str) -> Path:
    """Path of one file of a data set.

    Args:
      relative: the file's place inside the folder of data, such as ``"mnist/train.gz"``.
      data_dir: the folder of data; None for ``GASN_DATA``, then the defaults.
      source: where a user gets the file; becomes the end of the error's line.

    Returns:
      The path in the first folder that holds the file.

    Raises:
      MissingDataError: no folder holds the file. Says what is missing, where it was looked for
        and where to get it.
      DataError: the file may not be read.
    """
    folders = data_dirs(data_dir)
    for folder in folders:
        path = folder / relative
        if path.is_file():
            if not os.access(path, os.R_OK):
                raise DataError(f"data file {path}: permission denied")
            return path
    # dict.fromkeys: from the checkout's own root both defaults are the same folder
    searched = ", ".join(dict.fromkeys(os.path.abspath(folder) for folder in folders))
    raise MissingDataError(
        f"data file {relative} not found in {searched} "
        f"(choose a folder with data_dir or {ENVIRONMENT_VARIABLE}); get it from {source}"
    )


def find_packed(relative: str, data_dir: str | os.PathLike | None = None, *, source: str) -> Path:
    """Path of a file that is published gzipped: of it, ``relative.gz``, or unpacked.

    Arguments and errors as of :func:`find`.
    """
    unpacked = any((folder / relative).is_file() for folder in data_dirs(data_dir))
    return find(relative if unpacked else f"{relative}.gz", data_dir, source=source)
