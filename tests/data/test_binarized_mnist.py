import numpy as np
import pytest

from gasn_jax.data import binarized_mnist, locate
from tests.data import damage


def some_parts(seed=0):
    rng = np.random.default_rng(seed)
    parts = (rng.integers(0, 2, (m, 784)).astype(np.uint8) for m in (4, 2, 3))
    return binarized_mnist.BinarizedMNIST(*parts)


def amat(images):
    return "".join(" ".join(map(str, row)) + " \n" for row in images)


def test_what_was_written_is_read(tmp_path):
    wanted = some_parts()
    binarized_mnist.write_npz(wanted, tmp_path / "binarized_mnist/binarized_mnist_packed.npz")
    for got, array in zip(binarized_mnist.load(tmp_path), wanted, strict=True):
        assert got.dtype == np.uint8 and np.array_equal(got, array)


def test_the_published_form_is_read(tmp_path):
    wanted = some_parts().train
    path = tmp_path / "binarized_mnist_train.amat"
    path.write_text(amat(wanted))
    got = binarized_mnist.read_amat(path)
    assert got.dtype == np.uint8 and np.array_equal(got, wanted)


def test_the_published_set_is_as_described():
    try:
        parts = binarized_mnist.load()
    except locate.MissingDataError:
        pytest.skip("the data set is not here")
    assert [len(part) for part in parts] == [50000, 10000, 10000]
    for part in parts:
        assert abs(part.mean() - 0.131) < 0.002


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(locate.MissingDataError, match="get it from Larochelle's"):
        binarized_mnist.load(tmp_path)


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (
            np.zeros((2, 97), np.uint8),
            r"field valid must be uint8 \[M, 98\] with M > 0, got .*97\]",
        ),
        (np.zeros((0, 98), np.uint8), "field valid must be"),
        (np.zeros((2, 98), np.int64), "got int64"),
        (np.uint8(3), r"got uint8 \[\]"),
        (np.zeros((2, 98)), "must be an array of integers"),
        (None, "cannot read field valid"),
    ],
)
def test_a_malformed_archive_is_named_with_its_field(tmp_path, valid, message):
    fields = {name: np.zeros((2, 98), np.uint8) for name in ("train", "test")}
    path = tmp_path / "bad.npz"
    np.savez(path, **fields, **({} if valid is None else {"valid": valid}))
    with pytest.raises(locate.DataError, match=message) as caught:
        binarized_mnist.read_npz(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@damage.counts(10_000)
def test_damaged_text_is_read_or_refused(tmp_path, count):
    good, rng = amat(some_parts().validation).encode(), np.random.default_rng(0)

    def read(path):
        found = binarized_mnist.read_amat(path)
        assert found.shape[1] == 784 and found.max() <= 1

    assert damage.num_refused(read, tmp_path / "file.amat", good, rng, count) > 0.6 * count


@pytest.mark.parametrize("text", ["", "0 1\n", "\n", "0" * 10_000])
def test_text_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "file.amat"
    path.write_text(text)
    with pytest.raises(locate.DataError, match="is empty" if not text else "line 1: wanted 784"):
        binarized_mnist.read_amat(path)
