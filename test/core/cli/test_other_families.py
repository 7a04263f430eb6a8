"""The command line with a model of another family than Elysium's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(qwen_folders):
    return qwen_folders["qwen3_vl"]


@pytest.fixture
def pictures(tmp_path):
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(clip / f"{number:04}.png")
    return clip


def test_info_tells_what_it_is(elysium, folder):
    facts = elysium("info", folder, "--json").lines[0]
    assert (facts["family"], facts["follow"], facts["experimental"]) == ("qwen3_vl", "words", True)
    assert facts["visual_tokens_640x480"] == 300
    assert facts["kv_bytes_token_bfloat16"] == 2 * 2 * 4 * 2 * 16
    text = elysium("info", folder).out
    assert f"{facts['parameters']:,}" in text
    assert "thousandths" in text


def test_words_are_looked_for_in_a_picture(elysium, taught_qwen, lessons, tmp_path):
    Image.fromarray(lessons.picture(2)).save(tmp_path / "a.png")
    command = ("ground", tmp_path / "a.png", "-e", lessons.MUG, "-m", taught_qwen(), "--max-pixels", 16384, "--json")
    outcome = elysium(*command)
    assert outcome.code == 0
    assert outcome.lines[0]["box"] == pytest.approx(list(lessons.truth(2)[lessons.MUG]), abs=0.001)


def test_a_box_is_followed_by_the_words_that_are_told(elysium, taught_qwen, lessons, tmp_path):
    (tmp_path / "clip").mkdir()
    Image.fromarray(lessons.picture(0)).save(tmp_path / "clip" / "0.png")
    box = ",".join(map(str, lessons.truth(0)[lessons.MUG]))
    arguments = ("track", tmp_path / "clip", "--box", box, "-m", taught_qwen(), "--max-pixels", 16384)
    outcome = elysium(*arguments, "--out", tmp_path / "tracks.jsonl")
    assert outcome.code == 0
    written = (tmp_path / "tracks.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [line for line in map(json.loads, written) if "target" in line]
    assert (lines[0]["score"], len(lines)) == (1.0, 1)
    assert {line["described"] for line in lines} == {lessons.MUG}
    assert f"followed by the words {lessons.MUG!r}" in outcome.out + outcome.err
    assert "Loading weights" not in outcome.err


def test_a_mode_that_it_does_not_have_is_one_line(elysium, folder, pictures):
    outcome = elysium("track", pictures, "-e", "mug", "--mode", "clip", "-m", folder)
    assert (outcome.code, len(outcome.err.strip().splitlines()[-1:])) == (2, 1)
    assert "one frame at a time" in outcome.err
