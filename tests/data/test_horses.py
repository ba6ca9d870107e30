import numpy as np
import pytest

from gasn_jax.data import horses, locate
from tests.data import damage


def some_horses(seed=0):
    rng = np.random.default_rng(seed)
    return horses.Horses(
        *(
            horses.MaskedImages(
                rng.integers(0, 256, size=(m, 32, 32, 3)).astype(np.uint8),
                rng.integers(0, 2, size=(m, 32, 32)).astype(np.int32),
            )
            for m in (4, 2, 3)
        )
    )


@pytest.fixture
def fields(tmp_path):
    horses.write_npz(some_horses(), tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz", allow_pickle=False) as archive:
        return dict(archive)


def test_what_was_written_is_read(tmp_path):
    wanted = some_horses()
    horses.write_npz(wanted, tmp_path / "weizmann_horses" / "weizmann_horse_32x32.npz")
    got = horses.load(tmp_path)
    for ours, theirs in zip(got, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_the_published_set_is_as_described():
    try:
        found = horses.load()
    except locate.MissingDataError:
        pytest.skip("the data set is not here")
    assert [len(part.masks) for part in found] == [160, 40, 128]
    for part in found:
        assert part.images.shape[1:] == (32, 32, 3)
        assert 0.25 < part.masks.mean() < 0.3


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(locate.MissingDataError, match=r"weizmann_horse_32x32\.npz not found in .*"):
        horses.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("val_masks"), "cannot read field val_masks"),
        (
            lambda f: f.update(val_masks=f["val_masks"][:1]),
            r"field val_masks must be uint8 \[M, 32, 32\] with M > 0 the same for images and "
            r"masks, got uint8 \[1, 32, 32\]",
        ),
        (lambda f: f.update(test_images=f["test_images"][..., 0]), "field test_images must be"),
        (
            lambda f: f.update(train_images=f["train_images"][:0], train_masks=np.uint8([])),
            "field train_images must be",
        ),
        (lambda f: f.update(train_masks=f["train_masks"].astype(int)), "got int64"),
        (lambda f: f.update(test_masks=2 * f["test_masks"]), "must be 0 or 1, got 2"),
        (lambda f: f.update(test_masks=f["test_masks"] / 2), "must be an array of integers"),
        (lambda f: f.update(test_masks=np.uint8(1)), "field test_masks must be"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(fields, tmp_path, change, message):
    change(fields)
    path = tmp_path / "bad.npz"
    np.savez(path, **fields)
    with pytest.raises(locate.DataError, match=message) as caught:
        horses.read_npz(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(locate.DataError, match="is not an .npz archive"):
        horses.read_npz(path)


@damage.counts(10_000)
def test_damaged_archives_are_read_or_refused(tmp_path, count):
    assert damage.num_archives_refused(horses, some_horses(), tmp_path, count) > 0.5 * count
