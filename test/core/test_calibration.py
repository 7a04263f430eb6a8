from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.calibration import (
    UNCALIBRATED,
    NameCalibration,
    ScoreCalibration,
    calibration_error,
    fit_calibration,
    fit_name_calibration,
)
from elysium_core.errors import ModelFileError

SCORES = st.floats(0, 1)


@given(first=SCORES, second=SCORES, scale=st.floats(0.01, 20), shift=st.floats(-20, 20))
def test_the_order_of_scores_stays(first, second, scale, shift):
    calibration = ScoreCalibration(scale, shift)
    low, high = sorted((first, second))
    assert 0 <= calibration(low) <= calibration(high) <= 1
    assert UNCALIBRATED(first) == first


def test_no_box_stays_at_zero():
    assert ScoreCalibration(2.0, 5.0)(0.0) == 0.0


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_numbers_that_are_no_calibration_are_refused(numbers):
    with pytest.raises(ModelFileError):
        ScoreCalibration(*numbers)


def test_a_fit_finds_how_often_answers_are_right():
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.05, 0.95, 4000)
    truth = ScoreCalibration(2.5, -1.0)
    right = (rng.random(4000) < [truth(score) for score in raw]).tolist()
    fitted = fit_calibration(raw.tolist(), right)
    assert fitted.scale == pytest.approx(2.5, abs=0.3)
    assert fitted.shift == pytest.approx(-1.0, abs=0.15)
    before = calibration_error(raw.tolist(), right)
    after = calibration_error([fitted(score) for score in raw.tolist()], right)
    assert after < 0.03 < before


@pytest.mark.parametrize("right", [[True] * 4, [False] * 4, [True, True, False, False]])
def test_what_cannot_be_fitted_changes_nothing(right):
    assert fit_calibration([0.1, 0.2, 0.8, 0.9], right) == UNCALIBRATED


NUMBERS = st.floats(0.01, 20), st.floats(-20, 20), st.floats(0, 20)


@given(score=st.floats(0.01, 0.99), evidence=st.floats(-20, 0), numbers=st.tuples(*NUMBERS))
def test_evidence_shifts_the_log_odds(score, evidence, numbers):
    calibration = NameCalibration(*numbers, names=3)
    chance = 1 / (1 + np.exp(-(numbers[0] * np.log(score / (1 - score)) + numbers[2] * evidence + numbers[1])))
    assert calibration.given(evidence)(score) == pytest.approx(chance, abs=1e-9)
    later = ScoreCalibration(1.5, -0.5)
    inside = min(max(chance, 1e-6), 1 - 1e-6)
    if inside == chance:
        assert calibration.then(later).given(evidence)(score) == pytest.approx(later(chance), abs=1e-6)


@pytest.mark.parametrize(
    "numbers", [(0.0, 0.0, 1.0, 1), (1.0, 0.0, -0.1, 1), (1.0, float("nan"), 1.0, 1), (1.0, 0.0, 1.0, 0)]
)
def test_numbers_that_are_no_calibration_of_names_are_refused(numbers):
    with pytest.raises(ModelFileError, match="name calibration"):
        NameCalibration(*numbers)


def test_a_fit_finds_what_evidence_is_worth():
    rng = np.random.default_rng(1)
    raw, evidence = rng.uniform(0.05, 0.95, 6000), -rng.exponential(1.0, 6000)
    truth = NameCalibration(1.5, 1.0, 2.0, names=5)
    right = (rng.random(6000) < [truth.given(e)(s) for s, e in zip(raw, evidence, strict=True)]).tolist()
    fitted = fit_name_calibration(raw.tolist(), evidence.tolist(), right, 5)
    assert (fitted.scale, fitted.evidence_scale) == (pytest.approx(1.5, abs=0.2), pytest.approx(2.0, abs=0.2))
    assert (fitted.shift, fitted.names) == (pytest.approx(1.0, abs=0.2), 5)


@pytest.mark.parametrize("right", [[True] * 4, [False] * 4, [True, True, False, False]])
def test_evidence_that_cannot_be_fitted_is_not_used(right):
    assert fit_name_calibration([0.1, 0.2, 0.8, 0.9], [-3.0, -2.0, -1.0, 0.0], right, 2) is None


def test_the_error_is_the_gap_between_score_and_share_of_right_answers():
    assert calibration_error([0.95] * 4, [True, True, True, False]) == pytest.approx(0.2)
    assert calibration_error([0.05, 0.95], [False, True]) == pytest.approx(0.05)
    assert calibration_error([], []) == 0.0


def test_errors_of_different_scores_do_not_cancel():
    """One answer of .05 that is wrong and one of .15 that is right: errors of .05 and of .85."""
    assert calibration_error([0.05, 0.15], [False, True]) == pytest.approx(0.45)


@given(st.floats(0.01, 0.99), st.floats(0.2, 4), st.floats(-2, 2), st.floats(0.2, 4), st.floats(-2, 2))
def test_two_calibrations_in_a_row_are_one(score, scale, shift, later_scale, later_shift):
    first, later = ScoreCalibration(scale, shift), ScoreCalibration(later_scale, later_shift)
    assert first.then(later)(score) == pytest.approx(later(first(score)), abs=1e-4)
