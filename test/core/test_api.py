from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from elysium_core.api import Elysium
from elysium_core.engine import engine
from elysium_core.errors import BackendError, BoxError, ConfigError, ExpressionError, ImageError, ModelFileError
from elysium_core.frames import Clip, Frame
from elysium_core.geometry import Box
from elysium_core.io.image import write_image
from elysium_core.prompt.conversation import build_prompt
from elysium_core.prompt.questions import CAPTION, PUBLISHED, REC, REG, VIDEO_REG, fill
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.identity import IdentityModel
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig

BOX = Box(0.1, 0.2, 0.5, 0.6)


@pytest.fixture
def expected(tiny, judge):
    """What transformers writes about some frames: ``expected(question, frames, max_new_tokens)``."""

    def answer(question, frames, max_new_tokens):
        runtime = tiny.runtime
        visual = runtime.encode_frames([frame.image for frame in frames])
        prompt = build_prompt(question, len(frames), runtime.family.network.config.system_text)
        pieces = [torch.tensor(ids) for ids in runtime.tokenizer.encode_prompt(prompt)]
        with torch.inference_mode():
            return runtime.tokenizer.decode(
                judge(runtime.family.network.interleave(pieces, [seen.rows for seen in visual]), max_new_tokens)
            )

    return answer


def test_what_was_loaded_is_known(tiny, tiny_folder):
    info = tiny.info
    assert (info.name, info.backend, info.device, info.precision) == (str(tiny_folder), "torch", "cpu", "float32")
    assert (info.coordinate_levels, info.clip_length) == (100, 8)
    assert info.parameters == sum(p.numel() for p in tiny.runtime.family.network.parameters())


def test_ground_asks_where(tiny, frames, expected):
    answer = tiny.ground(frames[0], "  the red\nmug ")
    assert answer.text == expected(fill(PUBLISHED[REC], expression="the red mug"), frames[:1], 48)
    assert (answer.box, answer.score) == (None, 0.0), "a random model's answer has no form"
    assert tiny.ground(frames[0].image, "the red mug") == answer


def test_a_box_in_the_answer_is_read_and_scored(tiny, frames, monkeypatch):
    runtime = tiny.runtime
    wanted = [*runtime.tokenizer.encode_answer("[12,34,56,78]."), runtime.tokenizer.eos_id]
    written = []

    def logits(hidden):
        # The draft of the middle is wrong from its first digit on: one token a pass, then, in a new draft, more.
        scores = torch.zeros(len(hidden), runtime.tokenizer.vocab_size)
        for row in scores:
            row[wanted[min(len(written), len(wanted) - 1)]] = 9.0
            written.append(None)
            break
        return scores

    monkeypatch.setattr(runtime.family.network.llm, "logits", logits)
    monkeypatch.setattr(engine.Engine, "_draft", lambda *_: [])
    answer = tiny.ground(frames[0], "the mug")
    assert (answer.box, answer.text) == (Box(0.12, 0.34, 0.56, 0.78), "[12,34,56,78].")
    vocabulary = runtime.tokenizer.vocab_size
    assert answer.score == pytest.approx(np.exp(9) / (np.exp(9) + vocabulary - 1), rel=1e-4)


@pytest.mark.parametrize(
    ("frame_index", "shown"),
    [
        (0, [0, 1, 2, 3, 4]),
        (2, [2, 3, 4, 1, 0]),
        (4, [4, 3, 2, 1, 0]),
        (-1, [4, 3, 2, 1, 0]),
        (-5, [0, 1, 2, 3, 4]),
        (3, [3, 4, 2, 1, 0]),
    ],
)
def test_describe_shows_the_frame_of_the_box_first_and_then_all_others(tiny, frames, expected, frame_index, shown):
    """Models are trained with the box in Frame 1."""
    question = fill(PUBLISHED[VIDEO_REG], box="[10,20,50,60]")
    text = tiny.describe(frames[:5], BOX, frame_index, max_new_tokens=8)
    assert text == expected(question, [frames[k] for k in shown], 8)


