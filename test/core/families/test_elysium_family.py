"""The seam between a model and everything above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import BackendError
from elysium_core.families.base import Family
from elysium_core.families.elysium import ElysiumGrammar, as_elysium
from elysium_core.geometry import Box

ROOT = Path(__file__).resolve().parents[3] / "elysium_core"
STEPS = (100, 100)
GRAMMAR = ElysiumGrammar()
EDGES = st.integers(0, 99).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 100)))
BOXES = st.builds(lambda x, y: Box(x[0] / 100, y[0] / 100, x[1] / 100, y[1] / 100), EDGES, EDGES)


@given(st.lists(BOXES, min_size=1, max_size=9))
def test_what_is_written_is_read(boxes):
    answer = GRAMMAR.read(GRAMMAR.answer(boxes, STEPS), len(boxes), STEPS)
    assert list(answer.boxes) == boxes
    assert not answer.problems


@given(st.lists(BOXES, min_size=1, max_size=9), BOXES)
def test_an_answer_begins_with_the_boxes_that_are_known(boxes, following):
    assert GRAMMAR.answer([*boxes, following], STEPS).startswith(GRAMMAR.beginning(boxes, STEPS))


@given(st.lists(BOXES, min_size=1, max_size=9))
def test_the_last_numbers_of_an_answer_are_its_last_box(boxes):
    text = GRAMMAR.answer(boxes, STEPS)
    numbers = [int(text[place]) for place in GRAMMAR.numbers(text)]
    assert tuple(numbers[-4:]) == GRAMMAR.quantize(boxes[-1], STEPS)
    assert [text[place] for place in GRAMMAR.boxes(text)] == [GRAMMAR.write(box, STEPS) for box in boxes]


def test_digits_of_two_boxes_in_one_token_of_brackets_are_kept_apart(runtime):
    """A tokenizer may merge the end of one box and the beginning of the next."""
    texts = dict(enumerate(["[", "1", "],[", "2", "]", "3"]))
    layout = runtime.family._layout
    layout.tokenizer = type("Tokens", (), {"token_text": staticmethod(texts.__getitem__)})
    assert layout.box_digits(list(texts)) == [[1], [3]]


def test_frames_one_by_one_are_a_clip(runtime, frames):
    family = runtime.family
    clip = runtime.encode_frames([frame.image for frame in frames[:3]])
    one_by_one = [family.appended(seen, number) for number, seen in enumerate(clip, 1)]
    assert torch.equal(torch.cat(one_by_one), family.opening(clip))


def test_another_family_has_no_elysium_network():
    with pytest.raises(BackendError, match="Elysium models only, not with object"):
        as_elysium(object())


def test_the_family_fills_the_protocol(runtime):
    names = [name for name in vars(Family) if not name.startswith("_")]
    assert names
    assert [name for name in names if not hasattr(runtime.family, name)] == []


@pytest.mark.parametrize("folder", ["engine", "tracking"])
def test_engine_and_trackers_know_no_family(folder):
    """They import the protocol, never a member of it, its network or its box text."""
    forbidden = ("elysium_core.families.elysium", "elysium_core.prompt.box_text", "elysium_core.prompt.conversation")
    for path in (ROOT / folder).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert [module for module in found if str(module).startswith(forbidden)] == [], path
