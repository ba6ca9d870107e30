"""The ALEN paper's data sets as its experiments take them: inputs, relaxed outputs, and scores."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gasn_jax.data import horses, lfw_parts, lfw_superpixels, locate, multi_label
from gasn_jax.evaluation import overlap
from gasn_jax.learning.relaxed_outputs import RelaxedOutputs

# One of so many training examples is for validation where no such part is published.
_VALIDATION_EVERY = 5
_SIDE = horses.SIDE
# Photographs are moved at random by so much at most, in pixels, radians and log-scale; bends, in
# pixels at the points of a coarse grid, and tints are standard deviations.
_SHIFT, _TURN, _STRETCH, _BEND, _BEND_GRID, _TINT = 4.0, 0.12, 0.12, 0.4, (4, 4), 0.15


class Examples(NamedTuple):
    """Inputs [M, ...] and true outputs [M, ...], float32.

    Superpixels, of held-out photographs where they are known, are the number of each pixel's, and
    their labels.
    """

    x: np.ndarray
    y: np.ndarray
    superpixels: tuple[np.ndarray, np.ndarray] | None = None


class Parts(NamedTuple):
    """Disjoint parts of a data set."""

    train: Examples
    validation: Examples
    test: Examples


class Dataset(NamedTuple):
    """A data set.

    Attributes:
      x_shape, y_shape: of an example.
      outputs: the kind of y, and the oracle.
      load: the parts, from the folder of data or None.
      augment: (key, x, y, side) -> (x, y), another example like one, of a square with that side;
        None where there is no such thing.
      scores: (predicted 0 or 1 [M, ...], the examples) -> numbers in %, the main one first.
      input_name: of x in the files of `--mode=predict`.
    """

    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    outputs: RelaxedOutputs
    load: Callable[[str | None], Parts]
    augment: Callable[..., Any] | None
    scores: Callable[[np.ndarray, Examples], dict[str, float]]
    input_name: str

    @property
    def are_images(self) -> bool:
        """Whether x is an image."""
        return len(self.x_shape) == 3

    @property
    def num_classes(self) -> int:
        """Classes of every variable; 0 for binary ones."""
        return self.y_shape[-1] if self.outputs.kind == "classes" else 0

    def decide(self, y: np.ndarray, threshold: float) -> np.ndarray:
        """Relaxed outputs [M, ...] as 0 and 1: above the threshold, or the likeliest class."""
        if self.outputs.kind == "binary":
            return y > threshold
        return np.arange(y.shape[-1]) == np.argmax(y, axis=-1)[..., None]


def load(name: str, data_dir: str, held_out: str) -> tuple[Examples, Examples]:
    """What to train on and what to evaluate on.

    For ``held_out="test"`` the validation part belongs to the former.
    """
    parts = DATASETS[name].load(data_dir or None)
    if held_out == "validation":
        return Examples(parts.train.x, parts.train.y), parts.validation
    both = parts.train, parts.validation
    fit = Examples(np.concatenate([part.x for part in both]), np.concatenate([p.y for p in both]))
    return fit, parts.test


def _multi_label(name, data_dir):
    split = multi_label.load(name, data_dir)
    found, wanted = split.train.features.shape[1], DATASETS[name].x_shape[0]
    if found != wanted:
        raise locate.DataError(f"{name}: wanted {wanted} features, got {found}")
    train, test = (Examples(part.features, part.labels.astype(np.float32)) for part in split)
    held_out = np.random.default_rng(0).permutation(len(train.x)) % _VALIDATION_EVERY == 0
    fit, validation = (Examples(train.x[rows], train.y[rows]) for rows in (~held_out, held_out))
    return Parts(fit, validation, test)


def _label_scores(predicted, examples):
    true = examples.y > 0.5
    found = {
        "example F1": overlap.example_f1(predicted, true),
        "micro F1": overlap.micro_f1(predicted, true),
        "macro F1": overlap.macro_f1(predicted, true),
    }
    return {name: 100 * value for name, value in found.items()}


def _horses(data_dir):
    return Parts(
        *(
            Examples(scaled(part.images), part.masks.astype(np.float32))
            for part in horses.load(data_dir)
        )
    )


def _mask_scores(predicted, examples):
    true = examples.y > 0.5
    found = {
        "mean IOU": overlap.mean_iou(predicted, true),
        "global IOU": overlap.global_iou(predicted, true),
        "pixel accuracy": overlap.pixel_accuracy(predicted, true),
    }
    return {name: 100 * value for name, value in found.items()}


def _lfw_parts(data_dir):
    return Parts(*(Examples(*_parts_of_faces(part)) for part in lfw_parts.load(data_dir)))


def _lfw_superpixels(data_dir):
    return Parts(
        *(
            Examples(*_parts_of_faces(part), (part.superpixels, part.superpixel_labels))
            for part in lfw_superpixels.load(data_dir, side=_SIDE)
        )
    )


def _parts_of_faces(part):
    classes = np.eye(len(lfw_parts.LABELS), dtype=np.float32)
    return scaled(part.images), classes[part.labels]


def _class_scores(predicted, examples):
    predicted = predicted.argmax(axis=-1)
    found = {"pixel accuracy": overlap.pixel_accuracy(predicted, examples.y.argmax(axis=-1))}
    if examples.superpixels is not None:
        of_pixels, labels = examples.superpixels
        large = lfw_superpixels.enlarged(predicted, of_pixels.shape[-1])
        accuracy = overlap.superpixel_accuracy(large, of_pixels, labels)
        found = {"superpixel accuracy": accuracy} | found
    return {name: 100 * value for name, value in found.items()}


class View(NamedTuple):
    """A square part of an image, as it is or mirrored."""

    top: int
    left: int
    side: int
    mirrored: bool

    def of(self, images: np.ndarray, *, axis: int) -> np.ndarray:
        """What it shows of images whose rows and columns are ``axis`` and the next."""
        rows, columns = (
            slice(self.top, self.top + self.side),
            slice(self.left, self.left + self.side),
        )
        seen = images[(slice(None),) * axis + (rows, columns)]
        return np.flip(seen, axis + 1) if self.mirrored else seen


def views(*, side: int, step: int, mirrored: bool) -> list[View]:
    """Squares at every ``step`` pixels of an image, and at its ends; mirrored too, or not."""
    places = sorted({*range(0, _SIDE - side, step), _SIDE - side})
    flips = (False, True) if mirrored else (False,)
    return [
        View(top, left, side, flip) for top, left, flip in itertools.product(places, places, flips)
    ]


def joined(seen: list[np.ndarray], views: list[View], *, axis: int) -> np.ndarray:
    """Masks of whole images, each pixel the mean of those of it in the views' masks."""
    before, after = seen[0].shape[:axis], seen[0].shape[axis + 2 :]
    total = np.zeros((*before, _SIDE, _SIDE, *after), np.float32)
    count = np.zeros_like(total)
    for view, part in zip(views, seen, strict=True):
        # `of` gives a window into its argument, of a mirrored view too
        view.of(total, axis=axis)[:] += part
        view.of(count, axis=axis)[:] += 1
    return total / count


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1


