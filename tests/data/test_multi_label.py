"""ARFF and LIBSVM files: what is written is read, the published set, and damaged ones."""

import gzip
import io
import sys
import time

import numpy as np
import pytest
import sklearn.datasets

from gasn_jax.data import locate, multi_label
from tests.data import damage

HEADER = (
    "% a comment\n@relation 'toy: -C 2'\n\n@attribute 'a word' {0,1}\n@ATTRIBUTE size numeric\n"
    "@attribute TAG_x {0,1}\n@attribute TAG_y {0, 1}\n@data\n"
)
DENSE = "1,0.5,0,1\n0, -2 ,1,0\n0,0,0,0\n"
SPARSE = "{0 1,1 0.5,3 1}\n{1 -2, 2 1}\n{}\n"
FEATURES, LABELS = [[1, 0.5], [0, -2], [0, 0]], [[0, 1], [1, 0], [0, 0]]


def written(tmp_path, text, zipped=False):
    path = tmp_path / ("file.arff.gz" if zipped else "file.arff")
    content = text.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("body", [DENSE, SPARSE, DENSE.replace("\n", "\r\n") + "\n% end\n"])
def test_dense_and_sparse_arff_say_the_same(tmp_path, body, zipped):
    found = multi_label.read_arff(written(tmp_path, HEADER + body, zipped), 2)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.label_names == ("TAG_x", "TAG_y")
    assert found.features.dtype == np.float32 and found.labels.dtype == np.uint8


XML = '<labels xmlns="http://x/labels"><label name="TAG_x"></label><label name="TAG_y"/></labels>'


