from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.geometry import Box
from elysium_core.io.crop import Crop

WIDTH, HEIGHT = 320, 240


def scene(box: Box) -> np.ndarray:
    """A white object on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x1, y1, x2, y2 = (round(value) for value in box.to_px(WIDTH, HEIGHT))
    image[y1:y2, x1:x2] = 255
    return image


@pytest.mark.parametrize("box", [(40, 60, 72, 92), (200, 20, 216, 36), (0, 0, 64, 64), (280, 200, 320, 240)])
@pytest.mark.parametrize(("times", "side_px"), [(1, 64), (2, 128), (4, 128)])
def test_the_object_lies_in_the_crop_where_its_box_says(box, times, side_px):
    box = Box.from_px(*box, WIDTH, HEIGHT)
    crop = Crop.around(box, WIDTH, HEIGHT, times)
    picture = crop.cut(scene(box), side_px)
    ys, xs = np.nonzero(picture[..., 0] > 127)
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    wanted = np.array([*crop.inside(box)]) * side_px
    assert np.abs(found - wanted).max() <= 1.0


def test_an_anchor_crop_is_twice_and_a_live_crop_four_times_as_long_as_a_square_object():
    box = Box.from_px(100, 100, 120, 120, WIDTH, HEIGHT)
    assert Crop.around(box, WIDTH, HEIGHT).side == pytest.approx(40)
    assert Crop.around(box, WIDTH, HEIGHT, 2).side == pytest.approx(80)


def test_what_is_outside_has_the_mean_colour_of_the_frame():
    image = np.full((HEIGHT, WIDTH, 3), (10, 200, 90), np.uint8)
    crop = Crop.around(Box.from_px(0, 0, 20, 20, WIDTH, HEIGHT), WIDTH, HEIGHT, 2)
    assert crop.x < 0
    assert np.unique(crop.cut(image, 64).reshape(-1, 3), axis=0).tolist() == [[10, 200, 90]]


def test_a_crop_that_misses_the_frame_is_filled():
    crop = Crop(-5000.0, -5000.0, 800.0, WIDTH, HEIGHT)
    assert crop.cut(np.full((HEIGHT, WIDTH, 3), 7, np.uint8), 16).tolist() == np.full((16, 16, 3), 7).tolist()
    assert crop.to_frame(Box(0.1, 0.1, 0.2, 0.2)) is None


def test_pixels_are_averaged_when_a_crop_is_shrunk():
    stripes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stripes[:, ::2] = 200
    picture = Crop(0.0, 0.0, 240.0, WIDTH, HEIGHT).cut(stripes, 16)
    assert abs(int(picture.mean()) - 100) <= 2
    assert picture.std() < 20


PLACES = st.floats(0.02, 0.98)
BOXES = st.tuples(PLACES, PLACES, st.floats(0.02, 0.5), st.floats(0.02, 0.5)).map(
    lambda v: Box(max(0, v[0] - v[2] / 2), max(0, v[1] - v[3] / 2), min(1, v[0] + v[2] / 2), min(1, v[1] + v[3] / 2))
)


@given(BOXES, st.floats(1, 4))
def test_there_and_back_is_the_same_box(box, times):
    crop = Crop.around(box, WIDTH, HEIGHT, times)
    back = crop.to_frame(crop.inside(box))
    assert np.allclose([*back], [*box], atol=1e-6)
