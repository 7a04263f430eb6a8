from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elysium_core.geometry import Box
from elysium_core.tracking.zoom import ZoomView, tilings, zoomed_pictures

sides = st.integers(1, 3000)
unit = st.floats(0, 1)


@st.composite
def boxes(draw) -> Box:
    x1, x2 = sorted((draw(unit), draw(unit)))
    y1, y2 = sorted((draw(unit), draw(unit)))
    assume(x2 - x1 > 1e-3 and y2 - y1 > 1e-3)
    return Box(x1, y1, x2, y2)


@given(boxes(), sides, sides)
def test_a_view_lies_in_its_frame_and_shows_the_whole_box(box, width, height):
    view = ZoomView.around(box, width, height)
    assert 0 <= view.x <= view.x + view.width <= width
    assert 0 <= view.y <= view.y + view.height <= height
    inside = view.from_frame(box)
    assert inside is not None
    # Edges lie on whole pixels, so up to one of them is missing at an edge.
    slack = (1.01 / width, 1.01 / height) * 2
    assert all(math.isclose(a, b, abs_tol=s) for a, b, s in zip(view.to_frame(inside), box, slack, strict=True))


@given(st.integers(11, 130), st.integers(11, 130), unit, unit, st.integers(400, 3000), st.integers(400, 3000))
def test_a_small_box_takes_a_third_of_its_view(box_width, box_height, right, down, width, height):
    x, y = right * (width - box_width), down * (height - box_height)
    view = ZoomView.around(Box.from_px(x, y, x + box_width, y + box_height, width, height), width, height)
    assert view.width == view.height == 3 * max(box_width, box_height)
    assert view.gain == pytest.approx(math.sqrt(width * height) / view.width)
    assert view.is_worth_it == (view.gain >= 1.1)


def test_a_tiny_box_gets_a_view_of_32_pixels_and_a_large_one_the_frame():
    assert ZoomView.around(Box(0.5, 0.5, 0.501, 0.501), 640, 480) == ZoomView(304, 224, 32, 32, 640, 480)
    whole = ZoomView.around(Box(0.2, 0.2, 0.8, 0.8), 640, 480)
    assert (whole.width, whole.height, whole.gain, whole.is_worth_it) == (640, 480, 1.0, False)


def test_a_view_moves_inside_at_the_edge():
    assert ZoomView.around(Box(0, 0.9, 0.1, 1), 100, 100) == ZoomView(0, 68, 32, 32, 100, 100)


@given(boxes(), boxes(), sides, sides)
def test_boxes_go_there_and_back(place, box, width, height):
    view = ZoomView.around(place, width, height)
    back = view.from_frame(view.to_frame(box))
    assert back is not None
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(back, box, strict=True))


def test_a_crop_holds_the_pixels_of_its_part_and_nothing_of_the_frame():
    image = np.arange(60 * 80 * 3, dtype=np.uint64).reshape(60, 80, 3).astype(np.uint8)
    crop = ZoomView(10, 20, 32, 33, 80, 60).crop(image)
    assert (crop == image[20:53, 10:42]).all()
    assert crop.flags.c_contiguous
    assert not np.shares_memory(crop, image)


def test_what_lies_outside_a_view_is_not_in_it():
    view = ZoomView(0, 0, 40, 40, 100, 100)
    assert view.from_frame(Box(0.5, 0.5, 0.9, 0.9)) is None
    assert view.from_frame(Box(0.4, 0.1, 0.9, 0.2)) is None  # it only touches the view
    assert list(view.from_frame(Box(0.2, 0.2, 0.9, 0.9))) == pytest.approx([0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        (Box(0.1, 0.1, 0.9, 0.9), False),
        (Box(0.0, 0.1, 0.9, 0.9), False),  # that is where the frame ends
        (Box(0.1, 0.0, 0.9, 0.9), True),
        (Box(0.1, 0.1, 1.0, 0.9), True),
        (Box(0.1, 0.1, 0.9, 0.99), True),
    ],
)
def test_a_box_at_an_edge_behind_which_the_frame_goes_on_may_be_cut(box, cut):
    assert ZoomView(0, 30, 40, 40, 100, 100).cuts(box) == cut


def test_zoomed_pictures_show_the_same_place_of_all():
    large, small = np.zeros((300, 400, 3), np.uint8), np.zeros((150, 200, 3), np.uint8)
    box = Box(0.5, 0.5, 0.6, 0.6)
    large[150:180, 200:240] = small[75:90, 100:120] = 9
    shown, inside = zoomed_pictures([large, small], box)
    assert [picture.shape for picture in shown] == [(120, 120, 3), (60, 60, 3)]
    assert list(inside) == pytest.approx([1 / 3, 0.375, 2 / 3, 0.625])
    assert shown[0][45:75, 40:80].min() == 9
    assert shown[1].sum() == small.sum()
    assert zoomed_pictures([large], Box(0.1, 0.1, 0.9, 0.9))[1] == Box(0.1, 0.1, 0.9, 0.9)


@given(sides, sides)
def test_tilings_cover_the_frame_with_views_that_overlap(width, height):
    large, small = tilings(width, height)
    assert (len(large), len(small)) == (4, 9)
    for views in (large, small):
        seen = np.zeros((height, width), np.uint8)
        for view in views:
            assert view.crop(seen[..., None]).shape[:2] == (view.height, view.width)
            seen[view.y : view.y + view.height, view.x : view.x + view.width] += 1
        assert seen.min() >= 1
        if min(width, height) >= 20:
            assert seen.max() > 1