def test_labels_are_those_that_an_xml_file_names(tmp_path):
    path = tmp_path / "labels.xml"
    path.write_text(XML)
    names = multi_label.read_label_names(path)
    assert names == ("TAG_x", "TAG_y")
    mixed = "\n".join(HEADER.splitlines()[i] for i in (0, 1, 6, 3, 5, 4, 7)) + "\n"
    found = multi_label.read_arff(written(tmp_path, mixed + "1,0,0,0.5\n{0 1,1 1}\n"), names)
    assert found.label_names == ("TAG_y", "TAG_x")
    np.testing.assert_array_equal(found.labels, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(found.features, [[0, 0.5], [1, 0]])
    with pytest.raises(locate.DataError, match="line 7: wanted 1 labels among more .* got 0 of 4"):
        multi_label.read_arff(written(tmp_path, mixed), ["TAG_z"])
    for text in ("", "<labels>", "<labels/>", XML.replace("TAG_y", "TAG_x"), "<label/>"):
        path.write_text(text)
        with pytest.raises(locate.DataError, match="labels.xml: "):
            multi_label.read_label_names(path)


@damage.counts(10_000)
def test_damaged_xml_is_read_or_refused(tmp_path, count):
    good, rng = XML.encode(), np.random.default_rng(0)
    read, path = multi_label.read_label_names, tmp_path / "labels.xml"
    assert damage.num_refused(read, path, good, rng, count) > 0.3 * count


def test_bookmarks_are_one_file_whose_first_examples_are_for_training(tmp_path, monkeypatch):
    (tmp_path / "bookmarks").mkdir()
    labels = [f"@attribute L{i} {{0,1}}" for i in range(208)]
    header = ["@relation bookmarks", *labels, "@attribute w {0,1}", "@attribute v {0,1}", "@data"]
    rows = ["{0 1,208 1}", "{207 1}", "{209 1}"]
    text = "\n".join([*header, *rows]) + "\n"
    (tmp_path / "bookmarks" / "bookmarks.arff").write_text(text)
    names = "".join(f'<label name="L{i}"/>' for i in range(208))
    (tmp_path / "bookmarks" / "bookmarks.xml").write_text(f"<labels>{names}</labels>")
    with pytest.raises(locate.DataError, match="wanted more than 60000 examples, got 3"):
        multi_label.load("bookmarks", tmp_path)
    monkeypatch.setitem(multi_label._NUM_TRAIN, "bookmarks", 2)
    train, test = multi_label.load("bookmarks", tmp_path)
    np.testing.assert_array_equal(train.features, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(test.features, [[0, 1]])
    assert np.argwhere(train.labels).tolist() == [[0, 0], [1, 207]] and not test.labels.any()
    (tmp_path / "bookmarks" / "bookmarks.xml").write_text('<labels><label name="L0"/></labels>')
    with pytest.raises(locate.DataError, match="bookmarks.xml: wanted 208 labels, got 1"):
        multi_label.load("bookmarks", tmp_path)


def test_libsvm_is_what_scikit_learn_writes(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 6)) * (rng.random((20, 6)) < 0.4)
    labels = (rng.random((20, 4)) < 0.4).astype(int)
    labels[[3, 5, 19]] = 0
    features[[5, 19]] = 0  # lines of a space
    file = io.BytesIO()
    sklearn.datasets.dump_svmlight_file(features, labels, file, zero_based=False, multilabel=True)
    path = tmp_path / "file.svm"
    path.write_bytes(file.getvalue())
    found = multi_label.read_libsvm(path, 6, 4)
    np.testing.assert_allclose(found.features, features, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)
    path.write_text("0 1:1\n\n%none\n2 2:1\n")
    np.testing.assert_array_equal(multi_label.read_libsvm(path, 6, 4).labels.argmax(1), [0, 2])


def test_the_published_set_is_as_described():
    try:
        found = multi_label.load("bibtex")
    except locate.MissingDataError:
        pytest.skip("the data set is not here")
    for part, count, mean in ((found.train, 4880, 2.380), (found.test, 2515, 2.444)):
        assert part.features.shape == (count, 1836) and part.labels.shape == (count, 159)
        assert set(np.unique(part.features)) == {0, 1}
        assert part.labels.sum(1).mean() == pytest.approx(mean, abs=1e-3)
    assert found.train.label_names[0] == "TAG_2005"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1,0.5,0\n", "line 9: wanted 4 values, got 3"),
        (HEADER + DENSE + "1,x,0,1\n", "line 12: wanted a number, got 'x'"),
        (HEADER + "1,?,0,1\n", "line 9: wanted a number, got '?'"),
        (HEADER + "1,nan,0,1\n", "line 9: wanted a finite number, got 'nan'"),
        (HEADER + "1,1e40,0,1\n", "line 9: wanted a finite number"),
        (HEADER + "{0 1,4 1}\n", "line 9: wanted a rising index below 4"),
        (HEADER + "{1 1,0 1}\n", "line 9: wanted a rising index"),
        (HEADER + "{1 1\n", "line 9: wanted {index value"),
        (HEADER + "{1}\n", "line 9: wanted a rising index"),
        (HEADER + "1,0.5,2,0\n", "line 9: TAG_x must be {0,1}, got 2"),
        (HEADER + "7,0.5,0,1\n", "line 9: a word must be {0,1}, got 7"),
        (HEADER + "{0 0.5}\n", "line 9: a word must be {0,1}, got 0.5"),
        (HEADER.replace("numeric", "integer") + "1,1.5,0,1\n", "size must be integer, got 1.5"),
        (HEADER + "1,1_0,0,0\n", "line 9: wanted a number, got '1_0'"),
        (HEADER.replace("{0, 1}", "numeric"), "line 8: label TAG_y must be {0,1}, got numeric"),
        (HEADER.replace("{0, 1}", "{0,1,2}"), "line 8: label TAG_y must be {0,1}, got {0,1,2}"),
        (HEADER.replace("{0, 1}", "{1,0}"), "line 7: wanted @attribute"),
        (HEADER, "holds no examples"),
        (HEADER.replace("@data", ""), "ends without @data"),
        (HEADER.replace("numeric", "string"), "line 5: wanted @attribute NAME numeric or {0,1}"),
        (HEADER.replace("{0, 1}", "{a,b}"), "line 7: wanted @attribute"),
        (HEADER.replace("@data", "@database"), "line 8: wanted @attribute"),
        (HEADER.replace("TAG_y", "'TAG_y"), "line 7: wanted @attribute"),
        (HEADER.replace("TAG_y", '"'), "line 7: wanted @attribute"),
        (HEADER.replace("TAG_y", "TAG_x"), "line 7: attribute 'TAG_x' is there twice"),
        ("@data\n", "line 1: wanted 2 labels among more attributes, got 0 of 0"),
        ("", "ends without @data"),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, message):
    with pytest.raises(locate.DataError) as caught:
        multi_label.read_arff(written(tmp_path, text), 2)
    assert message in str(caught.value) and "file.arff" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1:1\n5 1:1\n", "line 2: wanted labels below 3"),
        ("0,0 1:1\n", "line 1: wanted labels below 3, each once"),
        ("1,01 1:1\n", "line 1: wanted labels below 3, each once"),
        ("0 0:1\n", "line 1: wanted a rising index to 4:value"),
        ("0 2:1 1:1\n", "line 1: wanted a rising index"),
        ("0 5:1\n", "line 1: wanted a rising index"),
        ("0 2\n", "line 1: wanted a rising index"),
        ("0 2:inf\n", "line 1: wanted a finite number"),
    ],
)
def test_malformed_libsvm_lines_are_named(tmp_path, text, message):
    path = tmp_path / "file.svm"
    path.write_text(text)
    with pytest.raises(locate.DataError, match="file.svm") as caught:
        multi_label.read_libsvm(path, 4, 3)
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["@attribute {}!", "@attribute {}", "@attribute '{}"])
def test_long_lines_are_refused_in_linear_time(tmp_path, line):
    path = written(tmp_path, line.format("a" * 1_000_000) + "\n@data\n1\n")
    start = time.process_time()
    with pytest.raises(locate.DataError, match="line 1: wanted @attribute NAME numeric"):
        multi_label.read_arff(path, 1)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_text(tmp_path, mark):
    path = tmp_path / "file"
    path.write_bytes(mark + (HEADER + "1,0.5,0,1\n").encode())
    assert multi_label.read_arff(path, 2).labels.tolist() == [[0, 1]]
    path.write_bytes(mark + b"0,2 1:1\n")
    found = multi_label.read_libsvm(path, 4, 3)
    assert found.labels.tolist() == [[1, 0, 1]] and found.label_names == ("0", "1", "2")


