"""Multi-label data: features of examples, and which of many labels each has.

Three published forms are read, plain or gzipped: ARFF as Mulan has it, dense and sparse, its labels
the attributes that an XML file beside it names, or the last ones; and LIBSVM's lines of
``label,label index:value index:value``.

Where to get them: Bibtex and Bookmarks, with their splits, are kept at
https://mulan.sourceforge.net/datasets-mlc.html; they go to ``bibtex/bibtex-train.arff.gz`` and so
on in a folder of data (:func:`load`).

Reference: I. Katakis, G. Tsoumakas and I. Vlahavas, "Multilabel Text Classification for Automated
Tag Suggestion", ECML PKDD Discovery Challenge, 2008.
"""

import array
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from gasn_jax.data import locate

# Number of labels: the last attributes.
NUM_LABELS = {"bibtex": 159, "bookmarks": 208}
SOURCE = "https://mulan.sourceforge.net/datasets-mlc.html"
_ATTRIBUTE = re.compile(
    r"@attribute\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s{]+)\s*(\{[^}]*\}|\w+)\s*",
    re.IGNORECASE,
)
_NUMERIC = ("numeric", "real", "integer")
_MOST_VALUES = 1 << 31
_LARGEST = float(np.finfo(np.float32).max)


class MultiLabel(NamedTuple):
    """Examples.

    Attributes:
      features: float32 [M, D].
      labels: 0 or 1, uint8 [M, L].
      label_names: L of them.
    """

    features: Float[np.ndarray, "M D"]
    labels: UInt8[np.ndarray, "M L"]
    label_names: tuple[str, ...]


class Split(NamedTuple):
    """The two parts of a published set."""

    train: MultiLabel
    test: MultiLabel


def load(name: str, data_dir: str | os.PathLike | None = None) -> Split:
    """A published set in its published split.

    Args:
      name: ``"bibtex"`` (4880 and 2515 examples, 1836 features, 159 labels) or ``"bookmarks"``.
      data_dir: folder that holds it; None for ``GASN_DATA``, then the default places (see
        ``locate``).

    Raises:
      ValueError: for another name.
      MissingDataError: a file is nowhere; says where to get it.
      DataError: a file is malformed; names it and the line.
    """
    if name not in NUM_LABELS:
        raise ValueError(f"name must be one of {', '.join(NUM_LABELS)}, got {name!r}")
    parts = []
    for part in Split._fields:
        path = locate.find(f"{name}/{name}-{part}.arff.gz", data_dir, source=SOURCE)
        parts.append(read_arff(path, NUM_LABELS[name]))
    if parts[0].features.shape[1] != parts[1].features.shape[1]:
        raise locate.DataError(f"{path}: has other attributes than the training part")
    return Split(*parts)


def read_arff(path: str | os.PathLike, num_labels: int) -> MultiLabel:
    """The examples of an ARFF file, dense or sparse, gzipped or not.

    Features are numeric, or nominal and numbers (``{0,1}``); labels are nominal ``{0,1}``.

    Args:
      path: the file.
      num_labels: L; the last L attributes are labels.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: a line is malformed; names the file and the line.
    """
    if num_labels < 1:
        raise ValueError(f"num_labels must be >= 1, got {num_labels}")
    lines = _lines(path)
    names = _read_header(path, lines, num_labels)

    def parse(line):
        return (_sparse if line.startswith("{") else _dense)(line, len(names))

    return _split(path, _table(path, lines, parse, len(names)), names, num_labels)


def read_libsvm(path: str | os.PathLike, num_features: int, num_labels: int) -> MultiLabel:
    """The examples of a multi-label file as LIBSVM has it, gzipped or not.

    A line is ``label,label,... index:value ...`` with labels from 0 and indices from 1, rising; an
    example without labels begins with a space or with its first index.

    Args:
      path: the file.
      num_features: D.
      num_labels: L.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: a line is malformed; names the file and the line.
    """
    for name, least in (("num_features", num_features), ("num_labels", num_labels)):
        if least < 1:
            raise ValueError(f"{name} must be >= 1, got {least}")
    names = [str(i) for i in range(num_features + num_labels)]

    def parse(line):
        return _libsvm(line, num_features, num_labels)

    return _split(path, _table(path, _lines(path), parse, len(names)), names, num_labels)