ASKING = {
    "describe": lambda model, frames: model.describe(frames, BOX, 2, max_new_tokens=2),
    "ask": lambda model, frames: model.ask(frames, "What is it?", max_new_tokens=2),
    "caption": lambda model, frames: model.caption(frames, max_new_tokens=2),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("count", [9, 20, 32])
def test_every_frame_that_is_given_is_shown(tiny, frames, encoded, ask, count):
    ask(tiny, frames[:count])
    assert sum(encoded) == count


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_more_frames_than_a_model_is_shown_at_once_are_refused(tiny, frames, encoded, ask):
    with pytest.raises(ImageError, match="33 frames are more than the 32") as caught:
        ask(tiny, frames[:33])
    assert caught.value.code == "FRAMES"
    assert encoded == []


@pytest.mark.parametrize("form", ["frame", "array", "list", "clip"])
def test_describe_one_image(tiny, frames, expected, form):
    frame = frames[3]
    image = {"frame": frame, "array": frame.image, "list": [frame.image], "clip": Clip((frame,))}[form]
    assert tiny.describe(image, BOX, max_new_tokens=8) == expected(
        fill(PUBLISHED[REG], box="[10,20,50,60]"), [frame], 8
    )


@pytest.mark.parametrize("frame_index", [5, -6, 100])
def test_describe_refuses_frames_that_are_not_there(tiny, frames, frame_index):
    with pytest.raises(BoxError, match=f"frame_index {frame_index} is outside a clip of 5 frames"):
        tiny.describe(frames[:5], BOX, frame_index)


@pytest.mark.parametrize("form", ["frame", "array", "pil", "path", "list", "arrays", "stack", "clip", "pils and paths"])
def test_ask_takes_pictures_in_any_form(tiny, frames, expected, form, tmp_path):
    some = frames[:3] if form not in ("frame", "array", "pil", "path") else frames[:1]
    write_image(tmp_path / "0.png", frames[0].image)
    images = {
        "pil": Image.fromarray(frames[0].image),
        "path": str(tmp_path / "0.png"),
        "pils and paths": [tmp_path / "0.png", *(Image.fromarray(frame.image) for frame in some[1:])],
        "frame": frames[0],
        "array": frames[0].image,
        "list": list(some),
        "arrays": [frame.image for frame in some],
        "stack": np.stack([frame.image for frame in some]),
        "clip": Clip(tuple(some)),
    }[form]
    assert tiny.ask(images, "What  is it? ", max_new_tokens=8) == expected("What is it?", some, 8)


def test_a_conversation_goes_on_behind_the_answers_before(tiny, frames, judge):
    """Rounds as the protocol writes them: answer, end token, and the next question without a BOS."""
    runtime, tokens = tiny.runtime, tiny.runtime.tokenizer
    long_answer = "A {mug} and\nanother. " * 40
    rounds = [("What is it?", long_answer), ("And then?", "")]
    ids = [tokens.bos_id, *tokens.encode_answer("\nWhat is it?ASSISTANT:"), *tokens.encode_answer(long_answer.strip())]
    ids += [tokens.eos_id, *tokens.encode_answer("USER: And then?ASSISTANT:"), tokens.eos_id]
    ids += tokens.encode_answer("USER: Why?ASSISTANT:")
    visual = runtime.encode_frames([frame.image for frame in frames[:2]])
    opening = [tokens.bos_id, *tokens.encode_answer("A chat. USER: Frame 1: ")]
    between = [tokens.bos_id, *tokens.encode_answer(", Frame 2: ")]
    with torch.inference_mode():
        pieces = [torch.tensor(piece) for piece in (opening, between, ids)]
        expected = tokens.decode(judge(runtime.family.network.interleave(pieces, [seen.rows for seen in visual]), 8))
    assert tiny.ask(frames[:2], "Why?", 8, history=rounds) == expected
    assert tiny.ask(frames[:2], "Why?", 8) != expected


def test_caption_asks_the_published_question(tiny, frames, expected):
    assert tiny.caption(frames[:4], max_new_tokens=8) == expected(PUBLISHED[CAPTION], frames[:4], 8)


@pytest.mark.parametrize(
    "ask", [lambda model, frame: model.ask(frame, "What?"), lambda model, frame: model.caption(frame)]
)
def test_a_task_that_the_model_was_not_trained_for_is_refused(closed_folder, frames, ask):
    model = Elysium.from_pretrained(closed_folder, device="cpu")
    with pytest.raises(ExpressionError) as caught:
        ask(model, frames[0])
    assert caught.value.code == "TASK"
    assert model.describe(frames[0], BOX) is not None


def test_answers_do_not_depend_on_what_was_asked_before(tiny, frames):
    first = tiny.ask(frames[:2], "What is it?", 8)
    tiny.ground(frames[5], "the mug")
    tiny.warm_up()
    assert tiny.ask(frames[:2], "What is it?", 8) == first


def test_while_a_text_is_written_a_tracker_follows_and_neither_changes(tiny, frames):
    def follow(count):
        tracker = tiny.tracker()
        tracker.add("the mug")
        return [tracker.step(frame)[0] for frame in frames[:count]]

    def step():
        steps.append(tracker.step(frames[len(steps)])[0])
        if len(steps) == 8:
            raise ImageError("enough")

    text, tracker, steps = tiny.describe(frames[:4], BOX, max_new_tokens=4), tiny.tracker(), []
    tracker.add("the mug")
    with tiny.interrupted_by(step):
        assert tiny.describe(frames[:4], BOX, max_new_tokens=4) == text
        assert len(steps) == 7, "after each of four frames, and before all tokens but the first"
        with pytest.raises(ImageError, match="enough"):
            tiny.caption(frames[:4], max_new_tokens=4)
    assert steps + tracker.step(frames[8]) == follow(9)


@pytest.mark.parametrize("images", [[], np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), ["a.png"]])
def test_what_is_no_picture_is_refused(tiny, images):
    for ask in (lambda: tiny.ask(images, "What?"), lambda: tiny.caption(images), lambda: tiny.describe(images, BOX)):
        with pytest.raises(ImageError):
            ask()


