import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gasn_jax.data import locate, ocr_words

WORDS = (("ab", 3), ("z", 0), ("abc", 1), ("ab", 9))


def letter_lines(words=WORDS):
    """Lines as published: ids, word ids and positions from 1, a tab at the end."""
    rng = np.random.RandomState(0)
    lines = []
    for word_id, (word, fold) in enumerate(words, start=1):
        for position, letter in enumerate(word, start=1):
            own_id = len(lines) + 1
            next_id = -1 if position == len(word) else own_id + 1
            pixels = rng.randint(0, 2, 128).tolist()
            fields = [own_id, letter, next_id, word_id, position, fold, *pixels]
            lines.append("\t".join(map(str, fields)) + "\t\n")
    return lines


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "letter.data"
    path.write_text("".join(letter_lines()))
    return path


@pytest.fixture
def packed_fields(tmp_path, text_file):
    ocr_words.write_npz(ocr_words.read_letter_data(text_file), tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz", allow_pickle=False) as archive:
        return dict(archive)


def test_the_published_text_becomes_padded_words(text_file):
    words = ocr_words.group_words(ocr_words.read_letter_data(text_file), pixels=True)
    blank = [-1] * 14
    strings = [[0, 1], [25], [0, 1, 2], [0, 1]]
    assert words.states.tolist() == [s + blank[len(s) :] for s in strings]
    assert words.lengths.tolist() == [2, 1, 3, 2]
    assert words.folds.tolist() == [3, 0, 1, 9]
    assert words.states.dtype == words.lengths.dtype == words.folds.dtype == np.int32
    pixels = np.array([line.split("\t")[6:134] for line in letter_lines()]).astype(int)
    assert np.array_equal(words.pixels[2, :3], pixels[3:6].reshape(3, 16, 8))
    assert not words.pixels[2, 3:].any()


def test_a_packed_copy_holds_the_same(tmp_path, text_file):
    letters = ocr_words.read_letter_data(text_file)
    path = tmp_path / "sets" / "ocr_letters" / "ocr_letters.npz"
    ocr_words.write_npz(letters, path)
    for field, again in zip(letters, ocr_words.read_npz(path), strict=True):
        assert field.dtype == again.dtype and np.array_equal(field, again)
    words = ocr_words.load(tmp_path / "sets")
    assert words.pixels is None
    assert np.array_equal(words.states, ocr_words.group_words(letters).states)


def test_gzipped_text_is_the_same_and_truncation_is_noticed(tmp_path, text_file):
    packed = gzip.compress(text_file.read_bytes(), mtime=0)
    path = tmp_path / "letter.data.gz"
    path.write_bytes(packed)
    expected = ocr_words.read_letter_data(text_file)
    assert np.array_equal(ocr_words.read_letter_data(path).pixels, expected.pixels)
    for broken in (packed[:-20], b"", b"no gzip", packed[:30] + b"\0" + packed[31:]):
        path.write_bytes(broken)
        with pytest.raises(locate.DataError, match="letter.data.gz"):
            ocr_words.read_letter_data(path)


def test_the_folds_make_disjoint_parts(text_file):
    words = ocr_words.group_words(ocr_words.read_letter_data(text_file), pixels=True)
    parts = ocr_words.split_by_fold(words)
    assert [part.folds.tolist() for part in parts] == [[3, 9], [1], [0]]
    assert parts.test.states[0, :2].tolist() == [25, -1]
    assert parts.train.pixels.shape == (2, 14, 16, 8)


@pytest.mark.parametrize(
    ("line", "column", "value", "complaint"),
    [
        (1, 0, "x", "line 2: id must be an integer, got 'x'"),
        (1, 0, "7", "line 2: wanted id 2, got 7"),
        (2, 1, "A", "line 3: letter must be a..z, got 'A'"),
        (2, 1, "", "line 3: letter must be a..z, got ''"),
        (0, 2, "", "line 1: next_id must be an integer"),
        (0, 3, "1.5", "line 1: word_id must be an integer"),
        (0, 4, "?", "line 1: position must be an integer"),
        (3, 5, "10", "line 4: fold must be 0..9, got 10"),
        (1, 5, "4", "line 2: fold 4 in a word of fold 3"),
        (5, 70, "2", "line 6: pixels must be 0 or 1"),
        (5, 133, "1\t1", "line 6: wanted 134 fields, got 135"),
        (7, 2, "9", "ends within a word"),
        (0, 1, "\xe4", "not a complete text file"),
    ],
)
def test_malformed_text_is_named_by_line_and_field(text_file, line, column, value, complaint):
    lines = letter_lines()
    fields = lines[line].split("\t")
    fields[column] = value
    lines[line] = "\t".join(fields)
    text_file.write_text("".join(lines), encoding="latin-1")
    with pytest.raises(ValueError) as caught:
        ocr_words.read_letter_data(text_file)
    assert complaint in str(caught.value) and str(text_file) in str(caught.value)
    assert isinstance(caught.value, locate.DataError) and "\n" not in str(caught.value)


def test_too_long_words_and_empty_files_are_refused(text_file):
    text_file.write_text("".join(letter_lines([("a" * 15, 0)])))
    with pytest.raises(locate.DataError, match="line 15: a word of more than 14 letters"):
        ocr_words.read_letter_data(text_file)
    text_file.write_text("")
    with pytest.raises(locate.DataError, match="is empty"):
        ocr_words.read_letter_data(text_file)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("letter", lambda x: x + 26),
        ("letter", lambda x: x.astype(np.float32)),
        ("letter", lambda x: x.astype(str)),
        ("letter", lambda x: x[:0]),
        ("letter", lambda x: np.array(x, object)),
        ("word_id", lambda x: x + 1),
        ("word_id", lambda x: x[::-1]),
        ("word_id", lambda x: x * 2),
        ("word_id", lambda x: x[:-1]),
        ("word_id", lambda x: x[:, None]),
        ("position", lambda x: x + 1),
        ("position", lambda x: x * 0),
        ("position", lambda x: x * 9),
        ("fold", lambda x: x + 1),
        ("fold", lambda x: np.arange(x.size) % 10),
        ("pixels_packed", lambda x: x[:, :15]),
        ("pixels_packed", lambda x: x.astype(np.int32)),
        ("pixels_packed", lambda x: x[1:]),
        ("pixels_packed", None),
    ],
)
def test_malformed_archives_are_named_by_field(tmp_path, packed_fields, field, change):
    path = tmp_path / "bad.npz"
    if change is None:
        del packed_fields[field]
    else:
        packed_fields[field] = change(packed_fields[field])
    np.savez(path, **packed_fields)
    # an empty `letter` makes M = 0, and the first field that is looked at says so
    with pytest.raises(locate.DataError, match=f"bad.npz: .*field {field}") as caught:
        ocr_words.read_npz(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    for content in (b"", b"no archive", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(locate.DataError, match="bad.npz: is not an .npz archive"):
            ocr_words.read_npz(path)
    np.save(path.with_suffix(".npy"), np.arange(3))
    with pytest.raises(locate.DataError, match="bad.npy"):
        ocr_words.read_npz(path.with_suffix(".npy"))
    with pytest.raises(FileNotFoundError):
        ocr_words.read_npz(tmp_path / "absent.npz")


@pytest.fixture(scope="module")
def good_archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    (folder / "letter.data").write_text("".join(letter_lines()))
    letters = ocr_words.read_letter_data(folder / "letter.data")
    ocr_words.write_npz(letters, folder / "good.npz")
    return folder, letters


@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_archive_never_gives_wrong_letters(good_archive, where, byte, cut):
    folder, letters = good_archive
    content = bytearray((folder / "good.npz").read_bytes())
    index = int(where * len(content))
    content[index] = byte
    damaged = folder / "damaged.npz"
    damaged.write_bytes(content[:index] if cut else content)
    try:
        again = ocr_words.read_npz(damaged)
    except locate.DataError:
        return
    # some bytes of a zip archive carry nothing, a time stamp for one
    assert all(np.array_equal(x, y) for x, y in zip(letters, again, strict=True))


@given(where=st.floats(0, 1, exclude_max=True), character=st.sampled_from("\t\n\r 01-az\x00"))
def test_damaged_text_gives_valid_letters_or_a_data_error(good_archive, where, character):
    folder, _ = good_archive
    text = "".join(letter_lines())
    index = int(where * len(text))
    damaged = folder / "damaged.data"
    damaged.write_text(text[:index] + character + text[index + 1 :])
    try:
        letters = ocr_words.read_letter_data(damaged)
    except locate.DataError:
        return
    copy = folder / "copy.npz"
    ocr_words.write_npz(letters, copy)
    ocr_words.read_npz(copy)  # checks all ranges


def test_the_published_set():
    try:
        words = ocr_words.load(pixels=True)
    except locate.MissingDataError as error:
        pytest.skip(str(error))
    assert words.states.shape == (6877, 14) and words.pixels.shape == (6877, 14, 16, 8)
    assert words.lengths.sum() == 52152
    assert (words.lengths.min(), words.lengths.max()) == (3, 14)
    padded = np.arange(14)[None, :] >= words.lengths[:, None]
    assert np.array_equal(words.states == -1, padded)
    assert not words.pixels[padded].any()
    assert "".join(chr(97 + state) for state in words.states[0, :9]) == "ommanding"
    parts = ocr_words.split_by_fold(words)
    assert [part.lengths.size for part in parts] == [5547, 704, 626]
