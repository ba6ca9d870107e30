"""What GASNs learn here: examples, the statistics that compare samples with them, and pictures.

A dataset is an entry of :data:`DATASETS`. Examples are rows of states; those of images read their
pixels row by row.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from gasn_jax.data import digits, horses, ocr_words
from gasn_jax.evaluation import masks
from gasn_jax.evaluation import samples as statistics
from gasn_jax.training import pictures

_SHOWN = 64


class Examples(NamedTuple):
    """States [M, N], -1 beyond the length, and lengths [M]."""

    states: np.ndarray
    lengths: np.ndarray


class Dataset(NamedTuple):
    """What a run has to know of its data.

    Attributes:
      num_variables, num_states: N and L.
      height: rows of the image that an example is; 0 for strings, which have lengths.
      load: ``data_dir -> {"train", "validation", "test"}``.
      compare: ``(real, held_out) -> compare(examples, is_train) -> {statistic: number}``.
      save_samples: ``(stem, real, states) -> path``, states [M, N] of "samples" and "map"; writes
        the file of this name with its ending.
    """

    num_variables: int
    num_states: int
    height: int
    load: Callable[[str], dict[str, Examples]]
    compare: Callable[[Mapping[str, Examples], str], Callable]
    save_samples: Callable[[str, Examples, Mapping[str, np.ndarray]], str]


def some_of(examples: Examples, count: int) -> Examples:
    """A fixed random choice, all of them if ``count`` is more."""
    chosen = np.random.RandomState(0).permutation(len(examples.states))[:count]
    return Examples(examples.states[chosen], examples.lengths[chosen])


def counted(rng: np.random.RandomState, examples: Examples, order: int) -> Examples:
    """Examples of a model by counting, among those of each length.

    With order 0 every position is drawn from its own frequencies, with order 1 from those that
    follow the state before it: the best that a generator can do without any noise vector, without
    and with pairwise scores.
    """
    states = examples.states.copy()
    for length in np.unique(examples.lengths):
        rows = np.flatnonzero(examples.lengths == length)
        source = examples.states[rows]
        for position in range(length):
            group = np.zeros(len(rows), int)
            donor_group = np.zeros(len(rows), int)
            if order and position:
                group, donor_group = states[rows, position - 1], source[:, position - 1]
            for state in np.unique(group):
                takers = rows[group == state]
                donors = source[donor_group == state, position]
                states[takers, position] = rng.choice(donors, len(takers))
    return Examples(states, examples.lengths)


def hamming(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Numbers of positions [M, K] in which binary rows differ."""
    left, right = left.astype(np.float32), right.astype(np.float32)
    return left @ (1 - right).T + (1 - left) @ right.T


@jax.jit
def _image_statistics(states, reference):
    return {
        "mean_error": statistics.mean_error(states, reference),
        "covariance_error": statistics.covariance_error(states, reference),
        "mmd": statistics.hamming_mmd(states, reference),
    }


def _compare_images(
    height: int, shapes: bool, real: Mapping[str, Examples], held_out: str
) -> Callable:
    train_states, reference = real["train"].states, real[held_out].states

    def compare(examples: Examples, is_train: bool) -> dict[str, float]:
        # Of training data itself there is nothing to say, so the held-out part stands there.
        distances = hamming(reference if is_train else examples.states, train_states).min(1)
        nearest = {"nearest_train": distances.mean(), "copies": np.mean(distances == 0)}
        numbers = jax.device_get(_image_statistics(examples.states, reference)) | nearest
        if shapes:
            images = (x.reshape(len(x), height, -1) for x in (examples.states, reference))
            numbers |= masks.shape_distances(*images)
        return numbers

    return compare


@jax.jit
def _word_statistics(examples, reference, train_part):
    both, options = (*examples, *reference), dict(num_states=ocr_words.NUM_LETTERS)
    seen = statistics.seen_bigrams(*train_part, **options)
    return {
        "bigram_error": statistics.bigram_error(*both, **options),
        "unseen_bigrams": statistics.unseen_bigram_rate(examples.states, examples.lengths, seen),
        "position_error": statistics.length_unigram_error(*both, **options),
    }


def _compare_words(real: Mapping[str, Examples], held_out: str) -> Callable:
    vocabulary = {row.tobytes() for row in real["train"].states}

    def compare(examples: Examples, is_train: bool) -> dict[str, float]:
        del is_train
        words = [row.tobytes() for row in np.asarray(examples.states, np.int32)]
        known = [word for word in words if word in vocabulary]
        shares = {"words": len(known) / len(words), "distinct_words": len(set(known))}
        numbers = _word_statistics(examples, real[held_out], real["train"])
        return jax.device_get(numbers) | shares

    return compare


def _save_images(
    height: int, stem: str, held_out: Examples, drawn: Mapping[str, np.ndarray]
) -> str:
    shown = {
        "real, held out": held_out.states,
        "samples": drawn["samples"],
        "MAP": drawn["map"],
    }
    pictures.save_side_by_side(
        f"{stem}.png",
        {
            name: 1.0 - states[:_SHOWN].reshape(-1, height, states.shape[-1] // height)
            for name, states in shown.items()
        },
    )
    return f"{stem}.png"


def _save_words(stem: str, held_out: Examples, drawn: Mapping[str, np.ndarray]) -> str:
    columns = (held_out.states, drawn["samples"], drawn["map"])
    lines = ["".join(f"{title:<16}" for title in ("real, held out", "samples", "MAP"))]
    for words in zip(*(states[:_SHOWN] for states in columns), strict=False):
        lines.append("".join(f"{_spell(word):<16}" for word in words))
    with open(f"{stem}.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(line.rstrip() for line in lines) + "\n")
    return f"{stem}.txt"


def _spell(states: np.ndarray) -> str:
    return "".join(chr(ord("a") + state) for state in states if state != ocr_words.PADDING)


def _images(data_dir_to_parts: Callable, data_dir: str) -> dict[str, Examples]:
    parts = {}
    for name, images in data_dir_to_parts(data_dir).items():
        states = images.reshape(len(images), -1)
        parts[name] = Examples(states, np.full(len(states), states.shape[1], np.int32))
    return parts


def _digits(data_dir: str) -> dict[str, np.ndarray]:
    del data_dir  # they come with scikit-learn
    return {name: part.images for name, part in digits.load()._asdict().items()}


def _horses(data_dir: str) -> dict[str, np.ndarray]:
    return {name: part.masks for name, part in horses.load(data_dir or None)._asdict().items()}


def _load_words(data_dir: str) -> dict[str, Examples]:
    splits = ocr_words.split_by_fold(ocr_words.load(data_dir or None))
    return {name: Examples(part.states, part.lengths) for name, part in splits._asdict().items()}


def _image_dataset(load: Callable, height: int, width: int, *, shapes: bool) -> Dataset:
    return Dataset(
        num_variables=height * width,
        num_states=2,
        height=height,
        load=functools.partial(_images, load),
        compare=functools.partial(_compare_images, height, shapes),
        save_samples=functools.partial(_save_images, height),
    )


DATASETS = {
    "digits": _image_dataset(_digits, digits.HEIGHT, digits.WIDTH, shapes=False),
    "horses": _image_dataset(_horses, horses.SIDE, horses.SIDE, shapes=True),
    "ocr_words": Dataset(
        num_variables=ocr_words.MAX_LENGTH,
        num_states=ocr_words.NUM_LETTERS,
        height=0,
        load=_load_words,
        compare=_compare_words,
        save_samples=_save_words,
    ),
}