def test_ground_takes_one_picture_in_any_form(tiny, frames, tmp_path):
    write_image(tmp_path / "0.png", frames[0].image)
    expected = tiny.ground(frames[0], "mug")
    for form in (Image.fromarray(frames[0].image), tmp_path / "0.png", str(tmp_path / "0.png"), [frames[0]]):
        assert tiny.ground(form, "mug") == expected
    with pytest.raises(ImageError) as caught:
        tiny.ground(frames[:2], "mug")
    assert caught.value.code == "FRAMES"
    with pytest.raises(ImageError) as caught:
        tiny.ground("https://example.org/mug.jpg", "mug")
    assert caught.value.code == "IMG_ADDRESS"


@pytest.mark.parametrize("mode", ["stream", "clip"])
def test_a_tracker_and_prefetch_take_frames_only_and_say_how_to_make_one(tiny, frames, mode):
    for step in (tiny.tracker(mode).step, IdentityModel().tracker().step, tiny.prefetch):
        for picture in (Image.fromarray(frames[0].image), frames[0].image, "a.png", None):
            with pytest.raises(ImageError, match=type(picture).__name__):
                step(picture)


@pytest.mark.parametrize("words", ["", "   ", "<image>", "USER: hello", "x" * 513, "\udcff"])
def test_words_that_cannot_be_used_are_refused(tiny, frames, words):
    for ask in (lambda: tiny.ground(frames[0], words), lambda: tiny.ask(frames[0], words)):
        with pytest.raises(ExpressionError):
            ask()


def test_a_model_with_few_words_says_which(closed_folder, frames):
    model = Elysium.from_pretrained(closed_folder, device="cpu")
    with pytest.raises(ExpressionError, match=r"'the zeppelin'.* 3 names.* mug, apple, teddy bear") as caught:
        model.ground(frames[0], "the zeppelin")
    assert caught.value.code == "EXPR_UNKNOWN"
    assert model.ground(frames[0], "The blue MUG on the left").text
    assert model.clean_words("two mugs") == "two mug"
    assert model.tracker().add("my teddy bear") == "1"
    with pytest.raises(ExpressionError):
        model.tracker().add("smugglers")


