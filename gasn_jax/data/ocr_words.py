"""Handwritten words (OCR letters): strings of 3 to 14 letters with an image of every letter.

52152 lower-case letters in 6877 words, 16x8 binary pixels each, in ten folds. The first letter of
each word was a capital and is not in the set ("ommanding" for "commanding").

Where to get it: https://ai.stanford.edu/~btaskar/ocr/ publishes ``letter.data.gz``. This module
reads that file, and a packed copy of it that loads at once. To make the packed copy::

    from gasn_jax.data import ocr_words
    letters = ocr_words.read_letter_data("letter.data.gz")
    ocr_words.write_npz(letters, "my_data/ocr_letters/ocr_letters.npz")

and ``ocr_words.load("my_data")`` finds it. Its fields, for M letters in the order of the published
file: ``letter`` [M] 0..25; ``word_id`` [M] counting words from 0; ``position`` [M] counting letters
of a word from 0; ``fold`` [M] 0..9; ``pixels_packed`` [M, 16], ``numpy.packbits`` of the row-major
16x8 pixels.

Reference: R. Kassel, "A comparison of approaches to on-line handwritten character recognition",
MIT, 1995; B. Taskar, C. Guestrin, D. Koller, "Max-Margin Markov Networks", NIPS 2003.
"""

import gzip
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from gasn_jax.data import archive, locate

NUM_LETTERS = 26
MAX_LENGTH = 14
NUM_FOLDS = 10
PIXELS = (16, 8)
PADDING = -1
TEST_FOLD = 0
VALIDATION_FOLD = 1
SOURCE = "https://ai.stanford.edu/~btaskar/ocr/ (letter.data.gz; see gasn_jax.data.ocr_words)"
_FILE = "ocr_letters/ocr_letters.npz"
_NUM_PIXELS = PIXELS[0] * PIXELS[1]
_COLUMNS = ("id", "letter", "next_id", "word_id", "position", "fold")  # then the pixels
_NUM_FIELDS = len(_COLUMNS) + _NUM_PIXELS
_FIELDS = ("letter", "word_id", "position", "fold", "pixels_packed")
_LIMITS = {"letter": NUM_LETTERS, "position": MAX_LENGTH, "fold": NUM_FOLDS}


class Letters(NamedTuple):
    """Letters in the order of the published file; those of a word stand together."""

    letter: Int[np.ndarray, " M"]  # int32, 0 is "a" and 25 is "z"
    word_id: Int[np.ndarray, " M"]  # int32, words counted from 0 in order of appearance
    position: Int[np.ndarray, " M"]  # int32, letters of a word counted from 0
    fold: Int[np.ndarray, " M"]  # int32, 0..9, the same for all letters of a word
    pixels: UInt8[np.ndarray, "M 16 8"]  # 0 paper, 1 ink


class Words(NamedTuple):
    """Words padded to 14 letters; every occurrence of a word is kept."""

    states: Int[np.ndarray, "W 14"]  # int32, 0..25, and -1 beyond the word's length
    lengths: Int[np.ndarray, " W"]  # int32, 1..14
    folds: Int[np.ndarray, " W"]  # int32, 0..9
    pixels: UInt8[np.ndarray, "W 14 16 8"] | None  # 0 or 1, 0 beyond the length; None if not asked


class Splits(NamedTuple):
    """Three disjoint parts of the words."""

    train: Words
    validation: Words
    test: Words


def load(data_dir: str | os.PathLike | None = None, *, pixels: bool = False) -> Words:
    """All words of the packed copy, in the published order.

    Args:
      data_dir: folder that holds ``ocr_letters/ocr_letters.npz``; None for ``GASN_DATA``, then
        the default places (see ``locate``).
      pixels: whether to unpack the letters' images, 12 MB.

    Returns:
      ``Words``: W = 6877 for the published set.

    Raises:
      MissingDataError: the file is nowhere; says where to get it.
      DataError: the file is malformed; names the file and the field.
    """
    return group_words(read_npz(locate.find(_FILE, data_dir, source=SOURCE)), pixels=pixels)


