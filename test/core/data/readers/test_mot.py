"""Sequences in the layout of MOT17."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers.mot import read_mot
from elysium_core.errors import DataError

LINES = "1,1,11,21,30,40,1,1,1\n2,1,12,21,30,40,1,1,0.5\n1,2,1,1,5,5,0,1,1\n1,3,2,2,8,8,1,8,1\n1,4,3,3,9,9,1,3,1\n"


@pytest.fixture
def sequence(tmp_path):
    """Write a sequence: ``sequence(lines, info)``; returns the folder of all sequences."""

    def make(lines=LINES, info="[Sequence]\nname=S\nimDir=img1\n", frames=2):
        folder = tmp_path / "train" / "MOT17-00"
        (folder / "img1").mkdir(parents=True)
        (folder / "gt").mkdir()
        for number in range(1, frames + 1):
            Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(folder / "img1" / f"{number:06d}.jpg")
        (folder / "seqinfo.ini").write_text(info)
        (folder / "gt" / "gt.txt").write_text(lines)
        return tmp_path / "train"

    return make


def test_a_sequence_as_published(sequence):
    [recording] = read_mot(sequence())
    assert (recording.name, recording.names, recording.frames.count) == ("MOT17-00", {1: "person"}, 2)
    assert recording.frame.tolist() == [0, 1, 0, 0], "the car, class 3, is left out"
    assert recording.boxes_xywh_px[0].tolist() == [10, 20, 30, 40], "pixels are counted from 1"
    assert recording.counts.tolist() == [True, True, False, False], "flag 0 and a distractor do not count"
    assert recording.object_id.tolist() == [1, 1, 2, 3]


def test_own_classes_have_names(sequence):
    info = "[Sequence]\nimDir=img1\n[Classes]\n1=dog\n3=potted plant\n"
    [recording] = read_mot(sequence(info=info))
    assert recording.names == {1: "dog", 3: "potted plant"}
    assert recording.counts.tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("1,1,11,21,30\n", "gt.txt:1"),
        ("1,1,11,21,30,40,1,1,1\n1,1,11,21,thirty,40,1,1,1\n", "gt.txt:2"),
        ("1,1,11,21,0,40,1,1,1\n", "gt.txt:1"),
        ("3,1,11,21,30,40,1,1,1\n", "1..2"),
    ],
)
def test_damage_is_named(sequence, lines, named):
    with pytest.raises(DataError) as caught:
        list(read_mot(sequence(lines)))
    assert named in str(caught.value)


def test_a_folder_without_sequences_says_what_was_expected(tmp_path):
    with pytest.raises(DataError) as caught:
        list(read_mot(tmp_path))
    assert "gt/gt.txt" in str(caught.value)
