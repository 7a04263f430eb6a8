from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.photos.shot import ellipse
from elysium_core.data.photos.warps import (
    Bend,
    View,
    about,
    bounds,
    draw_thin_plate,
    project,
    rotation,
    sample,
    scaling,
    tilt,
    translation,
)

SIDE = 128
PICTURE_PX = 160


def view_of(seed, angle=0.0, scale=1.0, stretch=1.0, tilts=(0.0, 0.0), bend=0.0):
    rng = np.random.default_rng(seed)
    change = about(
        tilt(*tilts) @ rotation(np.deg2rad(angle)) @ scaling(scale, scale * stretch), PICTURE_PX / 2, PICTURE_PX / 2
    )
    matrix = translation(*rng.uniform(-24, -8, 2)) @ change
    return View(matrix, Bend(draw_thin_plate(rng, bend), 0, 0, SIDE, SIDE) if bend else None)


VIEWS = st.builds(
    view_of,
    st.integers(0, 1000),
    st.floats(-40, 40),
    st.floats(0.6, 1.4),
    st.floats(0.8, 1.25),
    st.tuples(st.floats(-0.001, 0.001), st.floats(-0.001, 0.001)),
    st.floats(0, 0.06),
)


@given(VIEWS)
def test_points_and_pixels_go_the_same_way(view):
    """What a pixel shows is mapped back onto that pixel."""
    from_x, from_y = view.sources((0, 0, SIDE, SIDE))
    chosen = np.random.default_rng(0).integers(0, SIDE, (50, 2))
    sources = np.stack([from_x[chosen[:, 1], chosen[:, 0]], from_y[chosen[:, 1], chosen[:, 0]]], -1).astype(np.float64)
    assert np.abs(view.forward(sources) - (chosen + 0.5)).max() < 0.25


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"angle": 35},
        {"scale": 0.55},
        {"scale": 0.25},
        {"scale": 1.9},
        {"stretch": 1.4},
        {"tilts": (0.0015, -0.001)},
        {"bend": 0.05},
        {"angle": -20, "scale": 0.8, "stretch": 0.8, "tilts": (-0.001, 0.001), "bend": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(5))
def test_a_box_is_the_extent_of_its_pixels_after_every_warp(change, seed):
    box = np.array([56.0, 60.0, 108.0, 96.0])
    picture = np.zeros((PICTURE_PX, PICTURE_PX, 3), np.uint8)
    y, x = np.mgrid[:PICTURE_PX, :PICTURE_PX] + 0.5
    picture[((x - 82) / 26) ** 2 + ((y - 78) / 18) ** 2 <= 1] = 255
    view = view_of(seed, **change)
    drawn = sample(picture, view, (0, 0, SIDE, SIDE), cv2.BORDER_CONSTANT)
    ys, xs = np.nonzero(drawn[..., 0] > 127)
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(found - bounds(view.forward(ellipse(box)))).max() <= 1.0


def test_a_part_of_the_output_is_the_same_as_in_the_whole():
    picture = np.random.default_rng(0).integers(0, 255, (PICTURE_PX, PICTURE_PX, 3)).astype(np.uint8)
    view = view_of(3, angle=10, bend=0.05)
    whole = sample(picture, view, (0, 0, SIDE, SIDE))
    assert (sample(picture, view, (30, 50, 70, 90)) == whole[50:90, 30:70]).all()


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((PICTURE_PX, PICTURE_PX, 3), np.uint8)
    stripes[:, ::2] = 200
    drawn = sample(stripes, View(scaling(0.1, 0.1)), (0, 0, 16, 16))
    assert abs(int(drawn.mean()) - 100) <= 2
    assert drawn.std() < 10


def test_a_thin_plate_goes_through_its_control_points():
    rng = np.random.default_rng(1)
    nodes = draw_thin_plate(rng, 0.05)
    moves = np.clip(np.random.default_rng(1).normal(0, 1, (16, 2)), -2, 2) * 0.05
    corner = nodes[:, [0, 0, -1, -1], [0, -1, 0, -1]].T
    assert np.allclose(corner, moves[[0, 3, 12, 15]], atol=1e-9)


def test_a_quarter_turn_moves_right_to_below():
    assert np.allclose(project(rotation(np.pi / 2), np.array([[1.0, 0.0]])), [[0.0, 1.0]])