def _moved(key, x, y, side):
    """A square of a photograph and of its mask moved alike, and its colours changed, at random."""
    mirror_key, place_key, colour_key = jax.random.split(key, 3)
    mirrored = jax.random.bernoulli(mirror_key)
    places = _places(place_key, side)

    def sampled(image):
        image = jnp.where(mirrored, image[:, ::-1], image)
        return jax.scipy.ndimage.map_coordinates(image, places, order=1, mode="nearest")

    planes = jax.vmap(sampled, in_axes=-1, out_axes=-1)
    x = _recoloured(colour_key, planes(x))
    if y.ndim == 2:
        return x, jnp.round(sampled(y))
    return x, jax.nn.one_hot(jnp.argmax(planes(y), axis=-1), y.shape[-1])


def _places(key, side):
    """Where each pixel of a square comes from: it is shifted, turned, stretched and bent."""
    keys = jax.random.split(key, 4)
    stretched = jnp.exp(_STRETCH * jax.random.uniform(keys[0], (2,), minval=-1, maxval=1))
    shift = max(_SHIFT, (_SIDE - side) / 2) * jax.random.uniform(keys[1], (2,), minval=-1, maxval=1)
    angle = _TURN * jax.random.uniform(keys[2], minval=-1, maxval=1)
    bent = _BEND * jax.random.normal(keys[3], (2, *_BEND_GRID))
    bent = jax.image.resize(bent, (2, side, side), "cubic")
    rows, columns = jnp.mgrid[:side, :side] - (side - 1) / 2
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    turned = cosine * rows - sine * columns, sine * rows + cosine * columns
    return [turned[i] * stretched[i] + (_SIDE - 1) / 2 + shift[i] + bent[i] for i in (0, 1)]


def _recoloured(key, x):
    """The photograph tinted, and half of the time somewhat greyer."""
    gain_key, tint_key, grey_key, share_key = jax.random.split(key, 4)
    gain = jnp.exp(_TINT * jax.random.normal(gain_key, (1, 1, 3)))
    x = gain * x + _TINT * jax.random.normal(tint_key, (1, 1, 3))
    share = jax.random.uniform(share_key) * jax.random.bernoulli(grey_key)
    return (1 - share) * x + share * jnp.mean(x, axis=-1, keepdims=True)


_BINARY_F1 = RelaxedOutputs("binary", "f1")

DATASETS = (
    {
        name: Dataset(
            x_shape=(num_features,),
            y_shape=(multi_label.NUM_LABELS[name],),
            outputs=_BINARY_F1,
            load=functools.partial(_multi_label, name),
            augment=None,
            scores=_label_scores,
            input_name="features",
        )
        for name, num_features in (("bibtex", 1836), ("bookmarks", 2150))
    }
    | {
        "horses": Dataset(
            x_shape=(_SIDE, _SIDE, 3),
            y_shape=(_SIDE, _SIDE),
            outputs=RelaxedOutputs("binary", "iou"),
            load=_horses,
            augment=_moved,
            scores=_mask_scores,
            input_name="images",
        ),
    }
    | {
        name: Dataset(
            x_shape=(_SIDE, _SIDE, 3),
            y_shape=(_SIDE, _SIDE, len(lfw_parts.LABELS)),
            outputs=RelaxedOutputs("classes", "iou"),
            load=load_faces,
            augment=_moved,
            scores=_class_scores,
            input_name="images",
        )
        for name, load_faces in (("lfw_parts", _lfw_parts), ("lfw_superpixels", _lfw_superpixels))
    }
)
