from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.tracking.box_tree import Residuals, _openings

LEVEL = st.integers(0, 100)
BOX = st.tuples(LEVEL, LEVEL, LEVEL, LEVEL)


@given(st.lists(st.tuples(BOX, BOX), max_size=20), st.integers(0, 3), LEVEL)
def test_chances_are_chances_of_values_that_can_be_written(answers, coordinate, guess):
    residuals = Residuals(100)
    for guessed, answered in answers:
        residuals.learn(guessed, answered)
    chances = residuals.chances(coordinate, guess)
    assert guess in chances
    assert all(0 <= value <= 100 and chance > 0 for value, chance in chances.items())
    assert sum(chances.values()) <= 1 + 1e-9


@given(BOX)
def test_other_boxes_are_other_boxes_and_likely_ones_come_first(guess):
    boxes = Residuals(100).boxes(guess)
    assert guess not in [box for _, box in boxes]
    assert len({box for _, box in boxes}) == len(boxes) > 0
    chances = [chance for chance, _ in boxes]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) < 1


@given(BOX, st.floats(0.0, 0.2))
def test_boxes_below_a_chance_are_left_out_and_no_others(guess, least):
    residuals = Residuals(100)
    assert residuals.boxes(guess, least) == [box for box in residuals.boxes(guess) if box[0] >= least]


def test_what_was_answered_becomes_likely_and_fades():
    residuals = Residuals(100)
    before = residuals.chances(0, 50)
    assert max(before, key=before.get) == 50
    for _ in range(20):
        residuals.learn((50, 50, 50, 50), (52, 50, 50, 50))
    moved = residuals.chances(0, 50)
    assert max(moved, key=moved.get) == 52
    assert residuals.chances(1, 50)[50] > before[50]
    assert residuals.boxes((50, 50, 50, 50))[0][1] == (52, 50, 50, 50)
    for _ in range(40):
        residuals.learn((50, 50, 50, 50), (50, 50, 50, 50))
    assert residuals.chances(0, 50)[52] == pytest.approx(before[52], abs=0.05)


def test_jumps_make_everything_else_less_likely():
    residuals = Residuals(100)
    before = residuals.chances(2, 50)[50]
    residuals.learn((50, 50, 50, 50), (50, 50, 90, 50))
    assert residuals.chances(2, 50)[50] < before
    assert 90 not in residuals.chances(2, 50)


def test_values_are_recalled_the_newest_first_and_not_for_ever():
    residuals = Residuals(100)
    assert residuals.recall(0, "6") is None
    for x1 in (66, 5, 62, 41):
        residuals.learn((0, 0, 99, 99), (x1, 7, 99, 99))
    assert [residuals.recall(0, digits) for digits in ("6", "66", "5", "4", "9")] == [62, 66, 5, 41, None]
    assert residuals.recall(1, "6") is None
    for _ in range(20):
        residuals.learn((0, 0, 99, 99), (1, 7, 99, 99))
    assert residuals.recall(0, "6") is None


def test_on_a_fine_grid_the_same_motion_is_spread_over_more_steps():
    fine = Residuals(1000)
    assert max(fine.chances(0, 500)) - 500 == 10 * (max(Residuals(100).chances(0, 50)) - 50)
    before = fine.chances(0, 500)
    fine.learn((500, 500, 500, 500), (530, 500, 500, 500))
    assert fine.chances(0, 500)[530] > 5 * before[530]


@pytest.mark.parametrize(("guess", "openings"), [("512", {"4", "50", "52", "53"}), ("51", {"4"}), ("7", {"1"})])
def test_openings_are_digits_that_others_follow(guess, openings):
    """Of a long number every digit but the last; of a short one the first."""
    numbers = SimpleNamespace(ids={digit: int(digit) for digit in "0123456789"})
    ids = [int(digit) for digit in guess]
    levels = 1000 if len(guess) == 3 else 100
    branches = _openings(ids, [(0, len(ids))], [int(guess)], numbers, Residuals(levels))
    found = {"".join(map(str, branch)) for chance, branch in branches if chance > 0.01}
    assert openings <= found
    assert all(branch not in guess for branch in found)
    assert max(map(len, found)) == max(1, len(guess) - 1)
