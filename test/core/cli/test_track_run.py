"""One run of ``elysium track``: targets, answers that come late, resuming."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from elysium_core.cli import track_run
from elysium_core.cli.track_outputs import TrackOutputs
from elysium_core.cli.track_run import Targets, TrackRun
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.overlay import draw_tracks
from elysium_core.io.video import open_video
from elysium_core.tracking.identity import IdentityTracker
from elysium_core.types import TrackingConfig, TrackState, TrackUpdate


class RecordingTracker(IdentityTracker):
    """Remembers how its targets were started."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[tuple[str, Box | None]] = []

    def add(self, expression: str = "", box: Box | None = None) -> str:
        self.added.append((expression, box))
        return super().add(expression, box)


class Silence:
    """Progress and stop in one: nobody is told, nobody stops."""

    is_set = False

    def advance(self, note: str = "") -> None:
        pass


def test_resuming_starts_each_target_where_it_was(video):
    then, last, given = Box(0.1, 0.1, 0.2, 0.2), Box(0.3, 0.3, 0.4, 0.4), Box(0.5, 0.5, 0.6, 0.6)
    targets = Targets(["the mug", "the dog", "", "", "gone"], [None, None, given, given, None])
    states = [TrackState.TRACKED, TrackState.LOST, TrackState.LOST, TrackState.LOST, TrackState.REMOVED]
    done = [TrackUpdate("3", 0, last, 1.0, TrackState.TRACKED)]
    done += [
        TrackUpdate(str(number), 5, then if state is TrackState.TRACKED else None, 0.5, state)
        for number, state in enumerate(states, start=1)
    ]
    tracker = RecordingTracker()
    with open_video(video) as recording:
        run = TrackRun(recording, tracker, targets, done=done, limit=8)
        run.run(Silence(), Silence())
    assert tracker.added == [("the mug", then), ("the dog", None), ("", last), ("", given)]
    assert tracker.stats.frames == 3
    summary = list(run.summary())
    assert summary[0].startswith("1  the mug: 3 frames")
    assert summary[4].startswith("5  gone: 1 frames, 0 tracked, 0 uncertain, 0 lost, mean score -")


class LateTracker(IdentityTracker):
    """Answers like clip mode: four frames at once, the rest at the end; its box walks to the right."""

    def __init__(self) -> None:
        super().__init__(TrackingConfig(mode="clip"))
        self._held: list[TrackUpdate] = []

    def step(self, frame: Frame) -> list[TrackUpdate]:
        box = Box(frame.index / 20, 0.1, frame.index / 20 + 0.3, 0.9)
        self._held += [replace(update, box=box) for update in super().step(frame)]
        return self.flush() if len(self._held) == 4 else []

    def flush(self) -> list[TrackUpdate]:
        held, self._held = self._held, []
        return held


class Drawings:
    """Stands for a file of drawn frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def scale_for(self, width: int) -> float:
        return 1.0

    def write(self, frame: Frame) -> None:
        self.frames.append(frame)


@pytest.mark.parametrize("done", [0, 3, 4, 12])
def test_answers_that_come_late_are_written_and_drawn_with_their_own_frames(video, monkeypatch, done):
    written, drawings = [], Drawings()
    monkeypatch.setattr(track_run, "emit", written.append)
    whole = [
        TrackUpdate("1", index, Box(index / 20, 0.1, index / 20 + 0.3, 0.9), 1.0, TrackState.TRACKED)
        for index in range(12)
    ]
    with open_video(video) as recording:
        targets = Targets(["the mug"], [None])
        run = TrackRun(
            recording, LateTracker(), targets, done=whole[:done], outputs=TrackOutputs(drawing=drawings), emit_json=True
        )
        run.run(Silence(), Silence())
        undrawn = list(recording)
    assert [line["frame"] for line in written] == list(range(done, 12))
    assert next(run.summary()).startswith("1  the mug: 12 frames, 12 tracked")
    assert [frame.index for frame in drawings.frames] == list(range(12))
    for before, after in zip(undrawn, drawings.frames, strict=True):
        expected = draw_tracks(before.image, [replace(whole[before.index], expression="the mug")])
        assert np.array_equal(after.image, expected)


def test_frames_nobody_answers_do_not_pile_up(video, monkeypatch):
    monkeypatch.setattr(track_run, "_LONGEST_WAIT", 2)
    drawings, drawn_so_far = Drawings(), []
    tracker = LateTracker()
    tracker.step = lambda frame: drawn_so_far.append(len(drawings.frames)) or []
    with open_video(video) as recording:
        TrackRun(recording, tracker, Targets(["mug"], [None]), outputs=TrackOutputs(drawing=drawings)).run(
            Silence(), Silence()
        )
    assert len(drawings.frames) == 12
    assert drawn_so_far == [0, 0, 0, *range(1, 10)]


def test_ids_in_the_file_are_those_of_the_command_line_even_if_the_tracker_counts_otherwise(video, monkeypatch):
    written = []
    monkeypatch.setattr(track_run, "emit", written.append)
    tracker = IdentityTracker()
    tracker.remove(tracker.add(box=Box(0, 0, 1, 1)))
    tracker.reset()
    with open_video(video) as recording:
        TrackRun(recording, tracker, Targets(["a", "b"], [None, None]), emit_json=True, limit=1).run(
            Silence(), Silence()
        )
    assert [json.loads(json.dumps(line))["target"] for line in written] == ["1", "2"]
