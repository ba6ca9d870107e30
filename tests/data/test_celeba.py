"""CelebA's published layout, on small files that the tests write."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from gasn_jax.data import celeba, locate
from tests.data import damage

NAMES = ("000001.jpg", "000002.jpg", "162771.jpg", "182638.jpg")


def write(folder, names=NAMES, size=(178, 218)):
    """Images with a bright square of 108x108 in their centre on black, each of another grey."""
    (folder / "img_align_celeba").mkdir(parents=True)
    for number, name in enumerate(names):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        top, left = (size[1] - 108) // 2, (size[0] - 108) // 2
        pixels[top : top + 108, left : left + 108] = 100 + 40 * number
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=95)
    return folder / "img_align_celeba"


def zipped(folder):
    """The same as the published zip; the folder is gone."""
    with zipfile.ZipFile(folder.parent / "img_align_celeba.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(folder)
    return folder.parent / "img_align_celeba.zip"


@pytest.mark.parametrize("as_zip", [False, True])
def test_the_centre_of_every_image_is_read_into_its_part(tmp_path, as_zip):
    folder = write(tmp_path / "celeba")
    (folder / "readme.txt").write_text("not an image")
    if as_zip:
        zipped(folder)
    found = celeba.load(tmp_path)
    assert [part.shape for part in found[:3]] == [(2, 64, 64, 3), (1, 64, 64, 3), (1, 64, 64, 3)]
    assert found.train.dtype == np.uint8 and not found.skipped
    for image, grey in zip(np.concatenate(found[:3]), (100, 140, 180, 220), strict=True):
        assert np.abs(image[2:-2, 2:-2].astype(int) - grey).max() <= 2
    other = celeba.load(tmp_path, side=8, crop=178)
    assert other.train.shape == (2, 8, 8, 3) and other.train[0, 0, 0, 0] < 10


def test_the_partition_decides_where_it_is_there(tmp_path):
    write(tmp_path / "celeba")
    path = tmp_path / "celeba" / "list_eval_partition.txt"
    path.write_text("162771.jpg 0\n000002.jpg 2\n\n")
    found = celeba.load(tmp_path)
    assert [len(part) for part in found[:3]] == [1, 0, 1]
    assert abs(int(found.train[0, 30, 30, 0]) - 180) <= 2
    for line in ("000001.jpg 3", "000001.png 0", "000001.jpg", "../1.jpg 0", "\xff 0"):
        path.write_text(f"000002.jpg 0\n{line}\n")
        with pytest.raises(locate.DataError, match="list_eval_partition.txt, line 2: wanted"):
            celeba.load(tmp_path)
    path.write_text("000001.jpg 0\n000002.jpg 1\n000001.jpg 2\n")
    with pytest.raises(locate.DataError, match="line 3: 000001.jpg is there twice"):
        celeba.load(tmp_path)
    path.unlink()
    (path.parent / "Eval").mkdir()
    (path.parent / "Eval" / path.name).write_text("000001.jpg 2\n")
    assert [len(part) for part in celeba.load(tmp_path)[:3]] == [0, 0, 1]


def test_without_a_partition_a_number_between_others_is_missed(tmp_path):
    write(tmp_path / "celeba", names=("000003.jpg", "000005.jpg", "182638.jpg", "202600.jpg"))
    with pytest.raises(locate.DataError, match="image 000004.jpg: .*No such file"):
        celeba.load(tmp_path)
    found = celeba.load(tmp_path, skip_bad_images=True)
    assert [len(part) for part in found[:3]] == [2, 0, 1]
    assert len(found.skipped) == 1 and "000004.jpg" in found.skipped[0]
    Image.new("RGB", (178, 218)).save(tmp_path / "celeba" / "img_align_celeba" / "3.jpg")
    with pytest.raises(locate.DataError, match="3.jpg and 000003.jpg have one number"):
        celeba.load(tmp_path)


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_bad_image_is_named_and_refused_or_skipped(tmp_path, as_zip):
    folder = write(tmp_path / "celeba")
    partition = "".join(f"{name} 0\n" for name in (*NAMES, "000009.jpg"))
    (folder.parent / "list_eval_partition.txt").write_text(partition)
    content = (folder / "000002.jpg").read_bytes()
    (folder / "000002.jpg").write_bytes(content[: len(content) // 2])
    (folder / "162771.jpg").write_bytes(b"")
    Image.new("RGB", (100, 300)).save(folder / "182638.jpg")
    if as_zip:
        zipped(folder)
    with pytest.raises(locate.DataError, match=r"image 000002.jpg: .*truncated.*skip_bad_images"):
        celeba.load(tmp_path)
    found = celeba.load(tmp_path, skip_bad_images=True)
    assert len(found.train) == 1
    named = [line.partition("image ")[2] for line in found.skipped]
    assert [line[:10] for line in named] == ["000002.jpg", "162771.jpg", "182638.jpg", "000009.jpg"]
    assert "got 100x300" in named[2] and "\n" not in "".join(named)


def test_what_is_no_data_set_is_one_line(tmp_path):
    with pytest.raises(locate.MissingDataError, match="img_align_celeba.zip not found"):
        celeba.load(tmp_path)
    (tmp_path / "celeba").mkdir()
    (tmp_path / "celeba" / "img_align_celeba.zip").write_bytes(b"PK nothing")
    with pytest.raises(locate.DataError, match="is not a zip archive"):
        celeba.load(tmp_path)
    (tmp_path / "celeba" / "img_align_celeba").mkdir()
    with pytest.raises(locate.DataError, match="holds no image"):
        celeba.load(tmp_path)
    with pytest.raises(ValueError, match="side must be >= 1, got 0"):
        celeba.load(tmp_path, side=0)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "celeba")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install gasn_jax\[images\]"):
        celeba.load(tmp_path, skip_bad_images=True)


@damage.counts(1000)
def test_damaged_images_and_archives_never_crash(tmp_path, count):
    folder, rng = write(tmp_path / "celeba", names=NAMES[:1]), np.random.default_rng(0)

    def read(path):
        del path
        assert celeba.load(tmp_path).train.shape[1:] == (64, 64, 3)

    for path in (folder / NAMES[0], None):
        if path is None:
            path = zipped(folder)
        good = path.read_bytes()
        assert damage.num_refused(read, path, good, rng, count) > 0.1 * count
        path.write_bytes(good)
