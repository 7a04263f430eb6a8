"""Prompts of training against those of the tracker, and the wanted numbers against a slow count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_track, quantize
from elysium_core.prompt.layout import PromptLayout
from elysium_core.training.losses import place_visual_tokens
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.follow_losses import AnswerLosses
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.marked_rows import NO_FIELD, continuations, numbers_of

BOXES = [Box(0.25, 0.0, 0.75, 1.0), Box(0.07, 0.31, 0.6, 0.99)]


@pytest.fixture(scope="module")
def model(crop_folder) -> Elysium:
    return Elysium.from_pretrained(crop_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def prompts(model) -> FollowPrompts:
    network = model.runtime.family.network
    layout = PromptLayout(model.runtime.tokenizer, network.config.system_text)
    return FollowPrompts(layout, network.config.crop.anchor_tokens, network.config.crop.live_tokens)


def as_tensor(*boxes: Box) -> torch.Tensor:
    return torch.tensor([list(box) for box in boxes])


def test_numbers_are_those_of_box_text():
    assert numbers_of(as_tensor(*BOXES)).tolist() == [list(quantize(box)) for box in BOXES]


def test_the_prompt_of_training_is_what_the_tracker_asks(model, prompts):
    tracker, runtime = model.tracker(), model.runtime
    seen = []
    answer = runtime.new_engine

    def listening(*arguments):
        engine = answer(*arguments)
        ask = engine.answer
        engine.answer = lambda requests, *rest: (seen.extend(requests), ask(requests, *rest))[1]
        return engine

    runtime.new_engine = listening
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    tracker.add(box=Box(0.3, 0.3, 0.6, 0.7))
    tracker.step(Frame(image, index=0, stamp_ns=1))
    tracker.step(Frame(image, index=1, stamp_ns=2))
    (request,) = seen
    (followed,) = tracker._followed.values()
    network = runtime.family.network
    rows = prompts.rows(numbers_of(as_tensor(followed.anchor.box)), torch.tensor([[1, 2, 33, 100]]))
    live = request.embeddings[prompts.live_places]
    visual = torch.cat([followed.anchor.seen.rows, live])[None]
    embedded = place_visual_tokens(network.llm, rows.token_ids, visual)[0]
    length = len(request.embeddings)
    assert torch.equal(embedded[:length], request.embeddings)
    # What is learnt begins where the tracker lets the model write.
    assert int(rows.place.min()) == length - 1


def test_labels_are_the_rest_of_the_answer(model, prompts):
    tokenizer = model.runtime.tokenizer
    rows = prompts.rows(numbers_of(as_tensor(*BOXES)), numbers_of(as_tensor(*BOXES[::-1])))
    for row in range(2):
        own = rows.row == row
        text = tokenizer.decode(rows.label[own].tolist())
        assert text == format_track([BOXES[row], BOXES[1 - row]]).partition(", ")[2]
        assert rows.label[own][-1] == tokenizer.eos_id
        assert torch.equal(rows.token_ids[row, rows.place[own] + 1], rows.label[own])
        digits = "".join(tokenizer.token_text(int(t)) for t in rows.label[own & (rows.coordinate == 1)])
        assert digits == f"{quantize(BOXES[1 - row])[1]},"
        assert "[" in tokenizer.token_text(int(rows.token_ids[row, rows.opening[row]]))


def test_numbers_go_on_as_they_are_written():
    table = continuations()
    # Of nothing written: a digit; of "1": all of 10..19, or 100 by its 0, or the end of 1.
    assert table[0].sum() == 101
    assert table[2].sum(0).nonzero()[:, 0].tolist() == [1, *range(10, 20), 100]
    assert table[2, 0].nonzero()[:, 0].tolist() == [10, 100]
    assert table[1].sum(0).nonzero()[:, 0].tolist() == [0]


@pytest.fixture
def losses(model, prompts) -> AnswerLosses:
    torch.manual_seed(0)
    return AnswerLosses(prompts, PointingHeads(model.runtime.family.network.llm.size.width, ((1, 2),)))


def test_wanted_shares_are_those_of_the_numbers_near_the_truth(prompts, model):
    truth, vocabulary = as_tensor(*BOXES), model.runtime.tokenizer.vocab_size
    rows = prompts.rows(numbers_of(truth), numbers_of(truth))
    wanted = prompts.marker.wanted(rows, truth, torch.tensor([True, False]), vocabulary)
    torch.testing.assert_close(wanted.sum(-1), torch.ones(len(wanted)))
    digit = {str(d): int(prompts.marker.digits[d]) for d in range(10)}
    for place in range(len(wanted)):
        coordinate, row = int(rows.coordinate[place]), int(rows.row[place])
        if coordinate == NO_FIELD:
            assert wanted[place].argmax() == rows.label[place]
            continue
        written = "" if rows.state[place] == 0 else str(int(rows.state[place]) - 1)
        weights = {
            str(n): np.exp(-0.5 * ((n - 100 * list(BOXES[row])[coordinate]) / 0.7) ** 2) + 1e-8 for n in range(101)
        }
        weights = weights if row == 0 else dict.fromkeys(weights, 1.0)
        able = {text: weight for text, weight in weights.items() if text.startswith(written)}
        for sign, token in digit.items():
            share = sum(w for text, w in able.items() if text.startswith(written + sign)) / sum(able.values())
            assert float(wanted[place, token]) == pytest.approx(share, abs=1e-5)
        ender = able.get(written, 0.0) / sum(able.values())
        assert float(wanted[place, rows.ender[place]]) == pytest.approx(ender, abs=1e-5)


def test_absent_objects_count_in_the_answer_and_nowhere_else(losses, prompts, model):
    network = model.runtime.family.network
    crop, llm = network.config.crop, network.llm
    visual = torch.randn(2, crop.anchor_tokens + crop.live_tokens, llm.size.width)
    on = torch.zeros(2, crop.live_tokens, dtype=torch.bool)
    found = losses(llm, visual, on, as_tensor(*BOXES), torch.zeros(2, 4), torch.tensor([False, False]))
    assert float(found["answer"].value.detach()) > 0
    assert float(found["digit_accuracy"].weight) == float(found["pointing"].weight) == 0
