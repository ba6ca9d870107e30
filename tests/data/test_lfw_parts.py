import numpy as np
import pytest

from gasn_jax.data import lfw_parts, locate
from tests.data import damage


def some_faces(seed=0):
    rng = np.random.default_rng(seed)
    return lfw_parts.LFWParts(
        *(
            lfw_parts.LabelledFaces(
                rng.integers(0, 256, size=(m, 32, 32, 3)).astype(np.uint8),
                rng.integers(0, 3, size=(m, 32, 32)).astype(np.int32),
            )
            for m in (4, 2, 3)
        )
    )


def test_what_was_written_is_read(tmp_path):
    wanted = some_faces()
    lfw_parts.write_npz(wanted, tmp_path / "lfw_parts" / "lfw_parts_32x32.npz")
    for ours, theirs in zip(lfw_parts.load(tmp_path), wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_the_published_set_is_as_described():
    try:
        found = lfw_parts.load()
    except locate.MissingDataError:
        pytest.skip("the data set is not here")
    assert [len(part.labels) for part in found] == [1500, 500, 927]
    for part in found:
        assert part.images.shape[1:] == (32, 32, 3) and set(np.unique(part.labels)) == {0, 1, 2}


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_or_malformed_file_is_named(tmp_path, missing):
    path = tmp_path / "lfw_parts" / "lfw_parts_32x32.npz"
    if missing:
        with pytest.raises(locate.MissingDataError, match=r"lfw_parts_32x32\.npz not found"):
            lfw_parts.load(tmp_path)
        return
    faces = some_faces()
    faces.test.labels[0, 0, 0] = 3
    lfw_parts.write_npz(faces, path)
    with pytest.raises(locate.DataError, match="field test_labels must be below 3, got 3"):
        lfw_parts.load(tmp_path)


@damage.counts(10_000)
def test_damaged_archives_are_read_or_refused(tmp_path, count):
    assert damage.num_archives_refused(lfw_parts, some_faces(), tmp_path, count) > 0.5 * count
