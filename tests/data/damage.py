"""Files damaged at random, which a reader must read or refuse in one line."""

import numpy as np
import pytest

from gasn_jax.data import locate

# What a zip archive ends with, its directory, is looked at first.
_END = 200


def counts(full):
    """Runs a test with a tenth of so many files by default, and with all of them as a slow one."""
    slow = pytest.param(full, marks=pytest.mark.slow)
    return pytest.mark.parametrize("count", [full // 10, slow])


def damaged(content, rng):
    """A few bytes changed, cut out or put in, anywhere or near the end; at times cut short."""
    data = bytearray(content)
    if rng.random() < 0.1:
        del data[rng.integers(len(data)) :]
    first = max(0, len(data) - _END) if rng.random() < 0.3 else 0
    for _ in range(rng.integers(1, 4)):
        at, kind = int(rng.integers(first, max(first, len(data)) + 1)), rng.integers(3)
        data[at : at + (kind != 2)] = rng.bytes(int(kind != 1))
    return bytes(data)


def read_or_refused(read, path):
    """Whether a file is read, and not refused with one line that names it."""
    try:
        read(path)
    except locate.DataError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return False
    return True


def num_refused(read, path, good, rng, count):
    """How many of so many damaged copies of a good file, written to a path, are refused."""
    path.write_bytes(good)
    read(path)
    refused = 0
    for _ in range(count):
        path.write_bytes(damaged(good, rng))
        refused += not read_or_refused(read, path)
    return refused


def num_archives_refused(module, parts, folder, count):
    """The same of the .npz archive that a module writes and reads.

    What is read is what was written: a zip's checksums tell.
    """
    path = folder / "file.npz"
    module.write_npz(parts, path)

    def read(path):
        for ours, theirs in zip(module.read_npz(path), parts, strict=True):
            assert all(map(np.array_equal, ours, theirs))

    return num_refused(read, path, path.read_bytes(), np.random.default_rng(0), count)
