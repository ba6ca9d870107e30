"""Multi-label data: features of examples, and which of many labels each has.

Three published forms are read, plain or gzipped: ARFF as Mulan has it, dense and sparse, its labels
the attributes that an XML file names, or the last ones; and LIBSVM's lines of
``label,label index:value index:value``.

Where to get them: Bibtex and Bookmarks are kept at https://mulan.sourceforge.net/datasets-mlc.html,
as ``bibtex-train.arff``, ``bibtex-test.arff`` and ``bibtex.xml``, and as ``bookmarks.arff`` and
``bookmarks.xml``; they go to ``bibtex/`` and ``bookmarks/`` in a folder of data (:func:`load`).

Reference: I. Katakis, G. Tsoumakas and I. Vlahavas, "Multilabel Text Classification for Automated
Tag Suggestion", ECML PKDD Discovery Challenge, 2008.
"""

import array
import codecs
import gzip
import numbers
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, UInt8

from gasn_jax.data import locate

NUM_LABELS = {"bibtex": 159, "bookmarks": 208}
# Where one file holds both parts, its first so many examples are for training, as the literature
# has it (of Bookmarks' 87856).
_NUM_TRAIN = {"bookmarks": 60_000}
SOURCE = "https://mulan.sourceforge.net/datasets-mlc.html"
_ATTRIBUTE = re.compile(
    r"@attribute\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s{'\"][^\s{]*)(\s*\{[^}]*\}|\s+\w+)\s*",
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
    """A published set in its split; an XML file beside it names the labels, else they are the last.

    Args:
      name: ``"bibtex"`` (4880 and 2515 examples, 1836 features, 159 labels) or ``"bookmarks"``
        (60000 and 27856 examples, 2150 features, 208 labels).
      data_dir: folder that holds it; None for ``GASN_DATA``, then the default places (see
        ``locate``).

    Raises:
      ValueError: for another name.
      MissingDataError: a file is nowhere; says where to get it.
      DataError: a file is malformed; names it and the line.
    """
    if name not in NUM_LABELS:
        raise ValueError(f"name must be one of {', '.join(NUM_LABELS)}, got {name!r}")
    labels: int | tuple[str, ...] = NUM_LABELS[name]
    for folder in locate.data_dirs(data_dir):
        if (named := folder / name / f"{name}.xml").is_file():
            labels = read_label_names(named)
            if len(labels) != NUM_LABELS[name]:
                wanted = f"wanted {NUM_LABELS[name]} labels, got {len(labels)}"
                raise locate.DataError(f"{named}: {wanted}")
            break

    def read(stem):
        path = locate.find_packed(f"{name}/{stem}.arff", data_dir, source=SOURCE)
        return path, read_arff(path, labels)

    if name in _NUM_TRAIN:
        path, whole = read(name)
        count = _NUM_TRAIN[name]
        if len(whole.features) <= count:
            wanted = f"wanted more than {count} examples, got {len(whole.features)}"
            raise locate.DataError(f"{path}: {wanted}")
        halves = slice(None, count), slice(count, None)
        return Split(
            *(whole._replace(features=whole.features[h], labels=whole.labels[h]) for h in halves)
        )
    (_, train), (path, test) = (read(f"{name}-{part}") for part in Split._fields)
    if train.features.shape[1] != test.features.shape[1]:
        raise locate.DataError(f"{path}: has other attributes than the training part")
    return Split(train, test)


def read_arff(path: str | os.PathLike, labels: int | Sequence[str]) -> MultiLabel:
    """The examples of an ARFF file, dense or sparse, gzipped or not.

    Features are numeric, integers, or nominal and numbers, 0 the first; labels nominal ``{0,1}``.
    Missing values (``?``), weights of examples, and comments beside text are refused.

    Args:
      path: the file.
      labels: L, if the last L attributes are the labels; or the labels' names, as for files that
        begin with them (what the relation says of that, as in MEKA's ``-C 5``, is not read).

    Raises:
      FileNotFoundError: there is no such file.
      DataError: a line is malformed; names the file and the line.
    """
    if _num_labels(labels) < 1:
        raise ValueError(f"labels must be >= 1, got {labels}")
    lines = _lines(path)
    names, kinds, is_label = _read_header(path, lines, labels)
    allowed = [_values(kind) for kind in kinds]

    def parse(line):
        pairs = (_sparse if line.startswith("{") else _dense)(line, len(names))
        for column, value in pairs:
            known = allowed[column]
            if value not in known if known else kinds[column] == "integer" and value % 1:
                raise ValueError(f"{names[column]} must be {kinds[column]}, got {value:g}")
            yield column, value

    return _split(_table(path, lines, parse, len(names)), names, is_label)


def read_label_names(path: str | os.PathLike) -> tuple[str, ...]:
    """The labels that an XML file of Mulan's names: ``<labels><label name="..."/>...</labels>``.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: it is malformed, or names none or one twice; names the file.
    """
    try:
        # The tags stand in a namespace, "{http://...}label".
        tags = ElementTree.parse(path).iter()
        names = [tag.get("name", "") for tag in tags if tag.tag.rpartition("}")[2] == "label"]
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise locate.DataError(f"{path}: is no XML: {reason}") from error
    if not names or len(set(names)) < len(names) or "" in names:
        raise locate.DataError(f"{path}: wanted labels with a name each, all of them different")
    return tuple(names)


def read_libsvm(path: str | os.PathLike, num_features: int, num_labels: int) -> MultiLabel:
    """The examples of a multi-label file as LIBSVM has it, gzipped or not.

    A line is ``label,label,... index:value ...`` with labels from 0 and indices from 1, rising; an
    example without labels begins with a space or with its first index. A line of spaces is an
    example of zeros; one of nothing at all is none.

    Args:
      path: the file.
      num_features: D.
      num_labels: L; their names are their numbers.

    Raises:
      FileNotFoundError: there is no such file.
      DataError: a line is malformed; names the file and the line.
    """
    for name, least in (("num_features", num_features), ("num_labels", num_labels)):
        if least < 1:
            raise ValueError(f"{name} must be >= 1, got {least}")
    names = [str(i) for count in (num_features, num_labels) for i in range(count)]
    is_label = np.arange(len(names)) >= num_features

    def parse(line):
        return _libsvm(line, num_features, num_labels)

    lines = _lines(path, spaces=True)
    return _split(_table(path, lines, parse, len(names)), names, is_label)


def _lines(path, *, spaces=False) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are neither empty, or only of spaces, nor a comment."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.GzipFile(fileobj=file) if zipped else file as stream:
            number = 0
            try:
                for number, line in enumerate(stream, start=1):
                    if number == 1:
                        line = line.removeprefix(codecs.BOM_UTF8)
                    text = line.decode("utf-8", "replace").strip("\r\n" if spaces else None)
                    if text and not text.lstrip().startswith("%"):
                        yield number, text.strip()
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                message = f"{path}, line {number + 1}: damaged gzip stream: {error}"
                raise locate.DataError(message) from error


def _read_header(path, lines, labels):
    """Names and kinds of attributes, and which are labels; leaves lines at the first example."""
    names: dict[str, None] = {}
    kinds: list[str] = []
    number = 0
    for number, line in lines:
        word = line.split(maxsplit=1)[0].lower()
        if word == "@data":
            where = f"{path}, line {number}"
            return list(names), kinds, _find_labels(where, list(names), kinds, labels)
        if word == "@relation":
            continue
        found = _ATTRIBUTE.fullmatch(line)
        kind = found[2].strip().lower() if found else ""
        if not found or not (kind in _NUMERIC or next(iter(_values(kind)), None) == 0):
            wanted = "@attribute NAME numeric or {0,1}"
            raise locate.DataError(f"{path}, line {number}: wanted {wanted}, got {line[:60]!r}")
        name = _unquoted(found[1])
        if name in names:
            raise locate.DataError(f"{path}, line {number}: attribute {name[:60]!r} is there twice")
        names[name] = None
        kinds.append(kind)
    raise locate.DataError(f"{path}, line {number}: ends without @data")


def _unquoted(name):
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name[0] in "'\"" else name


def _values(kind):
    """The numbers of a nominal kind, in order (sparse lines leave out the first); else none."""
    try:
        items = kind[1:-1].split(",") if kind.startswith("{") else ()
        return dict.fromkeys(float(item.strip(" '\"")) for item in items)
    except ValueError:
        return {}


def _num_labels(labels) -> int:
    return int(labels) if isinstance(labels, numbers.Integral) else len(labels)


def _find_labels(where, names, kinds, labels):
    """Whether each attribute is a label, [D+L]."""
    count = _num_labels(labels)
    if isinstance(labels, numbers.Integral):
        is_label = np.arange(len(names)) >= len(names) - count
    else:
        is_label = np.isin(names, labels)
    if is_label.sum() != count or is_label.all():
        wanted = f"wanted {count} labels among more attributes"
        raise locate.DataError(f"{where}: {wanted}, got {is_label.sum()} of {len(names)}")
    for name, kind, label in zip(names, kinds, is_label, strict=True):
        if label and re.sub(r"[\s'\"]", "", kind) != "{0,1}":
            raise locate.DataError(f"{where}: label {name} must be {{0,1}}, got {kind[:60]}")
    return is_label


def _sparse(line, width):
    if not line.endswith("}"):
        raise ValueError(f"wanted {{index value, ...}}, got {line[:60]!r}")
    content, last = line[1:-1].strip(), -1
    for item in content.split(",") if content else ():
        words = item.split()
        if len(words) != 2 or not _is_index(words[0]) or not last < int(words[0]) < width:
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
        if not _is_index(label) or int(label) >= num_labels or int(label) in seen:
            raise ValueError(f"wanted labels below {num_labels}, each once, got {labels[:60]!r}")
        seen.add(int(label))
        yield num_features + int(label), 1.0
    last = 0
    for word in words:
        index, colon, value = word.partition(":")
        if not colon or not _is_index(index) or not last < int(index) <= num_features:
            raise ValueError(f"wanted a rising index to {num_features}:value, got {word[:60]!r}")
        last = int(index)
        yield last - 1, _number(value)


def _is_index(text):
    return text.isascii() and text.isdecimal()


def _number(text):
    # float() takes digits that are grouped by underscores, and those of every script.
    try:
        value = float(text.strip("'\"").replace("_", "x").encode("ascii", "replace"))
    except ValueError:
        raise ValueError(f"wanted a number, got {text[:60]!r}") from None
    if not abs(value) <= _LARGEST:
        raise ValueError(f"wanted a finite number, got {text[:60]!r}")
    return value


def _table(path, lines, parse, width):
    """The examples [M, D+L] of lines, each parsed into pairs of a column and a value."""
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


def _split(table, names, is_label):
    label_names = tuple(name for name, label in zip(names, is_label, strict=True) if label)
    return MultiLabel(table[:, ~is_label], table[:, is_label].astype(np.uint8), label_names)
