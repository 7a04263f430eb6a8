"""Picking the few frames of a recording that a model is shown."""

from __future__ import annotations

from itertools import islice

import numpy as np

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording


def sample_recording(recording: Recording, count: int, first: int = 0) -> list[Frame]:
    """Return up to ``count`` frames, spread evenly from frame ``first`` to the last of a recording.

    Only these frames are held in memory, however long the recording is. A camera
    has no end: its next ``count`` frames are taken.

    Args:
        recording: Where to read.
        count: Most frames returned, >= 1.
        first: Index of the first frame returned, >= 0.

    Returns:
        Frames in order of time; the first has the index ``first`` unless that one is 0 and unreadable.

    Raises:
        VideoError: There is no frame ``first``.
    """
    if recording.is_live:
        return list(islice(recording, first, first + count))
    total = recording.frame_count or _length(recording)
    frames, read = _pick(recording, total, count, first)
    if read != total:
        # The container was wrong about its length; now it is known.
        frames, _ = _pick(recording, read, count, first)
    if first and (not frames or frames[0].index != first):
        raise VideoError(
            f"{recording.name!r} has no frame {first} that can be read; its frames are 0..{read - 1}",
            code="VIDEO_FRAME",
        )
    return frames


def _pick(recording: Recording, total: int, count: int, first: int) -> tuple[list[Frame], int]:
    """Return the wanted frames of a recording of ``total`` frames, and its true length."""
    available = max(1, total - first)
    wanted = {int(index) for index in np.linspace(first, max(first, total - 1), min(count, available)).round()}
    frames, read = [], 0
    for frame in recording:
        read = frame.index + 1
        if frame.index in wanted:
            frames.append(frame)
    return frames, read


def _length(recording: Recording) -> int:
    return max((frame.index + 1 for frame in recording), default=0)
