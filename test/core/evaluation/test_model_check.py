"""``elysium check`` tells what agrees and what does not."""

from __future__ import annotations

import json

import pytest

from elysium_core.api import Elysium
from elysium_core.evaluation.model_check import check_model


@pytest.fixture(scope="module")
def nano():
    return Elysium.from_pretrained("nano", device="cpu", vision_backend="torch")


def test_a_trained_model_passes(nano):
    result = check_model(nano, side_px=128, pictures=4)
    assert result.passed
    assert (result.reference, result.identical, result.answers, result.agreement) == ("", 4, 4, 1.0)
    assert result.pictures == "drawings"
    assert result.differences == ()
    assert result.asked == 8
    assert result.right >= 6
    assert 0 < result.passes_per_frame < result.plain_passes_per_frame
    assert result.frames_per_second > 0
    assert result.memory_bytes > 10_000_000
    assert "4 of 4 answers are those of transformers" in result.sentence
    json.dumps(result.as_json(), allow_nan=False)


@pytest.mark.slow
def test_a_model_of_photos_is_judged_on_photos():
    """It has a word for one of the two objects; the other is followed by its box."""
    result = check_model(Elysium.from_pretrained("real", device="cpu"), pictures=5)
    assert result.passed
    assert (result.pictures, result.asked, result.targets) == ("photos", 5, 2)
    assert result.right >= 4


@pytest.mark.slow
def test_an_answer_that_differs_fails_the_check(nano, monkeypatch):
    family = nano.runtime.family
    right = family.generate
    monkeypatch.setattr(family, "generate", lambda *asked: right(*asked)[:-1])
    result = check_model(nano, side_px=128, pictures=4)
    assert not result.passed
    assert result.identical == 0
    assert len(result.differences) == 3
    assert result.differences[0].engine != result.differences[0].generate
    assert result.sentence.endswith("FAILED")


@pytest.mark.slow
def test_random_weights_answer_as_in_transformers_but_have_no_boxes(qwen_models):
    result = check_model(qwen_models["qwen3_vl"], side_px=96, pictures=4)
    assert (result.identical, result.answers, result.boxes) == (4, 4, 0)
    assert (result.pictures, result.asked, result.passed) == ("photos", 8, False)


@pytest.mark.slow
def test_names_that_a_model_does_not_know_are_not_judged(closed_folder):
    result = check_model(Elysium.from_pretrained(closed_folder, device="cpu"), side_px=96, pictures=4)
    assert (result.identical, result.answers, result.asked) == (4, 4, 0)
    assert "boxes were not judged" in result.sentence
