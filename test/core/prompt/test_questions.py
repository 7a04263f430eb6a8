"""The questions of every task."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import ExpressionError
from elysium_core.prompt.expression import clean_expression
from elysium_core.prompt.questions import CAPTION, PUBLISHED, REC, REG, RSOT, SOT, TRAINING, VIDEO_REG, fill

SLOTS = {SOT: {"box"}, RSOT: {"expression"}, REC: {"expression"}, REG: {"box"}, VIDEO_REG: {"box"}, CAPTION: set()}
ALL = [(task, question) for task, questions in TRAINING.items() for question in questions]


ASKED = {
    SOT: "This is a video showing an object with coordinates [1,2,3,4] in Frame 1. "
    "Please provide the detailed coordinates of the object in each frame.",
    RSOT: "Please find one red mug and provide the detailed coordinates in each frame.",
    REC: "Where is red mug?",
    VIDEO_REG: "This is a video showing an object with coordinates [1,2,3,4] in Frame 1. Please describe the object.",
    REG: "Describe this object in [1,2,3,4].",
}


@pytest.mark.parametrize("task", ASKED)
def test_what_the_published_evaluation_asks(task):
    assert fill(PUBLISHED[task], expression="red mug", box="[1,2,3,4]") == ASKED[task]


def test_every_task_is_trained_with_the_published_question_first_and_with_others():
    assert TRAINING.keys() == PUBLISHED.keys() == SLOTS.keys()
    for task, questions in TRAINING.items():
        assert questions[0] == PUBLISHED[task]
        assert len(set(questions)) == len(questions) > 1


@pytest.mark.parametrize(("task", "question"), ALL)
def test_each_question_has_the_slots_of_its_task(task, question):
    assert {name for _, name, _, _ in string.Formatter().parse(question) if name} == SLOTS[task]


@pytest.mark.parametrize(("task", "question"), ALL)
def test_filled_questions_may_stand_in_a_prompt(task, question):
    filled = fill(question, expression="the red mug", box="[1,2,3,4]")
    assert clean_expression(filled) == filled


def test_filled_in_words_are_not_looked_at_again():
    assert fill("{expression} {box}", expression="{box}", box="{expression}") == "{box} {expression}"


@given(st.text(max_size=40))
def test_any_words_are_filled_in_as_they_are(words):
    assert fill("Where is {expression}?", expression=words) == f"Where is {words}?"


def test_braces_never_come_from_a_user():
    with pytest.raises(ExpressionError):
        clean_expression("the {box}")
