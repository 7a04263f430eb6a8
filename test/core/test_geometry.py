from __future__ import annotations

import contextlib
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import BoxError
from elysium_core.geometry import Box, pairwise_iou, parse_box

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
UNIT = st.integers(0, 1000).map(lambda n: n / 1000)


@st.composite
def boxes(draw) -> Box:
    x1, x2 = sorted(draw(st.lists(UNIT, min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(UNIT, min_size=2, max_size=2, unique=True)))
    return Box(x1, y1, x2, y2)


@given(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT, ANY_FLOAT)
def test_a_box_is_valid_or_refused(x1, y1, x2, y2):
    try:
        box = Box(x1, y1, x2, y2)
    except BoxError:
        return
    assert 0 <= box.x1 < box.x2 <= 1
    assert 0 <= box.y1 < box.y2 <= 1
    assert 0 < box.area <= 1
    assert box.iou(box) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((math.nan, 0, 1, 1), "not finite"),
        ((0, 0, math.inf, 1), "not finite"),
        ((0.5, 0, 0.1, 1), "reversed or empty"),
        ((0.5, 0, 0.5, 1), "reversed or empty"),
        ((0, 0, 1e-200, 1e-200), "reversed or empty"),
        ((0, 0, 64, 48), "outside the frame"),
        ((-0.1, 0, 1, 1), "outside the frame"),
    ],
)
def test_a_refused_box_says_which_rule(values, words):
    with pytest.raises(BoxError, match=words) as error:
        Box(*values)
    assert error.value.code == "BOX_INVALID"


def test_rounding_at_the_edge_is_forgiven():
    assert Box(-1e-9, 0, 1 + 1e-9, 1) == Box(0, 0, 1, 1)


@given(boxes(), boxes())
def test_iou_is_symmetric_and_agrees_with_the_array_form(a, b):
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0 <= a.iou(b) <= 1 + 1e-12
    assert pairwise_iou([list(a)], [list(b)])[0] == pytest.approx(a.iou(b), abs=1e-12)


def test_iou_by_hand():
    # 2x2 and 2x2 squares of a 4x4 grid that share one cell: 1 / (4 + 4 - 1).
    assert Box(0, 0, 0.5, 0.5).iou(Box(0.25, 0.25, 0.75, 0.75)) == pytest.approx(1 / 7)
    assert Box(0, 0, 0.5, 0.5).iou(Box(0.5, 0, 1, 0.5)) == 0


@given(boxes(), st.integers(1, 5000), st.integers(1, 5000))
def test_pixels_and_back(box, width, height):
    assert list(Box.from_px(*box.to_px(width, height), width, height)) == pytest.approx(list(box))


def test_a_partly_outside_box_is_cut_only_on_request():
    with pytest.raises(BoxError, match="outside the 100x100 px frame"):
        Box.from_px(-10, 0, 50, 50, 100, 100)
    assert Box.from_px(-10, 0, 50, 50, 100, 100, clip=True) == Box(0, 0, 0.5, 0.5)
    assert Box.from_xywh_px(90, 90, 20, 20, 100, 100) == Box(0.9, 0.9, 1, 1)


def test_an_empty_frame_holds_no_box():
    with pytest.raises(BoxError, match="0x100 px"):
        Box.from_px(0, 0, 1, 1, 0, 100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,0.2,0.5,0.6", Box(0.1, 0.2, 0.5, 0.6)),
        (" 0 , 0 , 1 , 1 ", Box(0, 0, 1, 1)),
        ("20,20,100,50", Box(0.1, 0.2, 0.5, 0.5)),
        ("0px,0px,1px,1px", Box(0, 0, 0.005, 0.01)),
    ],
)
def test_a_box_as_a_person_types_it(text, expected):
    assert list(parse_box(text, 200, 100)) == pytest.approx(list(expected))


@pytest.mark.parametrize(
    "text",
    [
        "", ",,,", "1,2,3", "1,2,3,4,5", "a,b,c,d", "0,0,1px,1px", "nan,0,1,1", "0,0,inf,1", "0,0,100,100", "[0,0,1,1]",
        "0;0;1;1", "0 0 1 1", "-5,-5,-1,-1", "1e400,2,3,4", "px,px,px,px", "9" * 10_000_000, ",".join("1" * 300),
    ],
)  # fmt: skip
def test_other_text_is_refused_shortly(text):
    with pytest.raises(BoxError) as error:
        parse_box(text, 200, 100)
    assert len(str(error.value)) < 300


def test_pixels_that_start_at_zero_are_told_how_to_be_written():
    with pytest.raises(BoxError, match="end all four in px"):
        parse_box("0,0,100,50", 200, 100)


@given(st.text())
def test_any_text_is_a_box_or_a_box_error(text):
    with contextlib.suppress(BoxError):
        assert isinstance(parse_box(text, 64, 48), Box)


def test_hostile_rows_score_zero_without_warnings():
    rows = [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, np.inf, np.inf], [-np.inf] * 4, [np.nan] * 4, [0, 0, 1e308, 1e308]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairwise_iou(rows, rows).tolist() == [1, 0, 0, 0, 0, 0]
        assert pairwise_iou([], []).shape == (0,)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="equally many boxes, not 2 and 1"):
        pairwise_iou([[0, 0, 1, 1]] * 2, [[0, 0, 1, 1]])
