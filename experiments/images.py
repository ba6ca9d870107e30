"""Images as the experiments on them take them: parts of a data set, bytes and scaled pixels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from gasn_jax.data import celeba, lfw_parts, locate, mnist

_CELEBA = 64


class Images(NamedTuple):
    """The parts of a data set, uint8 [M, H, W, K] each."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Dataset(NamedTuple):
    """The shape (H, W, K) of a set's images, and its reader.

    That takes the folder of data or None, and whether images that cannot be read are left out.
    """

    shape: tuple[int, int, int]
    load: Callable[[str | None, bool], Images]


def scaled(images: Any) -> jax.Array:
    """Bytes as pixels in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0


def as_bytes(images: Any) -> np.ndarray:
    """Pixels in [-1, 1] as bytes."""
    return np.asarray(np.rint(127.5 * (np.asarray(images) + 1.0)), np.uint8)


def shown(images: np.ndarray) -> np.ndarray:
    """Bytes [M, H, W, K] as the pictures take them: [M, H, W] if there is one colour."""
    images = images / 255.0
    return images[..., 0] if images.shape[-1] == 1 else images


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many rows, from all over: the published parts are sorted in some way or other."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def num_validation(num_train: int) -> int:
    """How many of MNIST's training digits, the last of them, are the validation part."""
    return num_train // 6


def _mnist(data_dir, skip_bad_images):
    del skip_bad_images
    digits = mnist.load(data_dir)
    count = num_validation(len(digits.train.labels))
    train, test = digits.train.images[..., None], digits.test.images[..., None]
    return Images(train[:-count], train[-count:], test)


def _faces(data_dir, skip_bad_images):
    del skip_bad_images
    return Images(*(part.images for part in lfw_parts.load(data_dir)))


def _celeba(data_dir, skip_bad_images):
    *parts, skipped = celeba.load(data_dir, side=_CELEBA, skip_bad_images=skip_bad_images)
    for line in skipped:
        logging.warning("left out: %s", line)
    for name, part in zip(Images._fields, parts, strict=True):
        if not len(part):
            raise locate.DataError(f"celeba: its {name} part holds no images")
    return Images(*parts)


DATASETS = {
    "mnist": Dataset((mnist.SIDE, mnist.SIDE, 1), _mnist),
    "celeba": Dataset((_CELEBA, _CELEBA, 3), _celeba),
    "faces": Dataset((lfw_parts.SIDE, lfw_parts.SIDE, 3), _faces),
}
