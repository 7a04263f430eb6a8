"""The published prompt, piece by piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.network.model_config import PUBLISHED_SYSTEM_TEXT
from elysium_core.prompt.conversation import build_prompt, follow_up, frame_pieces, question_piece

OPENING = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: "
)


@pytest.mark.parametrize(
    ("frames", "content"),
    [
        (0, "Why?"),
        (1, "<image>\nWhy?"),
        (2, "Frame 1: <image>, Frame 2: <image>\nWhy?"),
        (3, "Frame 1: <image>, Frame 2: <image>, Frame 3: <image>\nWhy?"),
    ],
)
def test_published_prompts(frames, content):
    prompt = build_prompt("Why?", frames, PUBLISHED_SYSTEM_TEXT)
    assert prompt.text == f"{OPENING}{content}ASSISTANT:"
    assert prompt.frame_count == frames


def test_a_further_round_is_appended_behind_the_answer():
    first = build_prompt("Why?", 1, PUBLISHED_SYSTEM_TEXT).text + "Because.</s>"
    assert (first + follow_up("Who?")).endswith("ASSISTANT:Because.</s>USER: Who?ASSISTANT:")


@given(question=st.text(max_size=30), frames=st.integers(0, 32), system=st.text(max_size=10))
def test_there_is_one_slot_a_frame_whatever_is_asked(question, frames, system):
    prompt = build_prompt(question, frames, system)
    assert len(prompt.pieces) == frames + 1
    assert prompt.pieces[-1].endswith(f"{question}ASSISTANT:")


@given(frames=st.integers(2, 32))
def test_pieces_before_a_frame_do_not_change_when_the_clip_grows(frames):
    assert frame_pieces(frames + 1, "")[:frames] == frame_pieces(frames, "")


def test_prompt_is_frame_pieces_and_question_piece():
    assert build_prompt("Why?", 3, "S ").pieces == (*frame_pieces(3, "S "), question_piece("Why?"))
