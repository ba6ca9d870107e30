"""Statistics of binary images against images whose numbers one can count."""

import numpy as np
import pytest
import scipy.stats

from gasn_jax.evaluation import masks

BLANK = np.zeros((4, 5), int)


def drawn(*pixels):
    image = BLANK.copy()
    image[tuple(np.transpose(pixels))] = 1
    return image


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (BLANK, (0.0, 0, 0, 0)),
        (1 - BLANK, (1.0, 0, 1, 0)),
        (drawn((1, 1)), (0.05, 4, 1, 0)),
        (drawn((0, 0)), (0.05, 2, 1, 0)),  # at the edge only two sides have neighbours
        (drawn((1, 1), (2, 2)), (0.1, 8, 2, 0)),  # diagonal neighbours are apart
        (drawn((1, 1), (1, 2)), (0.1, 6, 1, 0)),
        (1 - drawn((1, 1)), (0.95, 4, 1, 1)),
        (1 - drawn((1, 0)), (0.95, 3, 1, 0)),  # 0s at the edge are no hole
        (1 - drawn((1, 1), (2, 2)), (0.9, 8, 1, 2)),
    ],
)
def test_what_one_can_count(image, wanted):
    got = masks.shapes(np.stack([image, BLANK]))
    assert tuple(numbers[0] for numbers in got) == wanted
    assert tuple(numbers[1] for numbers in got) == (0.0, 0, 0, 0)


def test_distances_are_between_distributions():
    rng = np.random.default_rng(0)
    images, reference = (rng.integers(0, 2, size=(m, 6, 6)) for m in (20, 30))
    got = masks.shape_distances(images, reference)
    assert list(got) == list(masks.Shapes._fields)
    area = scipy.stats.wasserstein_distance(images.mean((1, 2)), reference.mean((1, 2)))
    assert got["area"] == pytest.approx(area)
    assert set(masks.shape_distances(images, images[::-1]).values()) == {0.0}
    # One pixel more in every image: the areas move by a 36th.
    images[:, 0, 0], more = 0, images.copy()
    more[:, 0, 0] = 1
    assert masks.shape_distances(more, images)["area"] == pytest.approx(1 / 36)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (BLANK, r"images must have shape \[M, H, W\], got \[4, 5\]"),
        (np.full((1, 2, 2), 2), "images must be 0 or 1, got 2"),
        (np.full((1, 2, 2), 0.5), "images must be 0 or 1, got 0.5"),
    ],
)
def test_what_is_no_mask_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        masks.shapes(images)
