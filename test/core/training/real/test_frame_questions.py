from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.photos.frame_views import OTHER_NAME
from elysium_core.training.real.frame_features import NOTHING
from elysium_core.training.real.frame_questions import ABSENT, SIDES, FrameQuestion, QuestionDrawer, places

NAMES = ("apple", "mug", "teddy bear", "owl")
AXES = {word: (axis, sign) for word, axis, sign in SIDES}

corners = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(2, 60)] * 2)
objects = st.lists(st.tuples(st.integers(OTHER_NAME, len(NAMES) - 1), corners, st.booleans()), max_size=7)


def frame(found) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, boxes and usability of objects, with two empty rows behind them."""
    names = np.array([name for name, _, _ in found] + [NOTHING] * 2, np.int64)
    boxes = np.array([[x, y, x + w, y + h] for _, (x, y, w, h), _ in found] + [[0, 0, 0, 0]] * 2, np.float32) / 100
    return names, boxes, np.array([usable for _, _, usable in found] + [False] * 2)


def side_of(question: FrameQuestion) -> str | None:
    return next((word for word in question.expression.split() if word in AXES), None)


def check_target(question, names, boxes, usable):
    """Whether the words of a question mean its object and no other."""
    target, side = question.target, side_of(question)
    assert names[target] == question.name
    assert usable[target]
    rivals = np.flatnonzero((names == question.name) & (np.arange(len(names)) != target))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    if side is None:
        assert all(areas[target] > 1.3 * areas[rival] for rival in rivals)
        return
    axis, sign = AXES[side]
    middles = sign * (boxes[:, axis] + boxes[:, axis + 2]) / 2
    assert len(rivals)
    assert all(middles[rival] - middles[target] > 0.1 for rival in rivals)


@given(objects, st.integers(0, 1000), st.integers(2, 9))
def test_every_question_has_the_right_answer(found, seed, count):
    names, boxes, usable = frame(found)
    drawer = QuestionDrawer(NAMES, np.array([900, 40, 7, 300]))
    questions = drawer.draw(np.random.default_rng(seed), names, boxes, usable, count)
    missing = set(range(len(NAMES))) - set(names.tolist())
    askable = bool(((names >= 0) & usable).any())
    assert len(questions) == (count if missing or askable else 0)
    for question in questions:
        if question.box is not None:
            assert question.expression == ""
            assert names[question.target] == question.name
            assert usable[question.target]
            sides = np.tile(boxes[question.target, 2:] - boxes[question.target, :2], 2)
            assert (np.abs(question.box - boxes[question.target]) <= 0.1 * sides + 1e-6).all()
            continue
        assert NAMES[question.name] in question.expression
        if question.target == ABSENT:
            assert question.name in missing
        else:
            check_target(question, names, boxes, usable)


def test_all_kinds_of_questions_are_asked():
    names, boxes, usable = frame([(0, (0, 0, 30, 30), True), (0, (40, 40, 20, 20), True), (1, (0, 35, 30, 50), True)])
    drawer, rng = QuestionDrawer(NAMES, np.ones(4, np.int64)), np.random.default_rng(0)
    drawn = [question for _ in range(100) for question in drawer.draw(rng, names, boxes, usable, 6)]
    texts = {question.expression for question in drawn}
    assert {"the mug", "a mug", "mug", "an apple", "a teddy bear", "an owl"} <= texts
    assert {"the apple on the left", "the right apple", "the apple at the top", "the apple at the bottom"} <= texts
    assert {"the owl at the top", "the left teddy bear", ""} <= texts
    # The first apple is much larger than the second.
    assert {question.target for question in drawn if question.expression == "the apple"} == {0}


def test_where_all_names_are_shown_nothing_is_asked_in_vain():
    names, boxes, usable = frame([(name, (20 * name, 0, 10, 10), True) for name in range(len(NAMES))])
    drawer = QuestionDrawer(NAMES, np.ones(4, np.int64))
    for seed in range(20):
        drawn = drawer.draw(np.random.default_rng(seed), names, boxes, usable, 6)
        assert len(drawn) == 6
        assert all(question.target != ABSENT for question in drawn)


def test_rare_names_are_asked_for_more_often_and_less_often_in_vain():
    names, boxes, usable = frame([(0, (0, 0, 30, 30), True), (1, (40, 40, 20, 20), True)])
    drawer, rng = QuestionDrawer(NAMES, np.array([1000, 10, 1000, 10])), np.random.default_rng(0)
    drawn = [question for _ in range(200) for question in drawer.draw(rng, names, boxes, usable, 2)]

    def share(name, of):
        return sum(question.name == name for question in of) / len(of)

    assert share(1, [question for question in drawn if question.target != ABSENT]) > 0.75
    assert share(2, [question for question in drawn if question.target == ABSENT]) > 0.85


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        ([[0, 0, 0.2, 0.2], [0.5, 0, 0.7, 0.2]], {("left", 4), ("right", 6)}),
        ([[0, 0, 0.2, 0.2], [0.05, 0, 0.25, 0.2]], set()),
        ([[0, 0.5, 0.2, 0.7], [0.02, 0, 0.22, 0.2]], {("top", 6), ("bottom", 4)}),
    ],
)
def test_places_tell_things_apart_that_are_clearly_apart(boxes, told):
    every = np.zeros((8, 4), np.float32)
    every[[4, 6]] = boxes
    assert set(places(every, np.array([4, 6]))) == told
