from __future__ import annotations

import numpy as np
import pytest

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.follow import follow_recording
from elysium_core.tracking.identity import IdentityTracker

BOX = Box(0.1, 0.1, 0.5, 0.5)


def frames(*indices):
    return [Frame(np.zeros((4, 4, 3), np.uint8), index=index) for index in indices]


class HoldingTracker(IdentityTracker):
    """Answers at the end alone, as in clip mode."""

    held = ()

    def step(self, frame):
        self.held = [*self.held, *super().step(frame)]
        return []

    def flush(self):
        return self.held


@pytest.fixture
def start():
    """Adds one target, and remembers with which frame."""

    class Start:
        def __init__(self):
            self.frames, self.tracker = [], IdentityTracker()

        def __call__(self, frame):
            self.frames.append(frame.index)
            self.tracker.add(box=BOX)

    return Start()


def test_a_target_is_added_with_the_first_frame_and_every_frame_is_a_step(start):
    steps = list(follow_recording(start.tracker, frames(0, 1, 4), start))
    assert start.frames == [0]
    assert [None if step.frame is None else step.frame.index for step in steps] == [0, 1, 4, None]
    assert [[update.frame_index for update in step.updates] for step in steps] == [[0], [1], [4], []]
    assert all(step.seconds >= 0 for step in steps)


def test_a_run_that_goes_on_shows_the_tracker_nothing_before_its_first_frame(start):
    steps = list(follow_recording(start.tracker, frames(0, 1, 2, 3), start, first=2))
    assert start.frames == [2]
    assert [len(step.updates) for step in steps] == [0, 0, 1, 1, 0]
    assert start.tracker.stats.frames == 2


def test_what_was_held_back_comes_at_the_end(start):
    start.tracker = HoldingTracker()
    steps = list(follow_recording(start.tracker, frames(0, 1), start))
    assert [[update.frame_index for update in step.updates] for step in steps] == [[], [], [0, 1]]


def test_without_frames_nothing_is_started(start):
    assert [step.frame for step in follow_recording(start.tracker, [], start)] == [None]
    assert start.frames == []
