"""Questions about frames in training against those of the model's API, and the marks of their answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.engine.engine import Engine
from elysium_core.errors import ModelFileError
from elysium_core.geometry import Box
from elysium_core.prompt.layout import PromptLayout
from elysium_core.training.losses import place_visual_tokens
from elysium_core.training.real.frame_prompts import FIND, NAME, FramePrompts, FrameRows
from elysium_core.training.real.frame_questions import ABSENT, FrameQuestion
from elysium_core.training.real.marked_rows import numbers_of

NAMES = ("mug", "apple", "teddy bear")
BOXES = torch.tensor([[[0.1, 0.2, 0.5, 0.6], [0.55, 0.0, 1.0, 0.97]]])
FIND_LEFT = FrameQuestion(1, 1, "the apple on the left")
FIND_NOTHING = FrameQuestion(2, ABSENT, "a teddy bear")
DESCRIBE = FrameQuestion(2, 0, box=np.array([0.11, 0.2, 0.5, 0.58], np.float32))


@pytest.fixture(scope="module")
def model(crop_folder) -> Elysium:
    return Elysium.from_pretrained(crop_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prompts(model) -> FramePrompts:
    config = model.network.config
    return FramePrompts(PromptLayout(model.runtime.tokenizer, config.system_text), config.adapter.out_token_num, NAMES)


@pytest.fixture(scope="module")
def rows(prompts) -> FrameRows:
    torch.manual_seed(0)
    return prompts.rows([[FIND_LEFT, FIND_NOTHING, DESCRIBE]], BOXES)


@pytest.mark.parametrize("answer", [0, 2])
def test_the_prompt_of_training_is_what_the_model_is_asked(model, prompts, rows, monkeypatch, answer):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    asked = []
    ask = Engine.answer

    def listening(engine, requests, prefix=None):
        asked.append(torch.cat([prefix, requests[0].embeddings]))
        return ask(engine, requests, prefix)

    monkeypatch.setattr(Engine, "answer", listening)
    if answer == 0:
        model.ground(image, FIND_LEFT.expression)
    else:
        model.describe(image, Box(*map(float, DESCRIBE.box)))
    (expected,) = asked
    visual = expected[prompts.visual_places][None]
    embedded = place_visual_tokens(model.network.llm, rows.marked.token_ids, visual)[0]
    own = (rows.branch[0] == 0) | (rows.branch[0] == answer + 1)
    begins = int(rows.marked.place[rows.marked.answer == answer].min()) + 1
    prompt = own & (torch.arange(len(own)) < begins)
    assert torch.equal(embedded[prompt], expected)
    # A branch goes on where the frame ends, as if it were the only one.
    assert rows.positions[0][prompt].tolist() == list(range(len(expected)))


def test_answers_are_the_truth_and_their_numbers_are_marked(model, rows):
    tokenizer, marked = model.runtime.tokenizer, rows.marked
    texts = [tokenizer.decode(marked.label[marked.answer == answer].tolist()).strip() for answer in range(3)]
    assert texts[0] == "[55,0,100,97]."
    assert texts[2] == "teddy bear"
    for answer in range(3):
        labels = marked.label[marked.answer == answer]
        assert labels[-1] == tokenizer.eos_id
        places = marked.place[marked.answer == answer] + 1
        assert torch.equal(marked.token_ids[0, places], labels)
        # Each answer lies in its own branch.
        assert set(rows.branch[0][places].tolist()) == {answer + 1}
    for coordinate, number in enumerate(["55,", "0,", "100,", "97]"]):
        chosen = (marked.answer == 0) & (marked.coordinate == coordinate)
        assert "".join(tokenizer.token_text(int(token)) for token in marked.label[chosen]) == number
    assert not marked.in_number[marked.answer == 2].any()
    assert marked.opening[2] == 0
    assert ["[" in tokenizer.token_text(int(marked.token_ids[0, place])) for place in marked.opening[:2]] == [True] * 2


def test_where_nothing_is_to_be_found_any_box_stands(prompts, model):
    written = set()
    for seed in range(20):
        torch.manual_seed(seed)
        marked = prompts.rows([[FIND_NOTHING]], BOXES).marked
        text = model.runtime.tokenizer.decode(marked.label.tolist())
        x1, y1, x2, y2 = map(int, text.strip().removeprefix("[").removesuffix("].").split(","))
        assert 0 <= x1 <= x2 <= 100
        assert 0 <= y1 <= y2 <= 100
        written.add(text)
    assert len(written) > 15


def test_questions_know_their_kind_target_and_name(rows):
    assert rows.kind.tolist() == [FIND, FIND, NAME]
    assert rows.target.tolist() == [1, ABSENT, 0]
    assert rows.name.tolist() == [1, 2, 2]
    assert rows.row.tolist() == [0, 0, 0]


def test_the_asked_name_is_pointed_at(model, rows, prompts):
    def text(place):
        return model.runtime.tokenizer.token_text(int(rows.marked.token_ids[0, place])).strip("▁ ")

    assert [text(place) for place in rows.name_place[:2]] == ["apple", "bear"]
    assert rows.name_place[2] == 0
    assert [int(rows.branch[0, place]) for place in rows.name_place[:2]] == [1, 2]
    words = [model.runtime.tokenizer.token_text(int(token)).strip("▁ ") for token in prompts.name_ids]
    assert words == ["mug", "apple", "bear"]


def test_boxes_are_described_as_box_text_rounds_them(prompts):
    assert prompts.question(DESCRIBE) == "Describe this object in [11,20,50,58]."
    assert numbers_of(torch.from_numpy(DESCRIBE.box)).tolist() == [11, 20, 50, 58]


def test_a_name_needs_a_token_of_its_own(model):
    layout = PromptLayout(model.runtime.tokenizer, "")
    with pytest.raises(ModelFileError, match=r"'zyzzyva'.*enlarge vocab_size"):
        FramePrompts(layout, 6, ["mug", "sleepy zyzzyva"])


def test_frames_may_have_different_numbers_of_questions_and_none(prompts):
    rows = prompts.rows([[], [FIND_LEFT]], BOXES.expand(2, -1, -1))
    assert rows.row.tolist() == [1]
    assert set(rows.marked.row.tolist()) == {1}
    nothing = prompts.rows([[], []], BOXES.expand(2, -1, -1))
    assert len(nothing.row) == len(nothing.marked.label) == 0
    assert nothing.marked.token_ids.shape[0] == 2
