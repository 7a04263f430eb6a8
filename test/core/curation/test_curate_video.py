from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.curation_world import CAPTIONS, KnowingDetector, KnowingTracker, PlainParser, truth_of
from elysium_core.curation.captioned_videos import CaptionedVideo, read_captions
from elysium_core.curation.curate_video import EveryNth, curate_safely
from elysium_core.curation.curation_rules import DISAGREES, DRIFT, NOT_FOUND, UNSURE, CurationRules, Trajectory
from elysium_core.curation.curation_tools import Tools
from elysium_core.curation.video_result import (
    BAD_LINE,
    BAD_VIDEO,
    FAILED,
    KEPT,
    LANGUAGE,
    NO_CAPTION,
    NO_CHUNK,
    NOTHING,
    TOO_LONG,
)
from elysium_core.geometry import Box
from elysium_core.io.image import read_image, write_image
from elysium_core.io.video import open_video

RULES = CurationRules()


@pytest.fixture
def tools(world) -> Tools:
    """Stand-ins without errors."""
    truth = truth_of(str(world))
    return Tools(PlainParser(), KnowingDetector(truth, 0.0), KnowingTracker(truth))


@pytest.fixture
def video(world) -> CaptionedVideo:
    return next(read_captions(world / CAPTIONS, world))


class Wayward:
    """A tracker that changes the truth."""

    name = "wayward"

    def __init__(self, truth, change):
        self._knowing, self._change = KnowingTracker(truth), change

    def follow(self, frames, boxes):
        return [self._change(track) for track in self._knowing.follow(frames, boxes)]


def leaping(track: Trajectory) -> Trajectory:
    away = [Box(0.9, 0.9, 1.0, 1.0) if box.center[0] < 0.5 else Box(0.0, 0.0, 0.1, 0.1) for box in track.boxes[3:]]
    return Trajectory((*track.boxes[:3], *away), track.scores)


def frozen_elsewhere(track: Trajectory) -> Trajectory:
    return Trajectory((Box(0.0, 0.0, 0.02, 0.02),) * len(track.boxes), track.scores)


def test_a_video_becomes_lines_in_the_layout_of_elysiumtrack(world, tools, video, tmp_path):
    result = curate_safely(video, tools, RULES, tmp_path)
    assert (result.outcome, result.frames) == (KEPT, 5)
    assert result.counts == {KEPT: len(result.lines), "abstract": 1}
    for line in result.lines:
        assert set(line) == {
            "source", "id", "vid", "metadata", "frames", "object_class", "box", "object_description", "frame_size",
        }  # fmt: skip
        assert line["frame_size"] == [48, 48]
        assert line["frames"][1] == f"frames/{video.vid}/000001.jpg"
        pictures = [read_image(tmp_path / name) for name in line["frames"]]
        truth = [read_image(path) for path in sorted(video.path.iterdir())]
        assert np.abs(np.int16(pictures) - np.int16(truth)).mean() < 8  # JPEG
        boxes = truth_of(str(world))
        assert len(line["box"]) == 5
        assert line["metadata"]["caption"] == video.caption
        assert any(line["box"][0] == pytest.approx(found, abs=1e-6) for row in boxes.values() for found in row.values())
    assert [sample.reason for sample in result.samples] == [KEPT] * len(result.lines)
    assert set(result.seconds) == {"parse", "detect", "track", "write"}


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"caption": ""}, NO_CAPTION),
        ({"problem": "line 2 is broken"}, BAD_LINE),
        ({"caption": "Perro en la playa con una pelota"}, LANGUAGE),
        ({"caption": "the time and the wind"}, NO_CHUNK),
        ({"caption": "a unicorn"}, NOTHING),
        ({"path": "none.mp4"}, BAD_VIDEO),
    ],
)
def test_what_cannot_be_used_is_named_and_leaves_nothing(tools, video, tmp_path, change, outcome):
    if "path" in change:
        change = {"path": tmp_path / change["path"]}
    result = curate_safely(dataclasses.replace(video, **change), tools, RULES, tmp_path)
    assert (result.outcome, result.lines) == (outcome, [])
    assert bool(result.detail) == (outcome in (BAD_VIDEO, BAD_LINE))
    assert list(tmp_path.rglob("*.jpg")) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda track: Trajectory(track.boxes, (*track.scores[:-1], 0.3)), UNSURE),
        (lambda track: Trajectory((*track.boxes[:-1], None), track.scores), UNSURE),
        (leaping, DRIFT),
        (frozen_elsewhere, DISAGREES["middle"]),
    ],
)
def test_a_bad_track_is_rejected_and_its_frames_are_removed(world, tools, video, tmp_path, change, reason):
    wayward = dataclasses.replace(tools, tracker=Wayward(truth_of(str(world)), change))
    result = curate_safely(video, wayward, RULES, tmp_path)
    assert result.outcome == NOTHING
    assert {name for name in result.counts if name != "abstract"} == {reason}
    assert {sample.reason for sample in result.samples} == {reason}
    assert list(tmp_path.rglob("*.jpg")) == []


