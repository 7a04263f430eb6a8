from __future__ import annotations

import math
import weakref

import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.engine.engine import Generation
from elysium_core.errors import BackendError
from elysium_core.geometry import Box
from elysium_core.prompt.conversation import ASSISTANT, USER, build_prompt
from elysium_core.vision.side_stream import SideStream
from elysium_core.vision.torch_vision import TorchVision

STEPS = (100, 100)


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
    answer = runtime.read(written(runtime, text, digit_logprobs(runtime, text, [-0.2, -1.0])), 2, STEPS)
    assert answer.boxes == (Box(0.01, 0.22, 0.33, 0.44), Box(0.05, 0.06, 0.77, 1.0))
    assert answer.scores == pytest.approx((math.exp(-0.2), math.exp(-1.0)))
    assert answer.text == text


def test_every_digit_counts_the_same(runtime):
    text = "[1,22,33,44]."
    ids = runtime.tokenizer.encode_answer(text)
    digits = [runtime.tokenizer.token_text(token).isdecimal() for token in ids]
    logprobs = [-float(place) if digit else -100.0 for place, digit in enumerate(digits)]
    used = [value for value, digit in zip(logprobs, digits, strict=True) if digit]
    assert runtime.read(written(runtime, text, logprobs), 1, STEPS).scores == pytest.approx(
        [math.exp(sum(used) / len(used))]
    )


def test_a_score_belongs_to_its_bracket(runtime):
    text = "Frame 2: [9,9,1,1], Frame 7: [1,2,3,4], [[5,6,7,8], Frame 1: [10,20,30,40]."
    answer = runtime.read(
        written(runtime, text, digit_logprobs(runtime, text, [-9.0, -9.0, -9.0, -9.0, -0.5])), 2, STEPS
    )
    assert answer.boxes == (Box(0.1, 0.2, 0.3, 0.4), None)
    assert answer.scores == (pytest.approx(math.exp(-0.5)), 0.0)


@pytest.mark.parametrize("text", ["", "nothing", "[", "[,]", "Frame 1: [1,2,3", "]]", "12 34"])
def test_what_holds_no_box_scores_nothing(runtime, text):
    answer = runtime.read(written(runtime, text), 1, STEPS)
    assert (answer.boxes, answer.scores) == ((None,), (0.0,))


def test_frames_one_by_one_are_a_clip(runtime, frames):
    visual = runtime.encode_frames([frame.image for frame in frames[:4]])
    parts = [runtime.family.appended(seen, number) for number, seen in enumerate(visual, 1)]
    assert torch.cat(parts).equal(runtime.family.opening(visual))
    alone = runtime.family.opening(visual[:1])
    assert len(alone) < len(parts[0]), "one picture has no label"


