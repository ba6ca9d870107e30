"""Pictures: files of the right size whose pixels and CSVs hold what was given."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest

matplotlib_image = pytest.importorskip("matplotlib.image")

from gasn_jax.training import pictures  # noqa: E402


def read_csv(path):
    with open(path, encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, np.array(rows, float)


def test_image_grid_shows_every_image(tmp_path):
    shades = np.linspace(0.1, 0.9, 7)
    images = np.ones((7, 8, 8)) * shades[:, None, None]
    path = tmp_path / "made" / "grid.png"
    pictures.save_image_grid(path, images, columns=4, titles=list("abcdefg"), title="Shades")
    pixels = matplotlib_image.imread(path)[..., 0]
    for shade in shades:
        assert (np.abs(pixels - shade) < 0.005).sum() > 500


def test_image_grid_takes_colours_and_one_image(tmp_path):
    red = np.zeros((1, 4, 6, 3))
    red[..., 0] = 1
    pictures.save_image_grid(tmp_path / "red.png", red, title="a title wider than its one image")
    pixels = matplotlib_image.imread(tmp_path / "red.png")
    assert (pixels[..., :3] == [1, 0, 0]).all(-1).sum() > 1000
    assert pixels.shape[1] > 300


def test_side_by_side_has_a_panel_for_each(tmp_path):
    panels = {"real": np.zeros((20, 8, 8)), "samples": np.full((7, 8, 8), 0.5)}
    pictures.save_side_by_side(tmp_path / "side.png", panels, title="Digits")
    pixels = matplotlib_image.imread(tmp_path / "side.png")[..., 0]
    middle = pixels.shape[1] // 2
    assert (pixels[:, :middle] == 0).sum() > 10000
    assert (np.abs(pixels[:, middle:] - 0.5) < 0.005).sum() > 5000


def test_curves_write_their_numbers_beside_them(tmp_path):
    x = np.array([0, 1, 2, 8, 32])
    mean = np.array([0.4, 0.3, np.nan, 0.2, 0.1])
    pictures.save_curves(
        tmp_path / "curves.png",
        x,
        {"structured": (mean, mean / 2, mean * 2), "floor": np.full(5, 0.05)},
        xlabel="noise dimension",
        ylabel="bigram error",
        title="Words",
        logx=True,
    )
    assert matplotlib_image.imread(tmp_path / "curves.png").shape[:2] == (480, 768)
    header, rows = read_csv(tmp_path / "curves.csv")
    assert header == ["noise dimension", "structured", "structured low", "structured high", "floor"]
    np.testing.assert_array_equal(rows[:, 1], mean)
    np.testing.assert_array_equal(rows[:, 3], mean * 2)


def test_panels_share_their_names_and_write_their_numbers(tmp_path):
    x, y = np.array([0, 8, 32]), np.array([0.4, 0.2, 0.1])
    panels = {name: {"ours": (y, y / 2, y * 2), "floor": y / 4} for name in ("a", "b", "c")}
    pictures.save_panels(tmp_path / "panels.png", x, panels, xlabel="noise", logx=True)
    assert matplotlib_image.imread(tmp_path / "panels.png").shape[:2] == (840, 1152)
    header, rows = read_csv(tmp_path / "panels.csv")
    names = ("ours", "ours low", "ours high", "floor")
    assert header == ["noise", *(f"{panel}: {name}" for panel in "abc" for name in names)]
    np.testing.assert_array_equal(rows[:, 1:5], np.stack([y, y / 2, y * 2, y / 4], 1))


def test_boxplot_writes_its_numbers_beside_it(tmp_path):
    values = np.random.default_rng(0).random((30, 3))
    pictures.save_boxplot(tmp_path / "box.png", values, ["a", "b", "c"], ylabel="belief")
    header, rows = read_csv(tmp_path / "box.csv")
    assert header == ["a", "b", "c"]
    np.testing.assert_array_equal(rows, values)


def test_a_band_is_the_mean_between_the_extremes():
    mean, low, high = pictures.band([np.array([1.0, 5.0]), np.array([3.0, 1.0])])
    assert mean.tolist() == [2, 3] and low.tolist() == [1, 1] and high.tolist() == [3, 5]


def test_same_numbers_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        pictures.save_curves(tmp_path / name, [0, 1], {"y": np.ones(2)}, xlabel="x", ylabel="y")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: pictures.save_image_grid(p, np.ones((3, 4))), r"images: wanted shape \[n, h, w"),
        (lambda p: pictures.save_image_grid(p, np.ones((2, 4, 4)), titles=["a"]), "titles: want"),
        (lambda p: pictures.save_side_by_side(p, {"x": np.ones((0, 4, 4))}), "x: wanted shape"),
        (lambda p: pictures.save_boxplot(p, np.ones(3), ["a"], ylabel="y"), r"wanted shape \[n, 1"),
    ],
)
def test_wrong_shapes_are_told(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "picture.png")


def test_matplotlib_waits_for_the_first_picture():
    code = "import sys, gasn_jax.training.pictures; assert 'matplotlib' not in sys.modules"
    root = pathlib.Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