def test_a_closed_model_says_so(tiny, frames):
    tracker = tiny.tracker()
    tiny.close()
    tiny.close()
    for use in (lambda: tiny.ground(frames[0], "the mug"), tiny.tracker, tiny.warm_up, lambda: tiny.caption(frames[0])):
        with pytest.raises(BackendError, match="has been closed"):
            use()
    assert tiny.info.backend == "torch"
    tracker.add("the mug")
    assert len(tracker.step(frames[0])) == 1, "what was made before goes on until it is dropped"


def test_trackers_of_both_modes(tiny):
    assert isinstance(tiny.tracker(), StreamTracker)
    assert isinstance(tiny.tracker("clip"), ClipTracker)
    wanted = TrackingConfig(mode="clip", max_targets=7, clip_length=8)
    assert tiny.tracker("clip", TrackingConfig(max_targets=7)).config == wanted
    assert tiny.tracker().config.clip_length == 8
    with pytest.raises(ConfigError, match="mode 'film'"):
        tiny.tracker("film")


@pytest.mark.parametrize(("trained", "stream", "clip"), [(4, 4, 4), (1, 2, 2), (8, 8, 8), (32, 32, 8), (64, 32, 8)])
def test_clips_are_as_long_as_suits_the_model(tiny, trained, stream, clip):
    family = tiny.runtime.family
    family.settings = replace(family.settings, clip_length=trained)
    for config in (None, TrackingConfig(zoom=False)):  # whether other settings are given makes no difference
        assert tiny.tracker("stream", config).config.clip_length == stream
        assert tiny.tracker("clip", config).config.clip_length == clip
    assert tiny.tracker("clip", TrackingConfig(clip_length=6)).config.clip_length == 6
    tracker = tiny.tracker("stream", TrackingConfig(clip_length=6))
    tracker.configure(TrackingConfig())
    assert tracker.config.clip_length == stream


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "meta", "mps", "cuda:99"])
def test_devices_that_are_not_there_are_refused(tiny_folder, device):
    with pytest.raises(BackendError) as caught:
        Elysium.from_pretrained(tiny_folder, device=device)
    assert caught.value.code == "DEVICE"
    assert repr(device) in str(caught.value)


def test_unknown_types_and_backends_are_refused(tiny_folder):
    with pytest.raises(BackendError, match="'int3' is not one of auto, float32, float16, bfloat16") as caught:
        Elysium.from_pretrained(tiny_folder, device="cpu", dtype="int3")
    assert caught.value.code == "DTYPE"
    with pytest.raises(BackendError, match="'abacus'"):
        Elysium.from_pretrained(tiny_folder, device="cpu", vision_backend="abacus")


def test_a_tokenizer_of_another_model_is_refused(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    path = folder / "llm" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["zeppelin"] = len(content["model"]["vocab"])
    path.write_text(json.dumps(content))
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ModelFileError, match=r"the tokenizer writes 'zeppelin' as id \d+, but the language model has"):
        Elysium.from_pretrained(folder, device="cpu")


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="nothing-here"):
        Elysium.from_pretrained(tmp_path / "nothing-here")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_type_of_the_weights_can_be_chosen(tiny_folder, frames, dtype):
    model = Elysium.from_pretrained(tiny_folder, device="cpu", dtype=dtype)
    assert model.info.precision == dtype
    assert {str(p.dtype) for p in model.runtime.family.network.parameters()} == {f"torch.{dtype}"}
    tracker = model.tracker()
    tracker.add("the mug")
    assert [len(tracker.step(frame)) for frame in frames[:3]] == [1, 1, 1]


def test_pictures_of_any_size(tiny):
    for height, width in ((1, 1), (7, 300), (64, 32)):
        assert isinstance(tiny.caption(Frame(np.full((height, width, 3), 9, np.uint8)), max_new_tokens=2), str)


@pytest.mark.parametrize("mode", ["frame", "none"])
def test_a_model_describes_only_what_it_was_trained_to(tiny_folder, tmp_path, frames, mode):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings["elysium"]["describe"] = mode
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    model = Elysium.from_pretrained(folder, device="cpu")
    if mode == "frame":
        assert model.describe(frames[:4], BOX, 2, 8) == model.describe(frames[2], BOX, 0, 8)
        return
    with pytest.raises(ExpressionError) as caught:
        model.describe(frames[:4], BOX)
    assert caught.value.code == "TASK"
