"""MNIST: handwritten digits, 28x28 grey pixels, in the IDX format that they are published in.

Where to get it: ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` and the same of
``t10k`` are kept by many mirrors, such as https://ossci-datasets.s3.amazonaws.com/mnist/, and go to
``mnist/`` in a folder of data, as they are or unpacked.

Reference: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to
Document Recognition", Proceedings of the IEEE, 1998.
"""

import gzip
import math
import os
import struct
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gasn_jax.data import locate

SIDE = 28
NUM_CLASSES = 10
SOURCE = "any mirror of MNIST (see gasn_jax.data.mnist)"
_PARTS = {"train": "train", "test": "t10k"}
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 20
# Bytes that one of a gzip file stands for, at most.
_MOST_PACKED = 1032


class Digits(NamedTuple):
    """Images and what they show."""

    images: UInt8[np.ndarray, "M 28 28"]  # 0 paper, 255 ink
    labels: Int[np.ndarray, " M"]  # int32, 0..9


class MNIST(NamedTuple):
    """The two parts of the published set: 60000 and 10000 digits."""

    train: Digits
    test: Digits


def load(data_dir: str | os.PathLike | None = None) -> MNIST:
    """Both parts.

    Args:
      data_dir: folder that holds ``mnist/``; None for ``GASN_DATA``, then the default places (see
        ``locate``).

    Raises:
      MissingDataError: a file is nowhere; says where to get it.
      DataError: a file is malformed, or its images and labels do not belong together.
    """
    return MNIST(*(_load_part(name, data_dir) for name in _PARTS.values()))


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array of an IDX file, gzipped or not, of the file's type in the machine's byte order.

    Memory is bounded by what the file can hold, whatever its header says.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: wrong magic number, unknown type, or more or fewer bytes than the sizes ask for;
        names the file and the offset (of the unpacked bytes).
    """
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if zipped else file as stream:
            try:
                size = os.fstat(file.fileno()).st_size
                return _parse(path, stream, size * _MOST_PACKED if zipped else size)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                where = f"{path}, offset {stream.tell()}"
                raise locate.DataError(f"{where}: damaged gzip stream: {error}") from error


def _parse(path, stream, most):
    header = stream.read(4)
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _TYPES or not header[3]:
        wanted = "0, 0, a type code (8, 9, 11 to 14) and the number of dimensions"
        raise locate.DataError(f"{path}, offset 0: wanted {wanted}, got {list(header)}")
    dtype, rank = np.dtype(_TYPES[header[2]]), header[3]
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        end = 4 + len(sizes)
        raise locate.DataError(f"{path}, offset {end}: ends within the {rank} dimensions")
    shape = struct.unpack(f">{rank}I", sizes)
    start, wanted = 4 + 4 * rank, math.prod(shape) * dtype.itemsize
    what = f"wanted {wanted} bytes for {list(shape)} of {dtype.name}"
    if wanted > most:
        raise locate.DataError(f"{path}, offset 4: {what}, which the file is too small for")
    pieces, count = [], 0
    while count <= wanted and (piece := stream.read(min(_CHUNK, wanted + 1 - count))):
        pieces.append(piece)
        count += len(piece)
    if count != wanted:
        found = f"ends after {count}" if count < wanted else "goes on"
        raise locate.DataError(f"{path}, offset {start + min(count, wanted)}: {what}, {found}")
    try:
        array = np.frombuffer(b"".join(pieces), dtype).reshape(shape)
    except ValueError as error:  # more dimensions than numpy has, or sizes beyond its integers
        raise locate.DataError(f"{path}, offset 4: {error}") from error
    return array.astype(dtype.newbyteorder("="))


def _load_part(name, data_dir):
    def read(kind, shape):
        path = locate.find_packed(f"mnist/{name}-{kind}-ubyte", data_dir, source=SOURCE)
        array = read_idx(path)
        if array.dtype != np.uint8 or array.shape[1:] != shape or not len(array):
            wanted = f"uint8 {['M', *shape]} with M > 0".replace("'", "")
            got = f"{array.dtype} {list(array.shape)}"
            raise locate.DataError(f"{path}: wanted {wanted}, got {got}")
        return path, array

    path, labels = read("labels-idx1", ())
    if labels.max() >= NUM_CLASSES:
        raise locate.DataError(f"{path}: labels must be 0 to 9, got {labels.max()}")
    path, images = read("images-idx3", (SIDE, SIDE))
    if len(images) != len(labels):
        raise locate.DataError(f"{path}: {len(images)} images for {len(labels)} labels")
    return Digits(images, labels.astype(np.int32))