def test_digits_are_ascii(tmp_path):
    for body in ("{\u0661 1}\n", "{0 \u0661}\n"):
        with pytest.raises(locate.DataError, match="line 9: "):
            multi_label.read_arff(written(tmp_path, HEADER + body), 2)
    with pytest.raises(locate.DataError, match="line 1: wanted labels below 3"):
        multi_label.read_libsvm(written(tmp_path, "\u0661 1:1\n"), 4, 3)


def test_names_may_be_quoted(tmp_path):
    header = r"""@attribute 'don\'t' {0,1}
    @attribute "a \"b\"" {0,1}
    @attribute plain {0,1}
    @data
    1,0,1"""
    names = ["don't", 'a "b"']
    found = multi_label.read_arff(written(tmp_path, header), names)
    assert found.label_names == tuple(names) and found.labels.tolist() == [[1, 0]]


def test_missing_sets_and_bad_arguments(tmp_path):
    with pytest.raises(locate.MissingDataError, match="bookmarks/bookmarks.arff.gz not found"):
        multi_label.load("bookmarks", tmp_path)
    with pytest.raises(locate.MissingDataError, match="bibtex/bibtex-train.arff.gz not found"):
        multi_label.load("bibtex", tmp_path)
    with pytest.raises(ValueError, match="name must be one of bibtex, bookmarks, got 'delicious'"):
        multi_label.load("delicious")
    with pytest.raises(ValueError, match="labels must be >= 1, got 0"):
        multi_label.read_arff(written(tmp_path, HEADER + DENSE), 0)


def fuzz(tmp_path, content, read, count):
    def checked(path):
        found = read(path)
        assert sys.getsizeof(found.features) < 1e5 and np.all(found.labels <= 1)

    start, rng = time.perf_counter(), np.random.default_rng(0)
    assert damage.num_refused(checked, tmp_path / "fuzzed", content, rng, count) > count / 3
    assert time.perf_counter() - start < 100


@damage.counts(2500)
@pytest.mark.parametrize("body", [DENSE, SPARSE])
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_arff_never_crashes(tmp_path, body, zipped, count):
    content = written(tmp_path, HEADER + body, zipped).read_bytes()
    fuzz(tmp_path, content, lambda path: multi_label.read_arff(path, 2), count)


@damage.counts(10_000)
def test_damaged_libsvm_never_crashes(tmp_path, count):
    content = b"0,2 1:1 3:0.5\n1 2:4\n 1:1\n"
    fuzz(tmp_path, content * 4, lambda path: multi_label.read_libsvm(path, 4, 3), count)
