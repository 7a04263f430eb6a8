"""The curves, against hand-computed cases and against definitions written with corners instead of sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.evaluation.metrics import (
    area_under,
    center_errors,
    clamp_to_frame,
    overlaps,
    precision_curve,
    repeat_previous_for_empty,
    success_curve,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

THRESHOLDS = np.linspace(0, 1, 21)
size = st.integers(1, 400)
place = st.integers(-50, 400)
boxes = st.tuples(place, place, size, size)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 50 / 150),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),  # they touch
        ((2, 2, 4, 4), (0, 0, 8, 8), 16 / 64),
        ((np.nan,) * 4, (0, 0, 8, 8), 0.0),  # no answer
        ((3, 3, 0, 0), (0, 0, 8, 8), 0.0),
    ],
)
def test_overlap_of_worked_cases(predicted, truth, expected):
    assert overlaps([predicted], [truth])[0] == pytest.approx(expected)


@given(boxes, boxes)
def test_the_plus_one_pixel_corners_give_the_same_overlap(predicted, truth):
    # LaSOT, pytracking and TrackingNet write right = x + w - 1 and widths as right - left + 1.
    def last(box):
        return box[0] + box[2] - 1, box[1] + box[3] - 1

    width = max(0, min(last(predicted)[0], last(truth)[0]) - max(predicted[0], truth[0]) + 1)
    height = max(0, min(last(predicted)[1], last(truth)[1]) - max(predicted[1], truth[1]) + 1)
    union = predicted[2] * predicted[3] + truth[2] * truth[3] - width * height
    assert overlaps([predicted], [truth])[0] == pytest.approx(width * height / union)


@given(boxes, boxes, st.sampled_from([-1, 0, 1]))
def test_the_half_pixel_conventions_give_the_same_centre_error(predicted, truth, shift):
    def center(box):
        return box[0] + (box[2] + shift) / 2, box[1] + (box[3] + shift) / 2

    expected = math.dist(center(predicted), center(truth))
    assert center_errors([predicted], [truth])[0] == pytest.approx(expected)


def test_normalised_error_divides_each_axis_by_the_true_size():
    error = center_errors([(30, 8, 10, 10)], [(0, 0, 100, 20)], normalised=True)
    # centres (35, 13) and (50, 10): 15/100 and 3/20
    assert error[0] == pytest.approx(math.hypot(0.15, 0.15))


def test_errors_are_infinite_without_an_answer_or_without_a_true_size():
    errors = center_errors([(np.nan,) * 4, (0, 0, 4, 4)], [(0, 0, 4, 4), (2, 2, 0, 0)], normalised=True)
    assert np.isinf(errors[0])
    assert np.isnan(errors).sum() == 0


def test_success_compares_strictly_and_so_a_perfect_tracker_gets_20_of_21():
    curve = success_curve(np.ones(7), THRESHOLDS)
    assert curve.mean() == pytest.approx(20 / 21)
    assert round(100 * curve.mean(), 2) == 95.24
    assert success_curve(np.ones(7), THRESHOLDS, inclusive=True).mean() == 1.0


def test_success_and_precision_of_a_worked_case():
    curve = success_curve(np.asarray([0.0, 0.24, 0.5, 1.0]), np.asarray([0.0, 0.25, 0.5, 1.0]))
    assert curve.tolist() == [0.75, 0.5, 0.25, 0.0]
    assert precision_curve(np.asarray([0.0, 20.0, 20.1, np.inf]), np.asarray([0.0, 20.0])).tolist() == [0.25, 0.5]


def test_area_is_the_trapezoid_rule():
    assert area_under(np.asarray([1.0, 0.5, 0.0])) == pytest.approx(0.5)
    assert area_under(np.asarray([1.0, 1.0, 0.0])) == pytest.approx(0.75)


def test_an_answer_without_area_is_replaced_by_the_one_before_but_a_missing_one_is_not():
    rows = np.asarray([[0, 0, 0, 0], [1, 2, 3, 4], [9, 9, 0, 5], [9, 9, 5, 0], [np.nan] * 4, [7, 7, 0, 0]])
    repeated = repeat_previous_for_empty(rows)
    assert repeated[0].tolist() == [0, 0, 0, 0]
    assert repeated[2].tolist() == repeated[3].tolist() == [1, 2, 3, 4]
    assert np.isnan(repeated[4:]).all()
    assert rows[2, 2] == 0, "the argument must not change"


def test_clipping_keeps_the_width_of_a_box_that_starts_left_of_the_frame():
    clipped = clamp_to_frame(np.asarray([[-10.0, 5, 20, 10], [90, 95, 20, 20], [120, 0, 5, 5]]), (100, 100))
    assert clipped.tolist() == [[0, 5, 20, 10], [90, 95, 10, 5], [100, 0, 0, 5]]


@given(st.lists(boxes, min_size=1))
def test_conversions_are_inverse(rows):
    assert np.array_equal(xyxy_to_xywh(xywh_to_xyxy(rows)), np.asarray(rows, dtype=float))
