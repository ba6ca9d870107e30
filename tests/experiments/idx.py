"""MNIST's files, of noise."""

import gzip
import struct

import numpy as np


def write_mnist(folder, *, num_train=12, num_test=12, legible=False):
    """Writes `folder/mnist`; legible digits have a bright row at a height that tells the class."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for name, count in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 100, (count, 28, 28)).astype(np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        if legible:
            images[np.arange(count), 4 + 2 * labels] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            path = folder / "mnist" / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
