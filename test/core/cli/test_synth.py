from __future__ import annotations

import dataclasses
import json

import pytest

from elysium_core.cli import synth
from elysium_core.data.synthetic import testset
from elysium_core.io.stop_request import StopRequest

SMALL = ("--clips", 2, "--frames", 2, "--side", 32, "--seed", 5)


@pytest.fixture(autouse=True)
def no_photos(monkeypatch):
    """Procedural backgrounds: what is installed on a machine changes nothing, and nothing is loaded."""
    monkeypatch.setattr("elysium_core.data.synthetic.clips.load_backgrounds", lambda *arguments, **options: [])


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_clips_are_written_as_asked(elysium, tmp_path):
    outcome = elysium("synth", "--out", tmp_path / "data", "--objects", 2, 2, "--gap", 0.1, 0.2, *SMALL, "--json")
    assert outcome.code == 0
    assert outcome.lines == [{"out": str(tmp_path / "data"), "split": "train", "clips": 2}]
    lines = lines_of(tmp_path / "data" / "ElysiumTrack-train.json")
    assert {line["vid"] for line in lines} == {"train-000000", "train-000001"}
    assert all(line["frame_size"] == [32, 32] and len(line["metadata"]["objects"]) == 2 for line in lines)
    assert (tmp_path / "data" / "frames" / "train-000001" / "0001.png").is_file()


def test_shards_are_written_when_asked(elysium, tmp_path):
    assert elysium("synth", "--out", tmp_path / "data", *SMALL, "--shards").code == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["synth.json", "train-000000.tar"]


def test_the_test_split_is_all_parts_of_the_frozen_set(elysium, tmp_path, monkeypatch):
    parts = tuple(dataclasses.replace(part, clips=1) for part in testset.PARTS)
    monkeypatch.setattr(testset, "PARTS", parts)
    outcome = elysium("synth", "--split", "test", "--out", tmp_path / "data")
    assert outcome.code == 0
    assert "5 clips" in outcome.out
    assert {path.name for path in (tmp_path / "data").glob("ElysiumTrack-*")} == {
        "ElysiumTrack-test.json",
        "ElysiumTrack-test-unseen.json",
        "ElysiumTrack-test-vanishing.json",
        "ElysiumTrack-test-words.json",
        "ElysiumTrack-test-small.json",
    }


def test_it_says_when_this_machine_draws_other_pixels(elysium, tmp_path, monkeypatch):
    monkeypatch.setattr(testset, "is_as_frozen", lambda part: part is not testset.UNSEEN)
    monkeypatch.setattr(synth, "_write", lambda *arguments: 0)
    outcome = elysium("synth", "--split", "test", "--out", tmp_path / "data")
    assert outcome.code == 0
    assert "the pixels of test-unseen differ" in outcome.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--split", "val"), "'val'"),
        (("--split", "test", "--seed", 3, "--frames", 2), "leave out --frames, --seed"),
        (("--objects", 3, 2), "objects need"),
        (("--gap", 3, 2), "a gap needs"),
        (("--clips", 0), "--clips"),
        (("--side", 16), "--side"),
    ],
)
def test_bad_settings_get_one_line(elysium, tmp_path, options, reason):
    outcome = elysium("synth", "--out", tmp_path / "data", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_folder_drawn_with_another_seed_is_refused(elysium, tmp_path):
    assert elysium("synth", "--out", tmp_path / "data", *SMALL).code == 0
    outcome = elysium("synth", "--out", tmp_path / "data", *SMALL, "--seed", 6)
    assert outcome.code == 2
    assert "choose another --out" in outcome.err


def test_ctrl_c_ends_between_two_clips(elysium, tmp_path, monkeypatch):
    monkeypatch.setattr(StopRequest, "__enter__", lambda self: (setattr(self, "is_set", True), self)[1])
    outcome = elysium("synth", "--out", tmp_path / "data", *SMALL)
    assert outcome.code == 130
    assert "stopped after 1 clips" in outcome.err
    assert (tmp_path / "data" / "frames" / "train-000000").is_dir()
    assert not (tmp_path / "data" / "ElysiumTrack-train.json").exists()
