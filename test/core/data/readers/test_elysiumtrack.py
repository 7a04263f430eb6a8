"""ElysiumTrack: streamed lines, boxes in 0..1, frames unpacked or in a zip; every bad line by number."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.errors import DataError


def line(**changes):
    item = {
        "source": "webvid",
        "id": "7",
        "vid": "1025",
        "metadata": {},
        "frames": ["frames/1025/000000.jpg", "frames/1025/000001.jpg"],
        "object_class": "dog",
        "box": [[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]],
        "object_description": "a running dog in the snow",
        "frame_size": [32, 24],
    }
    return json.dumps(item | changes) + "\n"


@pytest.fixture
def root(tmp_path, pictures):
    pictures("frames/1025", ["000000.jpg", "000001.jpg"])
    return tmp_path


def test_a_line_becomes_a_recording(root, write, grays):
    write("ElysiumTrack-val500.json", line())
    (recording,) = read_elysiumtrack(root)
    assert recording.name == "7"
    assert recording.boxes_xywh_px[0].tolist() == [8, 12, 16, 12]
    assert np.isnan(recording.boxes_xywh_px[1]).all(), "a box without area is an absent target"
    assert recording.expression == "a running dog in the snow"
    assert recording.category == "dog"
    assert recording.frame_size == (32, 24)
    assert grays(recording.frames) == [0, 1]


def test_the_class_names_a_target_without_description(root, write):
    write("ElysiumTrack-val500.json", line(object_description=""))
    assert next(read_elysiumtrack(root)).expression == "dog"


def test_targets_of_one_video_get_different_names(root, write):
    write("ElysiumTrack-val500.json", line() + line() + line() + line(id=None, vid=None))
    assert [r.name for r in read_elysiumtrack(root)] == ["7", "1025", "line-3", "line-4"]


def test_the_split_picks_the_file_and_lines_are_streamed(root, write):
    write("ElysiumTrack-1M.json", line() + "damaged\n")
    recordings = read_elysiumtrack(root, "1M")
    assert next(recordings).name == "7"
    with pytest.raises(DataError, match="line 2 of"):
        next(recordings)
    with pytest.raises(DataError, match=r"'ElysiumTrack-val500\.json'"):
        next(read_elysiumtrack(root))


def test_frames_in_a_zip_are_read_without_unpacking(tmp_path, write, pictures, grays):
    folder = pictures("elsewhere", ["000000.jpg", "000001.jpg"])
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data/frames.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"frames/1025/{path.name}")
    write("data/ElysiumTrack-val500.json", line())
    (recording,) = read_elysiumtrack(tmp_path / "data")
    assert grays(recording.frames) == [0, 1]
    write("data/ElysiumTrack-val500.json", line(frames=["frames/1025/000000.jpg", "frames/1025/9.jpg"]))
    with pytest.raises(DataError, match=r"'frames/1025/9\.jpg'.*frames\.zip'"):
        list(read_elysiumtrack(tmp_path / "data"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"box": [[0, 0, 1, 1]]}, "lists 'frames' and 'box' of one length"),
        ({"frames": [], "box": []}, "at least 1"),
        ({"box": [[0, 0, 1, 1], [0.5, 0, 0.1, 1]]}, "reversed box .* at frame 1"),
        ({"box": [[0, 0, 1, 1], [0, 0, 1]]}, "at frame 1; it needs four finite numbers"),
        ({"box": [[0, 0, 1, float("nan")], [0, 0, 1, 1]]}, "at frame 0; it needs four finite numbers"),
        ({"frame_size": [0, 24]}, "frame_size"),
        ({"frame_size": None}, "frame_size"),
        ({"frames": ["/etc/passwd", "a"]}, "a path below the data folder is needed"),
        ({"frames": ["../x.jpg", "a"]}, "a path below the data folder is needed"),
        ({"frames": ["frames/1025/000000.jpg", "frames/1025/9.jpg"]}, "1 of 2 frames are missing"),
        ({"frames": ["frames/none/0.jpg", "frames/none/1.jpg"]}, r"unpack packaged_results/group_\*\.tar\.gz"),
    ],
)
def test_a_bad_line_is_refused(root, write, changes, complaint):
    write("ElysiumTrack-val500.json", line() + line(**changes))
    with pytest.raises(DataError, match=complaint):
        list(read_elysiumtrack(root))
