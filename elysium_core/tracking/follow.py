"""Runs a tracker over the frames of a recording: the loop behind ``elysium track`` and ``elysium eval``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from elysium_core.frames import Frame
from elysium_core.types import Tracker, TrackUpdate


@dataclass(frozen=True, slots=True)
class Step:
    """What a tracker answered after one frame.

    Attributes:
        frame: The frame; None for what the tracker held back to the end of the recording (clip mode).
        updates: They may be about earlier frames.
        seconds: Wall time of the tracker, without reading the frame [s].
    """

    frame: Frame | None
    updates: Sequence[TrackUpdate]
    seconds: float = 0.0


def follow_recording(
    tracker: Tracker, frames: Iterable[Frame], start: Callable[[Frame], object], first: int = 0
) -> Iterator[Step]:
    """Show a tracker the frames of a recording, one by one.

    Args:
        tracker: A fresh tracker.
        frames: In order of time.
        start: Adds the targets. It is called once, with the first frame that the tracker is shown, just before that.
        first: Index of that frame. Earlier ones are yielded without updates: a run that goes on has answered them.

    Yields:
        One step for each frame, and one for the end of the recording.
    """
    started = False
    for frame in frames:
        if frame.index < first:
            yield Step(frame, ())
            continue
        begun_s = time.perf_counter()
        if not started:
            start(frame)
            started = True
        updates = tracker.step(frame)
        yield Step(frame, updates, time.perf_counter() - begun_s)
    begun_s = time.perf_counter()
    updates = tracker.flush()
    yield Step(None, updates, time.perf_counter() - begun_s)
