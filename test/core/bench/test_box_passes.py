"""Passes a frame for boxes in motion: what they must be where it is known, and the statistics of the motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bench import box_passes
from bench.box_motion import UNCHANGED, Motion, read_tracks, unchanged_share
from bench.box_passes import formats, measure
from elysium_core.prompt.tokenizer import TextTokenizer

STILL = np.tile([0.1, 0.2, 0.345, 0.678], (5, 1))
MOVED = np.array([[0.111, 0.222, 0.333, 0.444], [0.555, 0.666, 0.777, 0.888]] * 3)


@pytest.fixture(scope="module")
def forms():
    return formats()


@pytest.mark.parametrize(("name", "numbers"), [("paper, 0..100", 2), ("JSON, 0..1000", 3)])
def test_what_stands_still_takes_one_pass_and_each_wrong_number_another(forms, name, numbers):
    still = measure(name, forms[name], [STILL, STILL], 2)
    assert (still.drafted, still.told, still.in_one, still.frames) == (1, 1, 1, 4)
    assert still.naive == 2 * still.packed > 20
    moved = measure(name, forms[name], [MOVED[:2]], 1)
    # All digits are wrong. Those of a model that repeats its draft come one by one; else those of all numbers at once.
    assert moved.drafted == 4 * numbers + 1
    assert moved.told == numbers + 1
    assert moved.naive == moved.packed


def test_targets_together_take_as_many_passes_as_the_slowest(forms):
    form = forms["JSON, 0..1000"]
    apart, together = (measure("", form, [STILL, MOVED[:5]], targets) for targets in (1, 2))
    assert together.told == measure("", form, [MOVED[:5]], 1).told > apart.told
    assert together.naive == 2 * apart.naive


def test_drawn_motion_has_the_statistics_that_it_is_fitted_to():
    boxes = Motion().draw(280, 301)
    assert {key: unchanged_share(boxes, *key) for key in UNCHANGED} == pytest.approx(dict(UNCHANGED), abs=0.04)
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_tracks_of_recordings_are_their_true_boxes(tmp_path):
    (tmp_path / "a" / "frames").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (100, 50)).save(tmp_path / "a" / "frames" / f"{number}.png")
    (tmp_path / "a" / "gt.txt").write_text("10,10,20,20\nnan,nan,nan,nan\n90,10,20,20\n", encoding="utf-8")
    ((name, boxes),) = read_tracks(tmp_path)
    assert name == "a"
    assert boxes == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.6], [0.9, 0.2, 1.0, 0.6]]))


def test_the_command_counts_each_format_for_one_to_four_targets(bench):
    outcome = bench("box_passes", "--tracks", 4, "--frames", 2, "--json")
    assert outcome.code == 0
    assert [(line["format"][:5], line["targets"]) for line in outcome.lines] == [
        (name, targets) for name in ("paper", "JSON,", "JSON,") for targets in (1, 2, 4)
    ]
    assert all(line["told"] <= line["drafted"] <= line["packed"] <= line["naive"] for line in outcome.lines)


@pytest.mark.parametrize("words", ["the red mug", "player 10, number ٣ [4]"])
def test_other_digits_of_an_answer_cost_no_passes(forms, monkeypatch, words):
    """Digits of the key may share a token with letters, and labels may hold any digits."""
    pattern = Regex(r"bbox_2d|\p{N}|[^\p{N}]")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["bbox_2d"] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<end>"])
    text = TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>"), needs_bos=False)
    assert len(text.encode_answer("bbox_2d")) == 1
    monkeypatch.setattr(box_passes, "_WORDS", words)
    moved = measure("", replace(forms["JSON, 0..1000"], tokenizer=text), [MOVED[:2]], 1)
    assert (moved.told, moved.drafted) == (4, 13)
