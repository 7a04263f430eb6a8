from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.engine.engine import EngineCounters
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box, format_track
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import PUBLISHED, RSOT, SOT, fill
from elysium_core.tracking.window import Window
from elysium_core.types import Answer

TOKENS = 10
FIRST = {"1": Box(0.1, 0.2, 0.5, 0.6), "2": Box(0.3, 0.3, 0.6, 0.9), "3": Box(0, 0, 0.25, 0.5)}
WORDS = {"1": "the red mug", "3": "the apple"}


def some_box(tokens):
    """A box that depends on every token of an answer."""
    x, y = np.random.default_rng(tokens).integers(0, 90, 2)
    return Box(x / 100, y / 100, (x + 10) / 100, (y + 7) / 100)


@pytest.fixture
def answers(runtime, monkeypatch):
    """Every answer is read as some box, so that a random model can be followed; returns their token ids."""
    written = []

    def read(generation, frame_count, steps, near=None):
        written.append(generation.token_ids)
        return Answer("", (some_box(generation.token_ids),) * frame_count, (0.5,) * frame_count)

    monkeypatch.setattr(runtime, "read", read)
    return written


@pytest.fixture
def visual(runtime, frames):
    return runtime.encode_frames([frame.image for frame in frames])


def one_prompt(runtime, visual, boxes, words):
    """A prompt about some frames as one text, from the opening to the part of the answer that is known."""
    parts = []
    for piece, tokens in zip(frame_pieces(len(visual), runtime.family.network.config.system_text), visual, strict=True):
        parts += [runtime.family.embed(runtime.tokenizer.encode_piece(piece)), tokens.rows]
    question = fill(PUBLISHED[RSOT], expression=words) if words else fill(PUBLISHED[SOT], box=format_box(boxes[0]))
    # With one more box in it, the text is cut into tokens as a whole answer is.
    known = format_track([*boxes, boxes[-1]]).rpartition(" Frame")[0]
    ids = [*runtime.tokenizer.encode_piece(question_piece(question)), *runtime.tokenizer.encode_answer(known)]
    return torch.cat([*parts, runtime.family.embed(ids)])


def test_an_anchor_window_answers_as_a_fresh_prompt_in_every_frame(runtime, visual, answers, judge):
    counters = EngineCounters()
    window = Window(runtime, visual[0], FIRST, WORDS, 2, counters, TOKENS)
    for k in range(1, 15):
        answers.clear()
        seen = window.look(visual[k], {"1": FIRST["2"]} if k % 2 else FIRST)
        for name, tokens in zip(FIRST, answers, strict=True):
            prompt = one_prompt(runtime, [visual[0], visual[k]], [FIRST[name]], WORDS.get(name, ""))
            assert tokens == judge(prompt, TOKENS)
            assert seen[name].box == some_box(tokens)
        assert not window.full


def test_a_growing_window_answers_as_a_fresh_prompt_with_the_answers_so_far(runtime, visual, answers, judge):
    window = Window(runtime, visual[0], FIRST, WORDS, 8, EngineCounters(), TOKENS)
    boxes = {name: [box] for name, box in FIRST.items()}
    for k in range(1, 8):
        assert not window.full
        if k == 4:
            window.discard("2")
            del boxes["2"]
        answers.clear()
        seen = window.look(visual[k], {name: track[0] for name, track in boxes.items()})
        assert list(seen) == window.members == list(boxes)
        for (name, track), tokens in zip(boxes.items(), answers, strict=True):
            assert tokens == judge(one_prompt(runtime, visual[: k + 1], track, WORDS.get(name, "")), TOKENS)
            track.append(seen[name].box)
    assert window.full


def test_guesses_change_no_answer(runtime, visual, answers):
    rounds = []
    for guesses in ({}, FIRST, {"1": FIRST["3"], "2": FIRST["1"]}):
        answers.clear()
        window = Window(runtime, visual[0], FIRST, WORDS, 4, EngineCounters(), TOKENS)
        for k in range(1, 4):
            window.look(visual[k], guesses)
        rounds.append(list(answers))
    assert rounds[0] == rounds[1] == rounds[2]


def test_company_changes_no_answer(runtime, visual, answers):
    together = Window(runtime, visual[0], FIRST, WORDS, 4, EngineCounters(), TOKENS)
    for k in range(1, 4):
        together.look(visual[k], {})
    packed = [answers[i::3] for i in range(3)]
    for name, expected in zip(FIRST, packed, strict=True):
        answers.clear()
        alone = Window(runtime, visual[0], {name: FIRST[name]}, WORDS, 4, EngineCounters(), TOKENS)
        for k in range(1, 4):
            alone.look(visual[k], {})
        assert answers == expected


def test_an_anchor_window_takes_no_more_memory_with_time(runtime, visual, answers):
    counters = EngineCounters()
    window = Window(runtime, visual[0], FIRST, WORDS, 2, counters, TOKENS)
    held, tokens = set(), set()
    for k in range(1, 61):
        before = counters.tokens
        window.look(visual[k % len(visual)], FIRST)
        held.add((window._engine.prefix_length, window._engine.capacity))
        if k > 1:
            tokens.add(counters.tokens - before)
    assert held == {(len(runtime.family.appended(visual[0], 1)), 512)}
    live = len(runtime.family.appended(visual[0], 2))
    assert min(tokens) > live, "the live frame, and the questions"
    # Lengths differ by what was drafted and confirmed, never by what lies behind.
    assert max(tokens) < min(tokens) + len(FIRST) * 40


def test_a_frame_without_a_box_ends_a_growing_window_and_not_an_anchor_window(runtime, visual):
    # The random model's answers have no form.
    anchor = Window(runtime, visual[0], FIRST, WORDS, 2, EngineCounters())
    growing = Window(runtime, visual[0], FIRST, WORDS, 8, EngineCounters())
    for window, left in ((anchor, list(FIRST)), (growing, [])):
        seen = window.look(visual[1], {})
        assert window.members == left
        assert all(observation.box is None and observation.score == 0 for observation in seen.values())
        assert all(o.reason.startswith("the answer has no box for this frame") for o in seen.values())


@pytest.mark.parametrize("max_frames", [2, 3, 5])
def test_a_window_is_full_when_it_holds_its_frames(runtime, visual, answers, max_frames):
    window = Window(runtime, visual[0], FIRST, WORDS, max_frames, EngineCounters(), 2)
    full = []
    for k in range(1, 5):
        if not window.full:
            window.look(visual[k], {})
        full.append(window.full)
    assert full == [max_frames > 2 and k + 1 >= max_frames for k in range(1, 5)]
