"""Positions of boxes from depth: against scenes with known geometry, and for any depth image at all."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.depth_scenes import CAMERA, loosened, scenes
from elysium_core.geometry import Box
from elysium_ros.perception.depth import Pinhole, find_position

SQUARE = Pinhole(fx=1.0, fy=1.0, cx=0.5, cy=0.5)
# Largest errors, as shares of the depth: of z, and of x and y together.
BOUNDS = {
    "ball, wall far behind": (0.02, 0.02),
    "ball, wall 0.4 m behind": (0.02, 0.02),
    "person on a floor": (0.02, 0.05),
    "mug on a table": (0.02, 0.02),
    "chair, mostly gaps": (0.12, 0.05),
    "ball behind a pole": (0.02, 0.02),
    "person half behind a wall": (0.02, 0.05),
    "ball, half of it holes": (0.02, 0.02),
}


@pytest.fixture(scope="module")
def views():
    random = np.random.default_rng(3)
    return {name: scene.render(random) for name, scene in scenes(2.0, 0.3).items()}


@pytest.mark.parametrize("name", BOUNDS)
def test_the_position_is_that_of_the_object_and_not_of_what_surrounds_it(views, name):
    view, random = views[name], np.random.default_rng(5)
    center, size = view.truth()
    for _ in range(10):
        position = find_position(view.depth_mm, 0.001, loosened(view.box, random, 0.1), CAMERA)
        off = np.abs(np.array(position.center) - center) / center[2]
        assert off[2] < BOUNDS[name][0]
        assert math.hypot(off[0], off[1]) < BOUNDS[name][1]
        assert position.size[:2] == pytest.approx(size[:2], rel=0.35)
    inside = view.depth_mm[view.mask] / 1000
    assert abs(position.center[2] - center[2]) <= abs(inside.mean() - center[2]) + BOUNDS[name][0] * center[2]


def test_an_object_without_depth_has_no_position_though_the_wall_behind_it_has(views):
    view = views["ball of glass, all holes"]
    assert np.count_nonzero(view.depth_mm) > 0
    assert find_position(view.depth_mm, 0.001, view.box, CAMERA) is None


@pytest.mark.parametrize("hole", [0.0, math.nan, math.inf, -math.inf, -1.0])
def test_holes_count_for_nothing(hole):
    depth = np.full((40, 40), hole, np.float32)
    assert find_position(depth, 1.0, Box(0.1, 0.1, 0.9, 0.9), SQUARE) is None
    depth[::2] = 1.5
    assert find_position(depth, 1.0, Box(0.1, 0.1, 0.9, 0.9), SQUARE).center[2] == 1.5


@given(
    z=st.floats(0.3, 20.0),
    behind=st.floats(1.3, 5.0),
    x=st.floats(0.15, 0.85),
    y=st.floats(0.15, 0.85),
    side=st.floats(0.1, 0.28),
    fx=st.floats(0.4, 3.0),
    fy=st.floats(0.4, 3.0),
    loose=st.floats(1.0, 1.15),
)
@settings(max_examples=60, deadline=None)
def test_a_flat_object_before_a_wall_is_where_it_is_for_any_camera(z, behind, x, y, side, fx, fy, loose):
    camera, size = Pinhole(fx, fy, 0.45, 0.55), 200
    edges = [round((middle + sign * side / 2) * size) for middle in (x, y) for sign in (-1, 1)]
    depth = np.full((size, size), z * behind, np.float32)
    depth[edges[2] : edges[3], edges[0] : edges[1]] = z
    x1, x2, y1, y2 = (edge / size for edge in edges)
    wide, high = (x2 - x1) * (loose - 1), (y2 - y1) * (loose - 1)
    box = Box(max(0, x1 - wide), max(0, y1 - high), min(1, x2 + wide), min(1, y2 + high))
    position = find_position(depth, 1.0, box, camera)
    near = 2 * z / size  # a large box is thinned out to every second pixel
    assert position.center[2] == pytest.approx(z, rel=1e-5)
    assert position.center[0] == pytest.approx(((x1 + x2) / 2 - camera.cx) / fx * z, abs=near / fx)
    assert position.center[1] == pytest.approx(((y1 + y2) / 2 - camera.cy) / fy * z, abs=near / fy)
    assert position.size[0] == pytest.approx((x2 - x1) / fx * z, abs=2 * near / fx)
    assert position.size[1] == pytest.approx((y2 - y1) / fy * z, abs=2 * near / fy)
    assert position.size[2] == 0


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_depths_in_any_box_give_finite_numbers_or_nothing(data, seed):
    random = np.random.default_rng(seed)
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    depth = random.choice([0.0, math.nan, math.inf, -2.0, 1.0, 1.05, 3.0, 1e30, 1e-30], (height, width))
    depth = (depth * random.uniform(0.5, 2.0, depth.shape)).astype(np.float32)
    x = sorted(data.draw(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))))
    y = sorted(data.draw(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))))
    position = find_position(depth, 1.0, Box(x[0], y[0], x[1] + 0.01, y[1] + 0.01), SQUARE)
    if position is not None:
        assert np.isfinite([*position.center, *position.size]).all()
        assert position.center[2] > 0
        assert min(position.size) >= 0
        assert 0 < position.support <= 1


def test_the_resolution_of_the_depth_and_its_unit_do_not_matter(views):
    view = views["person on a floor"]
    full = find_position(view.depth_mm, 0.001, view.box, CAMERA)
    half = find_position(view.depth_mm[::2, ::2].astype(np.float32) / 1000, 1.0, view.box, CAMERA)
    assert half.center == pytest.approx(full.center, abs=0.04)
    assert half.size[:2] == pytest.approx(full.size[:2], abs=0.04)
