from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.altered_frames import ALTERATIONS, PAINTED_OUT, PORTRAIT, exposed, painted_out, saturated
from bench.following import figures_of, follow_all
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import TrackerStats, TrackState, TrackUpdate

FRAMES, WIDTH, HEIGHT, SIDE = 40, 64, 48, 12
RED, GREEN = (200, 30, 30), (30, 90, 30)


class Pictures:
    """A red square walks to the right on green."""

    name, count = "walk", FRAMES

    def __iter__(self):
        for index in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), GREEN, np.uint8)
            image[20 : 20 + SIDE, index : index + SIDE] = RED
            yield Frame(image, index=index)


def walk():
    boxes = np.asarray([[index, 20, SIDE, SIDE] for index in range(FRAMES)], dtype=np.float64)
    return LabelledRecording("walk", Pictures(), boxes, Path("walk/gt.txt"), expression="the square")


class RedTracker:
    """Knows where it is red; where it is not, it says so after some frames."""

    def __init__(self, patience=0):
        self.stats, self._misses, self._patience, self._last = TrackerStats(), 0, patience, None

    def add(self, expression="", box=None):
        self._last = box
        return "1"

    def step(self, frame):
        rows, columns = np.nonzero(frame.image[..., 0] > frame.image[..., 1].astype(int) + 15)
        if len(rows):
            self._misses = 0
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            self._last = Box.from_px(*map(float, edges), frame.width, frame.height)
        else:
            self._misses += 1
        state = TrackState.TRACKED if self._misses <= self._patience else TrackState.UNCERTAIN
        return [TrackUpdate("1", frame.index, self._last, 0.9 if state is TrackState.TRACKED else 0.1, state)]

    def flush(self):
        return []


def figures(alteration, tracker=RedTracker):
    return figures_of(follow_all([walk()], alteration, tracker))


def test_a_box_that_is_followed_well_scores_full_and_its_scores_are_a_tenth_too_low():
    found = figures("as it is")
    assert found.auc == pytest.approx(20 / 21)
    assert (found.tracked, found.elsewhere) == (1, 0)
    assert found.calibration_error == pytest.approx(0.1)
    assert found.doubted is None


def test_in_portrait_the_true_boxes_move_with_the_picture():
    altered = ALTERATIONS[PORTRAIT](walk())
    frame = next(iter(altered.frames))
    assert frame.height == pytest.approx(frame.width * 4 / 3, abs=1)
    x, y, w, h = altered.boxes_xywh_px[0].astype(int)
    assert (frame.image[y : y + h, x : x + w] == RED).all()
    assert figures(PORTRAIT).auc == pytest.approx(20 / 21)


def test_a_target_that_was_painted_out_is_gone_and_the_doubt_about_it_is_counted():
    altered = ALTERATIONS[PAINTED_OUT](walk())
    assert [bool((frame.image[..., 0] > 100).any()) for frame in altered.frames] == [True] * 20 + [False] * 20
    quick, slow = figures(PAINTED_OUT), figures(PAINTED_OUT, lambda: RedTracker(patience=14))
    assert (quick.doubted, quick.on_something_else, quick.auc) == (1, 0, None)
    assert (slow.doubted, slow.on_something_else) == (0, pytest.approx(4 / 10))
    assert (quick.tracked, quick.elsewhere) == (1, 0)


def test_frames_called_tracked_with_a_box_elsewhere_are_counted():
    class Stuck(RedTracker):
        def step(self, frame):
            (update,) = super().step(frame)
            return [replace(update, box=Box(0.0, 0.0, 0.1, 0.1))]

    assert figures("as it is", Stuck).elsewhere == 1


def test_light_and_colour_are_changed_and_the_middle_of_the_range_is_kept():
    image = np.full((2, 2, 3), (200, 100, 50), np.uint8)
    assert (exposed(image, 1.0) == image).all()
    assert (exposed(image, 0.3) < image).all()
    assert exposed(image, 8.0)[0, 0, 0] == 255
    assert (saturated(image, 1.0) == image).all()
    assert np.ptp(saturated(image, 0.0)[0, 0]) == 0


def test_a_box_outside_or_without_numbers_paints_nothing():
    image = np.full((20, 20, 3), 7, np.uint8)
    for box in ([np.nan] * 4, [100, 100, 5, 5]):
        assert painted_out(image, np.asarray(box, dtype=np.float64)) is image


def test_nothing_to_follow_is_said():
    with pytest.raises(ConfigError):
        figures_of([])
