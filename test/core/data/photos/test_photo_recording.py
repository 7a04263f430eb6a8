"""The demo's recording of photographs against what its pixels show."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from elysium_core.data.photos import photo_recording
from elysium_core.data.photos.photo_recording import HEIGHT, PRINTS, WIDTH, draw_photo_recording, write_photo_recording
from elysium_core.io.video import open_video

MAGENTA = (255, 0, 255)
PLACE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
"""Outline of the painted thing."""


@pytest.fixture
def painted(monkeypatch):
    """Every photo is grey with a magenta rectangle in its middle."""

    def read(path):
        photo = np.full((120, 160, 3), 90, np.uint8)
        photo[30:90, 40:120] = MAGENTA
        return photo

    monkeypatch.setattr(photo_recording, "read_image", read)
    still = photo_recording.CameraSettings(**dict.fromkeys(("gain", "offset", "tint", "noise"), 0.0))
    plain = {name: 0.0 for name in still.__dataclass_fields__ if name.endswith("_share")}
    monkeypatch.setattr(photo_recording, "_CAMERA", replace(still, **plain))
    return replace(PRINTS[3], outline=PLACE, swing=(40.0, 20.0), place=(320.0, 240.0))


def test_boxes_are_where_the_pixels_are(painted):
    recording = draw_photo_recording(frames=12, prints=[painted])
    assert recording.names == ("person",)
    for image, box, visible in zip(recording.images, recording.boxes[0], recording.visible[0], strict=True):
        ys, xs = np.nonzero(np.abs(image.astype(int) - MAGENTA).sum(-1) < 60)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(box * [WIDTH, HEIGHT, WIDTH, HEIGHT] - seen).max() < 3
        assert visible > 0.99


def test_what_hangs_in_front_covers(painted):
    alone, covered = (
        draw_photo_recording(frames=1, prints=prints)
        for prints in ([painted], [painted, replace(painted, name="", width=900.0)])
    )
    assert alone.visible[0, 0] > 0.99
    assert covered.visible[0, 0] == 0


def test_what_hangs_outside_is_not_seen(painted):
    recording = draw_photo_recording(frames=1, prints=[replace(painted, place=(-400.0, 240.0))])
    assert recording.visible[0, 0] == 0


def test_the_recording_is_written_with_its_truth(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_recording, "draw_photo_recording", lambda seed: draw_photo_recording(seed, frames=6))
    write_photo_recording(tmp_path, seed=3)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert [item["expression"] for item in truth["objects"]] == ["", "the person"]
    assert all(box is not None for item in truth["objects"] for box in item["boxes"])
    with open_video(tmp_path / "recording.mp4") as video:
        assert (video.width, video.height, len(list(video))) == (WIDTH, HEIGHT, 6)


def test_the_same_seed_gives_the_same_recording():
    first, again, other = (draw_photo_recording(seed, frames=2) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.boxes, other.boxes)
