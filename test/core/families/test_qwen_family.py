"""What Qwen-VL models are fed: prompts, places, images, boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.engine.engine import Engine, Generation
from elysium_core.errors import ConfigError, ExpressionError, ImageError
from elysium_core.families.base import Family
from elysium_core.families.wide_rows import WideRows
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.questions import PUBLISHED, REC
from elysium_core.tracking.stream import StreamTracker
from elysium_core.tracking.word_tracker import WordTracker
from elysium_core.types import TrackingConfig

KINDS = ("qwen3_vl", "qwen2_5_vl")
SYSTEM = {"qwen3_vl": "", "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def family(qwen_models, kind):
    return qwen_models[kind].runtime.family


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_prompt_is_the_chat_of_the_model(family, kind):
    seen = family.encode([noise(60, 90), noise(130, 40)])
    question = family.question(REC, "the red mug")
    text = family.tokenizer._backend.decode(
        family.ids_for_generate(question, [len(each.rows) for each in seen]), skip_special_tokens=False
    )
    first, second = ("<|vision_start|>" + "<|image_pad|>" * len(each.rows) + "<|vision_end|>" for each in seen)
    asked = "Locate the red mug, output its bbox coordinates in JSON format."
    assert text == SYSTEM[kind] + (f"<|im_start|>user\n{first}{second}{asked}<|im_end|>\n<|im_start|>assistant\n")
    talk = family.conversation("And blue?", [("Is it red?", "Yes.")], with_frames=False)
    assert family.tokenizer._backend.decode(talk, skip_special_tokens=False) == SYSTEM[kind] + (
        "<|im_start|>user\nIs it red?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nAnd blue?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_family_fills_the_protocol(family):
    names = [name for name in vars(Family) if not name.startswith("_")]
    assert [name for name in names if not hasattr(family, name)] == []
    assert all(family.question(task, "mug", "[1, 2, 3, 4]") for task in PUBLISHED)


def test_places_are_those_of_transformers(family, monkeypatch):
    """Of three images of different shapes, one of them large, with words between and behind."""
    images = [noise(60, 90), noise(200, 220), noise(130, 40)]
    seen, question = family.encode(images), family.question(REC, "mug")
    ids = torch.tensor([family.ids_for_generate(question, [len(each.rows) for each in seen])])
    kinds = (ids == family.model.config.image_token_id).int()
    places, _ = family.model.model.get_rope_index(
        ids, mm_token_type_ids=kinds, image_grid_thw=family.images.pixels(images)[1]
    )
    fed = []
    rotary = family.model.model.language_model.rotary_emb
    monkeypatch.setattr(rotary, "forward", lambda x, place, run=rotary.forward: fed.append(place) or run(x, place))
    engine = Engine(family.decoder, family.tokenizer.eos_id, capacity=8)
    for number, each in enumerate(seen, 1):  # frame by frame: the cache knows how far places have shifted
        engine.answer([], family.appended(each, number))
    engine.answer([], family.embed(family.conversation(question)))
    assert torch.equal(torch.cat(fed, -1)[:, 0], places[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_keep_all_integers_in_every_type(dtype):
    """Of an image of 16384 tokens, the largest that the models take."""
    rows = WideRows(4, 2)
    image = torch.zeros(128 * 128, 4, dtype=dtype)
    parts = rows.split(rows.image(image, [image + 1, image + 2], (128, 128)))
    index = torch.arange(128 * 128)
    assert torch.equal(parts.offsets, torch.stack([-index, index // 128 - index, index % 128 - index]))
    assert parts.shifts.tolist() == [0] * (len(index) - 1) + [128 - len(index)]
    assert parts.deep.shape == (2, len(index), 4)
    assert set(parts.deep.flatten(1).unique(dim=1).flatten().tolist()) == {1, 2}
    words = rows.split(rows.words(torch.ones(3, 4, dtype=dtype)))
    assert not words.deep.any()
    assert not words.offsets.any()
    assert not words.shifts.any()


def test_boxes_count_thousandths_or_pixels_of_the_resized_image(family, kind):
    (seen,) = family.encode([noise(130, 180)])
    assert seen.steps == ((1000, 1000) if kind == "qwen3_vl" else (168, 140))
    text = family.grammar.write(Box(0.5, 0, 1, 1), seen.steps)
    assert text == ("[500, 0, 1000, 1000]" if kind == "qwen3_vl" else "[84, 0, 168, 140]")


def test_large_images_are_scaled_down_to_the_limit(family):
    (seen,) = family.encode([noise(600, 800)])
    token_px = 32 if family.grammar.levels == 1000 else 28
    assert len(seen.rows) * token_px**2 <= 48 * 1024 < 1.5 * len(seen.rows) * token_px**2
    side = family.side_px
    assert side % token_px == 0
    assert len(family.encode([noise(side, side)])[0].rows) == (side // token_px) ** 2


def test_an_image_that_is_a_line_is_refused(family):
    with pytest.raises(ImageError, match="1x300") as caught:
        family.encode([noise(300, 1)])
    assert caught.value.code == "IMG_SHAPE"


def test_only_digits_of_boxes_are_scored(family):
    text = (
        '```json\n[\n\t{"bbox_2d": [1, 20, 300, 4], "label": "player 10 é [7]"},\n\t{"bbox_2d": [5, 6, 7, 8]}\n]\n```'
    )
    ids = family.tokenizer.encode_answer(text)
    pieces = family.tokenizer.pieces(ids)
    found = ["".join(pieces[place] for place in places) for places in family.box_digits(ids)]
    assert found == ["1203004", "5678"]


def test_of_several_boxes_the_nearest_or_the_surest_counts(qwen_models, kind):
    runtime, steps = qwen_models[kind].runtime, (1000, 1000)
    family, boxes = runtime.family, [Box(0.1, 0.1, 0.2, 0.2), Box(0.3, 0.3, 0.4, 0.4), Box(0.8, 0.8, 0.9, 0.9)]
    ids = family.tokenizer.encode_answer("[" + ", ".join(family.grammar.other_forms(b, steps)[3] for b in boxes) + "]")
    said = [-1.0] * len(ids)
    for places, sure in zip(family.box_digits(ids), (-0.3, -0.1, -0.2), strict=True):
        for place in places:
            said[place] = sure

    def read(near: Box | None = None):
        answer = runtime.read(Generation(ids, said, finished=True), 1, steps, near=near).at(0)
        return answer.box, round(math.log(answer.score), 3)

    assert read() == (boxes[1], -0.1), "the surest"
    assert read(Box(0.12, 0.12, 0.5, 0.5)) == (boxes[1], -0.1), "the largest overlap"
    assert read(Box(0.12, 0.1, 0.2, 0.2)) == (boxes[0], -0.3)
    assert read(Box(0.7, 0.6, 0.75, 0.65)) == (boxes[2], -0.2), "none overlaps: the nearest"
    said = [-0.5] * len(ids)
    assert read() == (boxes[0], -0.5), "all equal: the first"


def test_special_tokens_in_words_stay_words(family, qwen_models, kind):
    ids = family.conversation("<|im_end|> <|image_pad|>")
    special = [family.tokenizer.special_id(f"<|{name}|>") for name in ("im_end", "image_pad")]
    assert [ids.count(token) for token in special] == [1, 0], "the end of the question alone"
    with pytest.raises(ExpressionError) as caught:
        qwen_models[kind].clean_words("mug <|im_end|>")
    assert caught.value.code == "EXPR_RESERVED"


def test_the_window_chooses_the_tracker(qwen_models, kind):
    model = qwen_models[kind]
    assert isinstance(model.tracker(), WordTracker)
    assert isinstance(model.tracker(config=TrackingConfig(window="anchor")), StreamTracker)
    with pytest.raises(ConfigError, match="one frame at a time") as caught:
        model.tracker("clip")
    assert caught.value.code == "MODE"


def test_every_task_answers_what_was_learnt(taught_qwen, lessons):
    model, image, box = Elysium.from_pretrained(taught_qwen(), device="cpu"), lessons.picture(0), lessons.truth(0)
    for words in lessons.WORDS:
        found = model.ground(image, words, zoom=words == lessons.MUG)
        assert found.box.iou(box[words]) > 0.98
        assert found.score > 0.9
    hidden = model.ground(lessons.picture(lessons.HIDDEN[0]), lessons.MUG)
    assert (hidden.box, hidden.score, hidden.reason) == (None, 0.0, "the answer has no box for this frame")
    assert model.describe(image, box[lessons.APPLE]) == lessons.APPLE
    clip = [lessons.picture(frame) for frame in (7, 0)]
    assert model.describe(clip, box[lessons.MUG], 1, zoom=True) == lessons.MUG, "of the frame of the box alone"
    assert model.ask(image, lessons.QUESTION) == lessons.ANSWER
    assert model.caption(image) == lessons.CAPTION_TEXT
    assert isinstance(model.ask([image, image], "What is it?", 4, [("Who?", "Me.")]), str)
    tracker = model.tracker(config=TrackingConfig(window="anchor", max_new_tokens=16))
    tracker.add("the red mug", Box(0.1, 0.1, 0.9, 0.9))
    updates = [tracker.step(Frame(image, index=index))[0] for index in range(2)]
    assert updates[0].box == Box(0.1, 0.1, 0.9, 0.9)
    assert tracker.stats.failures == 0
