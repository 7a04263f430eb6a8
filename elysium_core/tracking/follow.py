"""The loop that runs a tracker over the frames of a recording, for ``elysium track`` and ``elysium eval``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from elysium_core.frames import Frame
from elysium_core.types import Tracker, TrackUpdate


@dataclass(frozen=True, slots=True)
class Step:
    """The updates of a tracker after one frame.

    Attributes:
        frame: The frame; None for the updates of ``flush`` at the end of the recording.
        updates: The updates; in clip mode they may be about earlier frames.
        seconds: Wall time of the tracker, without reading the frame [s].
    """

    frame: Frame | None
    updates: Sequence[TrackUpdate]
    seconds: float = 0.0


def follow_recording(
    tracker: Tracker, frames: Iterable[Frame], start: Callable[[Frame], object], first: int = 0
) -> Iterator[Step]:
    """Run a tracker over the frames of a recording.

    Args:
        tracker: A new tracker.
        frames: Frames in order of time.
        start: Adds the targets. It is called once, with the first frame, before the tracker gets that frame.
        first: Index of the first frame that the tracker gets. Earlier frames are yielded without updates: a resumed
            run has answered them already.

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