def _lines(path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are neither empty nor a comment."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if zipped else file as stream:
            number = 0
            try:
                for number, line in enumerate(stream, start=1):
                    text = line.decode("utf-8", "replace").strip()
                    if text and not text.startswith("%"):
                        yield number, text
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                message = f"{path}, line {number + 1}: damaged gzip stream: {error}"
                raise locate.DataError(message) from error


def _read_header(path, lines, num_labels):
    """The attributes' names; leaves the lines at the first example."""
    names: list[str] = []
    number = 0
    for number, line in lines:
        if line.lower().startswith("@data"):
            if len(names) <= num_labels:
                wanted = f"more than {num_labels} attributes, the labels the last of them"
                raise locate.DataError(f"{path}, line {number}: wanted {wanted}, got {len(names)}")
            return names
        if line.lower().startswith("@relation"):
            continue
        found = _ATTRIBUTE.fullmatch(line)
        kind = found[2].lower() if found else ""
        if not found or not (kind in _NUMERIC or _is_numbers(kind)):
            wanted = "@attribute NAME numeric or {0,1}"
            raise locate.DataError(f"{path}, line {number}: wanted {wanted}, got {line[:60]!r}")
        names.append(found[1].strip("'\""))
    raise locate.DataError(f"{path}, line {number}: ends without @data")


def _is_numbers(kind):
    if not kind.startswith("{"):
        return False
    try:
        return [float(item.strip(" '\"")) for item in kind[1:-1].split(",")] != []
    except ValueError:
        return False


def _sparse(line, width):
    if not line.endswith("}"):
        raise ValueError(f"wanted {{index value, ...}}, got {line[:60]!r}")
    content, last = line[1:-1].strip(), -1
    for item in content.split(",") if content else ():
        words = item.split()
        if len(words) != 2 or not words[0].isdecimal() or not last < int(words[0]) < width:
            raise ValueError(f"wanted a rising index below {width} and a value, got {item[:60]!r}")
        last = int(words[0])
        yield last, _number(words[1])


def _dense(line, width):
    items = line.split(",")
    if len(items) != width:
        raise ValueError(f"wanted {width} values, got {len(items)}")
    for column, item in enumerate(items):
        value = _number(item.strip())
        if value:
            yield column, value


def _libsvm(line, num_features, num_labels):
    words = line.split()
    labels = words.pop(0) if words and ":" not in words[0] else ""
    seen = set()
    for label in labels.split(",") if labels else ():
        if not label.isdecimal() or int(label) >= num_labels or label in seen:
            raise ValueError(f"wanted labels below {num_labels}, each once, got {labels[:60]!r}")
        seen.add(label)
        yield num_features + int(label), 1.0
    last = 0
    for word in words:
        index, colon, value = word.partition(":")
        if not colon or not index.isdecimal() or not last < int(index) <= num_features:
            raise ValueError(f"wanted a rising index to {num_features}:value, got {word[:60]!r}")
        last = int(index)
        yield last - 1, _number(value)


def _number(text):
    value = float(text.strip("'\""))
    if not abs(value) <= _LARGEST:
        raise ValueError(f"wanted a finite number, got {text[:60]!r}")
    return value


def _table(path, lines, parse, width):
    """The examples [M, width] of lines, each parsed into pairs of a column and a value."""
    rows, columns, values = array.array("q"), array.array("q"), array.array("f")
    count = 0
    for number, line in lines:
        try:
            for column, value in parse(line):
                rows.append(count)
                columns.append(column)
                values.append(value)
        except ValueError as error:
            raise locate.DataError(f"{path}, line {number}: {error}") from None
        count += 1
    if not count:
        raise locate.DataError(f"{path}: holds no examples")
    if count * width > _MOST_VALUES:
        raise locate.DataError(f"{path}: {count} examples of {width} values are too many")
    table = np.zeros((count, width), np.float32)
    table[np.frombuffer(rows, np.int64), np.frombuffer(columns, np.int64)] = np.frombuffer(
        values, np.float32
    )
    return table


def _split(path, table, names, num_labels):
    labels = table[:, -num_labels:]
    wrong = np.argwhere((labels != 0) & (labels != 1))
    if len(wrong):
        row, column = wrong[0]
        name = names[len(names) - num_labels + column]
        raise locate.DataError(
            f"{path}: example {row + 1}: label {name} must be 0 or 1, got {labels[row, column]:g}"
        )
    features = np.ascontiguousarray(table[:, :-num_labels])
    return MultiLabel(features, labels.astype(np.uint8), tuple(names[-num_labels:]))