def split_by_fold(words: Words) -> Splits:
    """Words in three parts: fold 0 is the test, fold 1 the validation, folds 2..9 the training.

    Folds are the publisher's. The same string may stand in several parts, since several writers
    wrote the same words.

    Args:
      words: as from ``load``.

    Returns:
      ``Splits``; 5547, 704 and 626 words of the published set.
    """

    def part(chosen: np.ndarray) -> Words:
        pixels = None if words.pixels is None else words.pixels[chosen]
        return Words(words.states[chosen], words.lengths[chosen], words.folds[chosen], pixels)

    is_test = words.folds == TEST_FOLD
    is_validation = words.folds == VALIDATION_FOLD
    return Splits(part(~is_test & ~is_validation), part(is_validation), part(is_test))


def group_words(letters: Letters, *, pixels: bool = False) -> Words:
    """Letters gathered into padded words.

    Args:
      letters: as from ``read_npz`` or ``read_letter_data``.
      pixels: whether to gather the images too.

    Returns:
      ``Words``, one for each ``word_id``; O(M).
    """
    word, position = letters.word_id, letters.position
    num_words = int(word[-1]) + 1
    states = np.full((num_words, MAX_LENGTH), PADDING, np.int32)
    states[word, position] = letters.letter
    folds = np.empty(num_words, np.int32)
    folds[word] = letters.fold
    images = None
    if pixels:
        images = np.zeros((num_words, MAX_LENGTH, *PIXELS), np.uint8)
        images[word, position] = letters.pixels
    return Words(states, np.bincount(word).astype(np.int32), folds, images)


