from __future__ import annotations

import math

import pytest
import torch

from elysium_core.errors import BackendError
from elysium_core.geometry import Box
from elysium_core.inference.engine import Generation
from elysium_core.text.conversation import ASSISTANT, USER, build_prompt


def written(runtime, text, logprobs=None):
    """An answer as the engine returns it."""
    ids = runtime.tokenizer.encode_answer(text)
    return Generation(ids, logprobs or [-0.1] * len(ids), finished=True)


def digit_logprobs(runtime, text, per_box, other=-5.0):
    """Log-probabilities that differ only in the digits inside of brackets."""
    values, inside, box = [], False, -1
    for token in runtime.tokenizer.encode_answer(text):
        piece = runtime.tokenizer.token_text(token)
        box, inside = box + piece.count("["), (inside or "[" in piece) and "]" not in piece
        values.append(per_box[box] if inside and piece.isdecimal() else other)
    return values


def test_scores_are_those_of_the_digits_alone(runtime):
    text = "Frame 1: [1,22,33,44], Frame 2: [5,6,77,100]."
    answer = runtime.scored(written(runtime, text, digit_logprobs(runtime, text, [-0.2, -1.0])), 2)
    assert answer.parsed.boxes == (Box(0.01, 0.22, 0.33, 0.44), Box(0.05, 0.06, 0.77, 1.0))
    assert answer.scores == pytest.approx((math.exp(-0.2), math.exp(-1.0)))
    assert answer.text == text


def test_every_digit_counts_the_same(runtime):
    text = "[1,22,33,44]."
    ids = runtime.tokenizer.encode_answer(text)
    digits = [runtime.tokenizer.token_text(token).isdecimal() for token in ids]
    logprobs = [-float(place) if digit else -100.0 for place, digit in enumerate(digits)]
    used = [value for value, digit in zip(logprobs, digits, strict=True) if digit]
    assert runtime.scored(written(runtime, text, logprobs), 1).scores == pytest.approx(
        [math.exp(sum(used) / len(used))]
    )


def test_a_score_belongs_to_its_bracket(runtime):
    text = "Frame 2: [9,9,1,1], Frame 7: [1,2,3,4], [[5,6,7,8], Frame 1: [10,20,30,40]."
    answer = runtime.scored(written(runtime, text, digit_logprobs(runtime, text, [-9.0, -9.0, -9.0, -9.0, -0.5])), 2)
    assert answer.parsed.boxes == (Box(0.1, 0.2, 0.3, 0.4), None)
    assert answer.scores == (pytest.approx(math.exp(-0.5)), 0.0)


@pytest.mark.parametrize("text", ["", "nothing", "[", "[,]", "Frame 1: [1,2,3", "]]", "12 34"])
def test_what_holds_no_box_scores_nothing(runtime, text):
    answer = runtime.scored(written(runtime, text), 1)
    assert (answer.parsed.boxes, answer.scores) == ((None,), (0.0,))


def test_frames_one_by_one_are_a_clip(runtime, frames):
    visual = runtime.encode_frames([frame.image for frame in frames[:4]])
    parts = [runtime.embed_frame(tokens, number) for number, tokens in enumerate(visual, 1)]
    assert torch.cat(parts).equal(runtime.embed_clip(visual))
    alone = runtime.embed_clip(visual[:1])
    assert len(alone) < len(parts[0]), "one picture has no label"


def test_pictures_together_are_encoded_as_alone(runtime, frames):
    images = [frame.image for frame in frames[:3]]
    together = runtime.encode_frames(images)
    for tokens, image in zip(together, images, strict=True):
        assert torch.allclose(tokens, runtime.encode_frames([image])[0], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_question_is_answered_as_by_transformers(runtime, frames, judge, count):
    visual = runtime.encode_frames([frame.image for frame in frames[:count]]) if count else []
    prompt = build_prompt("What is it?", count, runtime.config.system_text)
    with torch.inference_mode():
        pieces = [torch.tensor(ids) for ids in runtime.tokenizer.encode_prompt(prompt)]
        expected = judge(runtime.network.interleave(pieces, visual), 10)
    assert runtime.ask(visual, "What is it?", 10).token_ids == expected


def test_a_failing_vision_encoder_is_named(runtime, frames, monkeypatch):
    def fail(images):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(runtime.vision, "encode", fail)
    with pytest.raises(BackendError, match=r"the vision encoder failed: CUDA error: unspecified launch failure$"):
        runtime.encode_frames([frames[0].image])


def test_earlier_rounds_stand_before_a_question(runtime, frames, judge):
    visual = runtime.encode_frames([frame.image for frame in frames[:2]])
    first = runtime.ask(visual, "What is it?", 6)
    text = runtime.tokenizer.decode(first.token_ids)
    again = runtime.ask(visual, "Where?", 6, [("What is it?", text)])
    prompt = build_prompt("What is it?", 2, runtime.config.system_text)
    ids = runtime.tokenizer.encode_prompt(prompt)
    tokenizer = runtime.tokenizer
    ids[-1] += [*tokenizer.encode_answer(text), tokenizer.eos_id, *tokenizer.encode_answer(f"{USER}Where?{ASSISTANT}")]
    with torch.inference_mode():
        pieces = [torch.tensor(piece) for piece in ids]
        assert again.token_ids == judge(runtime.network.interleave(pieces, visual), 6)
