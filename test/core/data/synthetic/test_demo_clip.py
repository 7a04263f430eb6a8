from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from elysium_core.data.synthetic import demo_clip
from elysium_core.data.synthetic.demo_clip import RecordingConfig, draw_recording, write_demo_recording
from elysium_core.geometry import Box
from elysium_core.io.video import open_video

SMALL = RecordingConfig(frames=5, fps=10, width=128, height=96, objects=3, asked=2)
SEED = 7


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small recording on disk."""
    folder = tmp_path_factory.mktemp("recording")
    write_demo_recording(folder, SEED, SMALL)
    return folder


@pytest.fixture(scope="module")
def truth(written) -> dict:
    return json.loads((written / "truth.json").read_text())


def test_truth_and_video_agree_in_size_rate_and_length(written, truth):
    assert (truth["fps"], truth["width"], truth["height"]) == (10, 128, 96)
    with open_video(str(written / "recording.mp4")) as video:
        frames = list(video)
    assert len(frames) == 5
    assert all(frame.image.shape == (96, 128, 3) for frame in frames)
    assert [frame.stamp_ns for frame in frames] == [n * 100_000_000 for n in range(5)]
    assert all(len(thing["boxes"]) == 5 for thing in truth["objects"])


def test_every_object_is_told_with_words_of_its_own(truth):
    names = [thing["name"] for thing in truth["objects"]]
    assert len(set(names)) == 3
    assert [thing["expression"] for thing in truth["objects"]] == [f"the {name}" for name in names]


def test_boxes_are_those_of_the_clip_in_the_order_of_trust(truth):
    clip, order = draw_recording(SEED, SMALL)
    assert order[:2] == clip.targets[:2]
    assert sorted(order) == [0, 1, 2]
    for thing, n in zip(truth["objects"], order, strict=True):
        assert thing["name"] == clip.names[n]
        for box, expected, visible in zip(thing["boxes"], clip.boxes[n], clip.visible[n], strict=True):
            assert (box is None) == (visible < 0.1)
            if box is not None:
                np.testing.assert_allclose(list(Box(*box)), expected, atol=1e-5)


def test_what_is_asked_for_stays_in_sight(truth):
    assert all(box is not None for thing in truth["objects"][:2] for box in thing["boxes"])


def test_the_boxes_lie_where_the_video_shows_something_else_than_background(written, truth):
    with open_video(str(written / "recording.mp4")) as video:
        first, *_, last = (frame.image.astype(int) for frame in video)
    x1, y1, x2, y2 = (round(v) for v in Box(*truth["objects"][0]["boxes"][0]).to_px(128, 96))
    # The object moves, so its first place changes more than the picture does on the whole.
    change = np.abs(first - last).mean(axis=2)
    assert change[y1:y2, x1:x2].mean() > change.mean()


def test_an_object_that_can_hardly_be_seen_has_no_box(monkeypatch, tmp_path):
    clip, _ = draw_recording(SEED, SMALL)
    clip.visible[1, 3] = 0.05
    monkeypatch.setattr(demo_clip, "draw_recording", lambda seed, config: (clip, [1, 0, 2]))
    write_demo_recording(tmp_path, SEED, SMALL)
    boxes = json.loads((tmp_path / "truth.json").read_text())["objects"][0]["boxes"]
    assert [box is None for box in boxes] == [False, False, False, True, False]


def test_a_seed_gives_the_same_recording(tmp_path, written):
    write_demo_recording(tmp_path, SEED, SMALL)
    assert (tmp_path / "truth.json").read_bytes() == (written / "truth.json").read_bytes()
    assert json.loads((tmp_path / "truth.json").read_text()) != _truth_of(tmp_path / "other", SEED + 1)


def _truth_of(folder, seed) -> dict:
    write_demo_recording(folder, seed, SMALL)
    return json.loads((folder / "truth.json").read_text())


def test_backgrounds_are_those_no_training_sees(monkeypatch):
    asked = []
    load = demo_clip.load_backgrounds
    monkeypatch.setattr(demo_clip, "load_backgrounds", lambda split, **o: (asked.append(split), load(split, **o))[1])
    draw_recording(SEED, replace(SMALL, frames=2))
    assert set(asked) == {"test"}


def test_a_failed_write_leaves_no_truth(monkeypatch, tmp_path):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_clip, "_truth", fail)
    with pytest.raises(OSError, match="No space"):
        write_demo_recording(tmp_path, SEED, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["recording.mp4"]