def read_npz(path: str | os.PathLike) -> Letters:
    """Letters of a packed copy (the module's docstring gives its fields).

    Args:
      path: the ``.npz`` file. Pickled objects in it are refused.

    Returns:
      ``Letters``, checked.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is no such archive, or a field is missing or has a wrong type, shape or
        value; names the file and the field.
    """
    fields = archive.read(path, _FIELDS)
    packed = fields.pop("pixels_packed")
    num_letters = fields["letter"].size
    for name, field in fields.items():
        if not num_letters or field.shape != (num_letters,):
            raise locate.DataError(
                f"{path}: field {name} must have shape [M] with M > 0 the same for all fields, "
                f"got {list(field.shape)}"
            )
    if packed.dtype != np.uint8 or packed.shape != (num_letters, _NUM_PIXELS // 8):
        raise locate.DataError(
            f"{path}: field pixels_packed must be uint8 [{num_letters}, {_NUM_PIXELS // 8}], "
            f"got {packed.dtype} {list(packed.shape)}"
        )
    _check_values(path, fields)
    columns = {name: field.astype(np.int32) for name, field in fields.items()}
    return Letters(**columns, pixels=np.unpackbits(packed, axis=1).reshape(-1, *PIXELS))


def write_npz(letters: Letters, path: str | os.PathLike) -> None:
    """Writes the packed copy that ``read_npz`` and ``load`` read; makes the folder if need be.

    Args:
      letters: as from ``read_letter_data``.
      path: the file to write, ending in ``.npz``.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        letter=letters.letter.astype(np.uint8),
        word_id=letters.word_id,
        position=letters.position.astype(np.uint8),
        fold=letters.fold.astype(np.uint8),
        pixels_packed=np.packbits(letters.pixels.reshape(-1, _NUM_PIXELS), axis=1),
    )


def read_letter_data(path: str | os.PathLike) -> Letters:
    """Letters of the published text file.

    Each line holds, separated by tabs: ``id``, ``letter`` a..z, ``next_id`` (-1 at a word's last
    letter), ``word_id``, ``position``, ``fold`` 0..9, and 128 pixels, 0 or 1, row by row. Words are
    the chains of ``next_id``; the publisher calls ``word_id`` and ``position`` unused, so they only
    have to be integers, and both are counted anew from 0.

    Args:
      path: ``letter.data``, or ``letter.data.gz`` as published.

    Returns:
      ``Letters`` in the file's order.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: the file is malformed; names the file, the line and the field.
    """
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="ascii") as lines:
        try:
            return _parse(path, lines)
        except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error) as error:
            raise locate.DataError(f"{path}: not a complete text file: {error}") from error


def _parse(path: str | os.PathLike, lines: Iterable[str]) -> Letters:
    letters, word_ids, positions, folds, pixels = [], [], [], [], []
    before = None  # the row before in the same word
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        row = _parse_line(where, line)
        if before is None:
            word_ids.append(word_ids[-1] + 1 if word_ids else 0)
            positions.append(0)
        else:
            if row.id != before.next_id:
                raise locate.DataError(f"{where}: wanted id {before.next_id}, got {row.id}")
            if row.fold != before.fold:
                raise locate.DataError(f"{where}: fold {row.fold} in a word of fold {before.fold}")
            if positions[-1] + 1 == MAX_LENGTH:
                raise locate.DataError(f"{where}: a word of more than {MAX_LENGTH} letters")
            word_ids.append(word_ids[-1])
            positions.append(positions[-1] + 1)
        letters.append(row.letter)
        folds.append(row.fold)
        pixels.append(row.pixels)
        before = None if row.next_id == -1 else row
    if before is not None or not letters:
        raise locate.DataError(f"{path}: ends within a word" if letters else f"{path}: is empty")
    ink = np.frombuffer("".join(pixels).encode("ascii"), np.uint8) - ord("0")
    columns = (np.array(column, np.int32) for column in (letters, word_ids, positions, folds))
    return Letters(*columns, pixels=ink.reshape(-1, *PIXELS))


class _Row(NamedTuple):
    id: int
    letter: int
    next_id: int
    fold: int
    pixels: str  # 128 characters "0" or "1"


def _parse_line(where: str, line: str) -> _Row:
    # the published lines end in a tab
    fields = line.rstrip("\t\r\n").split("\t")
    if len(fields) != _NUM_FIELDS:
        raise locate.DataError(f"{where}: wanted {_NUM_FIELDS} fields, got {len(fields)}")
    integers = {
        name: _integer(where, name, fields[column])
        for column, name in enumerate(_COLUMNS)
        if name != "letter"
    }
    if len(fields[1]) != 1 or not "a" <= fields[1] <= "z":
        raise locate.DataError(f"{where}: letter must be a..z, got {fields[1]!r}")
    if not 0 <= integers["fold"] < NUM_FOLDS:
        raise locate.DataError(f"{where}: fold must be 0..{NUM_FOLDS - 1}, got {fields[5]}")
    if not set(fields[6:]) <= {"0", "1"}:
        raise locate.DataError(f"{where}: pixels must be 0 or 1")
    letter = ord(fields[1]) - ord("a")
    pixels = "".join(fields[6:])
    return _Row(integers["id"], letter, integers["next_id"], integers["fold"], pixels)


def _integer(where: str, name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise locate.DataError(f"{where}: {name} must be an integer, got {value!r}") from None


def _check_values(path: str | os.PathLike, fields: dict[str, np.ndarray]) -> None:
    for name, limit in _LIMITS.items():
        if fields[name].min() < 0 or fields[name].max() >= limit:
            raise locate.DataError(f"{path}: field {name} must be within 0..{limit - 1}")
    # signed, so that differences of unsigned fields do not wrap around
    signed = {name: field.astype(np.int64) for name, field in fields.items()}
    word, position, fold = signed["word_id"], signed["position"], signed["fold"]
    steps = np.diff(word, prepend=-1)
    starts = steps == 1
    if word[0] != 0 or not np.all(starts | (steps == 0)):
        raise locate.DataError(f"{path}: field word_id must count words from 0 in order")
    ranks = np.arange(word.size) - np.flatnonzero(starts)[word]
    if not np.array_equal(position, ranks):
        raise locate.DataError(f"{path}: field position must count letters of a word from 0")
    if not np.array_equal(fold, fold[starts][word]):
        raise locate.DataError(f"{path}: field fold must be the same for all letters of a word")