def test_pictures_together_are_encoded_as_alone(runtime, frames):
    images = [frame.image for frame in frames[:3]]
    together = runtime.encode_frames(images)
    for tokens, image in zip(together, images, strict=True):
        assert torch.allclose(tokens.rows, runtime.encode_frames([image])[0].rows, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_question_is_answered_as_by_transformers(runtime, frames, judge, count):
    visual = runtime.encode_frames([frame.image for frame in frames[:count]]) if count else []
    prompt = build_prompt("What is it?", count, runtime.family.network.config.system_text)
    with torch.inference_mode():
        pieces = [torch.tensor(ids) for ids in runtime.tokenizer.encode_prompt(prompt)]
        expected = judge(runtime.family.network.interleave(pieces, [seen.rows for seen in visual]), 10)
    assert runtime.ask(visual, "What is it?", 10).token_ids == expected


def test_a_failing_vision_encoder_is_named(runtime, frames, monkeypatch):
    def fail(images):
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with ...")

    monkeypatch.setattr(runtime.family.vision, "encode", fail)
    with pytest.raises(BackendError, match="unspecified launch failure; this process cannot use its GPU"):
        runtime.encode_frames([frames[0].image])


def test_earlier_rounds_stand_before_a_question(runtime, frames, judge):
    visual = runtime.encode_frames([frame.image for frame in frames[:2]])
    first = runtime.ask(visual, "What is it?", 6)
    text = runtime.tokenizer.decode(first.token_ids)
    again = runtime.ask(visual, "Where?", 6, [("What is it?", text)])
    prompt = build_prompt("What is it?", 2, runtime.family.network.config.system_text)
    ids = runtime.tokenizer.encode_prompt(prompt)
    tokenizer = runtime.tokenizer
    ids[-1] += [*tokenizer.encode_answer(text), tokenizer.eos_id, *tokenizer.encode_answer(f"{USER}Where?{ASSISTANT}")]
    with torch.inference_mode():
        pieces = [torch.tensor(piece) for piece in ids]
        assert again.token_ids == judge(runtime.family.network.interleave(pieces, [seen.rows for seen in visual]), 6)


class Beside(SideStream):
    """A side stream of a CPU that says it is one of a GPU."""

    runs_beside = True


@pytest.fixture
def ahead(runtime, monkeypatch):
    """A runtime that encodes ahead, and what its encoder was given."""
    runtime._side = Beside(runtime.device)
    given, encode = [], runtime.family.vision.encode
    monkeypatch.setattr(runtime.family.vision, "encode", lambda images: given.append(len(images)) or encode(images))
    return runtime, given


def test_a_prefetched_image_is_encoded_once(ahead, frames):
    runtime, given = ahead
    first, second = (frame.image for frame in frames[:2])
    expected = runtime.encode_frames([first])[0].rows
    assert runtime.prefetch(first)
    assert runtime.encode_frames([first])[0].rows.equal(expected)
    assert given == [1, 1]
    assert not runtime.encode_frames([second])[0].rows.equal(expected), "another image is another one"


def test_the_next_image_is_encoded_before_this_one_is_read(ahead, frames):
    runtime, given = ahead
    images = [frame.image for frame in frames[:5]]
    expected = [runtime.encode_frames([image])[0].rows for image in images]
    del given[:]
    for number, image in enumerate(images[:-1]):
        runtime.prefetch(images[number + 1])
        assert runtime.encode_frames([image])[0].rows.equal(expected[number])
    assert len(given) == 5, "every image once"
    for image in images:
        runtime.prefetch(image)
    assert len(runtime._ahead) == 2, "what nobody asks about is not kept"
    runtime.encode_frames([images[4]])
    assert len(runtime._ahead) == 0, "nor what is older than what was asked about"


def test_an_image_of_equal_content_is_not_taken_for_the_prefetched_one(ahead, frames):
    runtime, given = ahead
    runtime.prefetch(frames[0].image)
    runtime.encode_frames([frames[0].image.copy()])
    assert len(given) == 2


def test_what_fails_ahead_is_said_when_it_is_asked_for(ahead, frames, monkeypatch):
    runtime, _ = ahead

    def fail(images):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(runtime.family.vision, "encode", fail)
    assert not runtime.prefetch(frames[0].image)
    with pytest.raises(BackendError, match="the vision encoder failed: CUDA error"):
        runtime.encode_frames([frames[0].image])


def test_a_cpu_does_nothing_ahead(runtime, frames):
    assert not runtime.prefetch(frames[0].image)
    assert not runtime._ahead


def test_vision_without_memory_is_tried_again_when_some_is_freed(runtime, frames, monkeypatch):
    encode, released, planted = runtime.family.vision.encode, [], []

    def fail(images):
        if not released:
            of_the_attempt = torch.empty(3)
            planted.append(weakref.ref(of_the_attempt))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")
        return encode(images)

    monkeypatch.setattr(runtime.family.decoder, "release", lambda: released.append(planted[0]()))
    monkeypatch.setattr(runtime.family.vision, "encode", fail)
    assert len(runtime.encode_frames([frames[0].image])) == 1
    assert released == [None], "what the failed attempt has allocated is free by then"


@pytest.mark.gpu
def test_a_gpu_encodes_ahead_and_resizes_there(tiny_folder, frames):
    runtime = Elysium.from_pretrained(tiny_folder, device="cuda:0", dtype="float32", vision_backend="torch").runtime
    image = frames[0].image
    expected = runtime.encode_frames([image])[0].rows
    assert runtime.prefetch(image)
    assert torch.allclose(runtime.encode_frames([image])[0].rows, expected, atol=1e-4)
    fast = TorchVision(runtime.family.network, fast_resize=True).encode([image])[0]
    assert fast.shape == expected.shape