@pytest.mark.parametrize(("blind", "place"), [(0, "first"), (2, "middle"), (4, "last")])
def test_a_chunk_must_be_found_in_all_three_places(world, tools, video, tmp_path, blind, place):
    blinded = read_image(sorted(video.path.iterdir())[blind])

    class Blind(KnowingDetector):
        def find(self, image, expressions):
            return [[]] * len(expressions) if (image == blinded).all() else super().find(image, expressions)

    result = curate_safely(
        video, dataclasses.replace(tools, detector=Blind(truth_of(str(world)), 0.0)), RULES, tmp_path
    )
    assert {name for name in result.counts if name != "abstract"} == {NOT_FOUND[place]}


def test_a_tool_that_fails_costs_one_video(tools, video, tmp_path):
    class Broken:
        name = "broken"

        def find(self, image, expressions):
            raise RuntimeError("CUDA out of memory")

    result = curate_safely(video, dataclasses.replace(tools, detector=Broken()), RULES, tmp_path)
    assert (result.outcome, result.detail) == (FAILED, "RuntimeError: CUDA out of memory")


def test_a_tracker_that_loses_frames_is_no_silent_shift(world, tools, video, tmp_path):
    short = Wayward(truth_of(str(world)), lambda track: Trajectory(track.boxes[1:], track.scores[1:]))
    result = curate_safely(video, dataclasses.replace(tools, tracker=short), RULES, tmp_path)
    assert (result.outcome, result.lines) == (BAD_VIDEO, [])


def test_an_output_folder_that_cannot_be_written_ends_the_run(tools, video, tmp_path):
    (tmp_path / "frames").write_text("a file")
    with pytest.raises(OSError, match="frames"):
        curate_safely(video, tools, RULES, tmp_path)


def test_long_and_short_videos_are_left_out(tools, video, tmp_path):
    long = curate_safely(video, tools, CurationRules(most_frames=4), tmp_path)
    assert (long.outcome, long.detail) == (TOO_LONG, "5 frames")
    short = curate_safely(video, tools, CurationRules(every=4), tmp_path)
    assert short.outcome == BAD_VIDEO
    assert "2 frames" in short.detail


def test_every_second_frame_is_used(tools, video, tmp_path):
    with open_video(video.path) as recording:
        used = EveryNth(recording, 2)
        assert used.claimed == 3
        assert [frame.index for frame in used] == [0, 1, 2]
    result = curate_safely(video, tools, CurationRules(every=2), tmp_path)
    assert result.frames == 3
    assert {len(line["box"]) for line in result.lines} == {3}


def test_a_damaged_picture_is_a_bad_video(tools, tmp_path):
    folder = tmp_path / "in"
    write_image(folder / "0.png", np.zeros((48, 48, 3), np.uint8))
    write_image(folder / "1.png", np.zeros((24, 48, 3), np.uint8))
    result = curate_safely(CaptionedVideo("x", folder, "a dog"), tools, RULES, tmp_path)
    assert result.outcome == BAD_VIDEO
