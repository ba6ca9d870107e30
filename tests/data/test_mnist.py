import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from gasn_jax.data import locate, mnist
from tests.data import damage

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array, code=None, shape=None):
    """The bytes of an IDX file; its header may lie."""
    shape = array.shape if shape is None else shape
    code = CODES[array.dtype.str.lstrip("|")] if code is None else code
    return (
        bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    )


def write_set(folder, num=5, **changes):
    """A small set in the published layout; `changes` replace whole files."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for name in ("train", "t10k"):
        arrays = {
            "labels-idx1": rng.integers(0, 10, num).astype("u1"),
            "images-idx3": rng.integers(0, 256, (num, 28, 28)).astype("u1"),
        }
        for kind, array in arrays.items():
            data = gzip.compress(changes.get(f"{name}_{kind[:6]}", idx(array)), mtime=0)
            (folder / "mnist" / f"{name}-{kind}-ubyte.gz").write_bytes(data)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 1, 3, 2)])
def test_what_was_written_is_read(tmp_path, zipped, dtype, shape):
    wanted = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    data = idx(wanted)
    (tmp_path / "file").write_bytes(gzip.compress(data, mtime=0) if zipped else data)
    got = mnist.read_idx(tmp_path / "file")
    assert got.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(got, wanted)
    got[...] = 0  # the caller's own


def test_the_published_set_is_as_described():
    try:
        train, test = mnist.load()
    except locate.MissingDataError:
        pytest.skip("the data set is not here")
    assert (len(train.images), len(test.images)) == (60000, 10000)
    assert abs(train.images.mean() - 33.3184) < 1e-4 and abs(test.images.mean() - 33.7912) < 1e-4
    assert np.bincount(test.labels).tolist()[:2] == [980, 1135]


def test_a_set_is_loaded_or_named_as_missing(tmp_path):
    with pytest.raises(locate.MissingDataError, match=r"train-labels-idx1-ubyte\.gz not found"):
        mnist.load(tmp_path)
    write_set(tmp_path)
    packed = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    for part in mnist.load(tmp_path):
        assert part.images.shape == (5, 28, 28) and part.images.dtype == np.uint8
        assert part.labels.shape == (5,) and part.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train_labels=idx(np.full(5, 10, "u1"))), "labels must be 0 to 9, got 10"),
        (dict(t10k_labels=idx(np.zeros(4, "u1"))), "5 images for 4 labels"),
        (dict(t10k_images=idx(np.zeros((5, 28), "u1"))), r"wanted uint8 \[M, 28, 28\] with M > 0"),
        (dict(train_images=idx(np.zeros((5, 28, 28), ">i2"))), r"got int16 \[5, 28, 28\]"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(tmp_path, changes, message):
    write_set(tmp_path, **changes)
    with pytest.raises(locate.DataError, match=message) as caught:
        mnist.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


GOOD = idx(np.arange(12, dtype="u1").reshape(3, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"offset 0: wanted 0, 0, a type code .* got \[\]"),
        (b"\0\0\x08", r"got \[0, 0, 8\]"),
        (b"\1" + GOOD[1:], r"got \[1, 0, 8, 2\]"),
        (GOOD[:2] + b"\x0a" + GOOD[3:], "offset 0"),
        (GOOD[:3] + b"\0", "offset 0"),
        (GOOD[:7], "offset 7: ends within the 2 dimensions"),
        (GOOD[:-1], r"offset 23: wanted 12 bytes for \[3, 4\] of uint8, ends after 11"),
        (GOOD + b"\0", r"offset 24: wanted 12 bytes for \[3, 4\] of uint8, goes on"),
        (idx(np.zeros(2, "u1"), shape=(2**32 - 1,) * 4), "offset 4: wanted .* too small for"),
        (idx(np.zeros(0, "u1"), shape=(0,) + (2**32 - 1,) * 3), "offset 4"),
        (idx(np.zeros(1, "u1"), shape=(1,) * 100), "offset 4"),
        (gzip.compress(GOOD, mtime=0)[:-9], r"offset \d+: damaged gzip stream"),
        (gzip.compress(GOOD, mtime=0)[:8] + b"junk", "offset 0: damaged gzip stream"),
    ],
)
def test_a_malformed_file_is_named_with_its_offset(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(locate.DataError, match=message) as caught:
        mnist.read_idx(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_header_that_lies_allocates_nothing(tmp_path, zipped):
    path = tmp_path / "file"
    content = idx(np.zeros(1 << 25 if zipped else 1000, "u1"), code=0x0E, shape=(2**31, 2**31))
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    del content
    tracemalloc.start()
    with pytest.raises(locate.DataError):
        mnist.read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@damage.counts(5000)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_files_are_read_or_refused(tmp_path, zipped, count):
    good, rng = gzip.compress(GOOD, mtime=0) if zipped else GOOD, np.random.default_rng(0)
    assert damage.num_refused(mnist.read_idx, tmp_path / "file", good, rng, count) > 0.4 * count
