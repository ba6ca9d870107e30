"""The published layout of LFW parts, on small files that the tests write."""

import io
import re

import numpy as np
import pytest

from gasn_jax.data import lfw_superpixels as reader
from gasn_jax.data import locate
from gasn_jax.evaluation import overlap
from tests.data import damage

Image = pytest.importorskip("PIL.Image")
SIZE, COUNTS = 8, {"train": 3, "validation": 1, "test": 2}


def jpeg():
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, "JPEG")
    return file.getvalue()


def write(folder, size=SIZE):
    """A small set; returns the labels of pixels and superpixels by name."""
    rng = np.random.default_rng(0)
    root, written = folder / "lfw_parts", {}
    for part, count in COUNTS.items():
        names = [(f"{part.title()}_Person", i + 1) for i in range(count)]
        root.mkdir(exist_ok=True)
        (root / f"parts_{part}.txt").write_text("".join(f"{n} {i}\n" for n, i in names))
        for person, number in names:
            name = f"{person}_{number:04d}"
            # Superpixels are quarters of the image, one of them cut in two.
            superpixels = np.kron([[0, 1], [2, 3]], np.ones((size // 2, size // 2), int))
            superpixels[: size // 4, : size // 2] = 4
            own = rng.integers(0, 3, 5 + number)
            labels = own[superpixels]
            pixels = np.eye(3)[labels] * 255
            paths = {
                "lfw_funneled": f"{person}/{name}.jpg",
                "parts_lfw_funneled_gt_images": f"{name}.ppm",
                "parts_lfw_funneled_superpixels_mat": f"{person}/{name}.dat",
                "parts_lfw_funneled_gt": f"{person}/{name}.dat",
            }
            paths = [root / top / rest for top, rest in paths.items()]
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            shade = np.full((size, size, 3), 40 * number, np.uint8)
            Image.fromarray(shade).save(paths[0], quality=95)
            Image.fromarray(pixels.astype(np.uint8)).save(paths[1])
            np.savetxt(paths[2], superpixels, fmt="%d")
            paths[3].write_text(" ".join(map(str, [len(own), *own])) + "\n")
            written[name] = labels, superpixels, own
    return written


def test_what_was_written_is_read(tmp_path):
    written = write(tmp_path)
    parts = reader.load(tmp_path, side=4)
    assert [len(part.images) for part in parts] == list(COUNTS.values())
    train = parts.train
    for i, (labels, superpixels, own) in enumerate(list(written.values())[:3]):
        np.testing.assert_array_equal(train.labels[i], labels[::2, ::2])
        np.testing.assert_array_equal(train.superpixels[i], superpixels)
        np.testing.assert_array_equal(train.superpixel_labels[i, : len(own)], own)
        assert np.all(train.superpixel_labels[i, len(own) :] == -1)
        assert np.all(np.abs(train.images[i].astype(int) - 40 * (i + 1)) <= 2)
    assert train.images.shape == (3, 4, 4, 3) and train.images.dtype == np.uint8
    with pytest.raises(ValueError, match=f"side must be in 1..{SIZE}, got {SIZE + 1}"):
        reader.load(tmp_path, side=SIZE + 1)
    large = reader.enlarged(train.labels, SIZE)
    used = train.superpixel_labels[:, :5]
    assert overlap.superpixel_accuracy(large, train.superpixels, used) == 1


def test_a_small_pixel_has_the_most_frequent_label():
    pixels = np.array([[0, 0, 1], [0, 2, 1], [2, 2, 2]])
    np.testing.assert_array_equal(reader._most_frequent(pixels, 1), [[2]])
    np.testing.assert_array_equal(reader._most_frequent(pixels, 3), pixels)


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("parts_train.txt", b"Train_Person\n", "line 1: wanted a name and a number"),
        ("parts_train.txt", b"A 1\n../../etc 1\n", "line 2: wanted a name and a number"),
        ("parts_train.txt", b"A 12345678901\n", "line 1: wanted a name and a number"),
        ("parts_train.txt", b".. 1\n", "line 1: wanted a name and a number"),
        ("parts_train.txt", b"A 1\n" + b" " * (1 << 24), "has more than 16777216 bytes"),
        ("parts_train.txt", b"A 1\n\nA 01\n", "line 3: A_0001 is there twice"),
        ("parts_train.txt", b"\n", "names no photograph"),
        ("lfw_funneled/Train_Person/Train_Person_0001.jpg", b"no", "cannot read the image"),
        ("parts_lfw_funneled_gt_images/Train_Person_0001.ppm", b"P6 2 1 255 abcdef", "pure red"),
        ("parts_lfw_funneled_gt_images/Train_Person_0001.ppm", b"P6 8 8 255 ab", "cannot read"),
        ("parts_lfw_funneled_superpixels_mat/Train_Person/Train_Person_0001.dat", b"1 2\n3\n",
         "line 2: wanted 2 numbers, got 1"),
        ("parts_lfw_funneled_superpixels_mat/Train_Person/Train_Person_0001.dat", b"1 -2\n",
         "line 1: wanted numbers"),
        ("parts_lfw_funneled_superpixels_mat/Train_Person/Train_Person_0001.dat", b"1 2\n",
         r"wanted \[8, 8\] pixels, got \[1, 2\]"),
        ("parts_lfw_funneled_gt/Train_Person/Train_Person_0001.dat", b"3 0 1 7\n", "below 3"),
        ("parts_lfw_funneled_gt/Train_Person/Train_Person_0001.dat", b"3 0 1\n",
         "line 1: wanted a number > 0 and as many labels"),
        ("parts_lfw_funneled_gt/Train_Person/Train_Person_0001.dat", b"2 0 1\n", "more than 4"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named(tmp_path, place, content, message):
    write(tmp_path)
    path = tmp_path / "lfw_parts" / place
    path.write_bytes(content)
    with pytest.raises(locate.DataError, match=message) as caught:
        reader.load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(locate.MissingDataError, match=re.escape(reader.SOURCE)):
        reader.load(tmp_path)


@damage.counts(10_000)
@pytest.mark.parametrize(
    ("read", "good"),
    [
        (reader.read_names, b"Aaron_Eckhart 1\nZico 12\n"),
        (reader.read_superpixels, b"0 0 1\n2 2 1\n"),
        (reader.read_superpixel_labels, b"3 0 1 2\n"),
        (reader.read_labels, b"P6\n2 1\n255\n\xff\0\0\0\0\xff"),
        (reader._picture, jpeg()),
    ],
)
def test_damaged_files_are_read_or_refused(tmp_path, read, good, count):
    rng = np.random.default_rng(0)
    assert damage.num_refused(read, tmp_path / "file", good, rng, count) > 0.2 * count
