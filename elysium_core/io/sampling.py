"""Picking the few frames of a recording that a model is shown."""

from __future__ import annotations

from itertools import islice

import numpy as np

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording


def sample_recording(recording: Recording, count: int, must_have: int | None = None) -> list[Frame]:
    """Return up to ``count`` frames, spread evenly from the first to the last of a recording.

    Only these frames are held in memory, however long the recording is. A camera
    has no end: its next ``count`` frames are taken.

    Args:
        recording: Where to read.
        count: Most frames returned, >= 1.
        must_have: Index of a frame that has to be among them, None for any.

    Returns:
        Frames in order of time.

    Raises:
        VideoError: There is no frame ``must_have``.
    """
    if recording.is_live:
        return _sample_camera(recording, count, must_have)
    total = recording.frame_count or _length(recording)
    frames, read = _pick(recording, total, count, must_have)
    if read != total:
        # The container was wrong about its length; now it is known.
        frames, _ = _pick(recording, read, count, must_have)
    if must_have is not None and all(frame.index != must_have for frame in frames):
        raise VideoError(
            f"{recording.name!r} has no frame {must_have} that can be read; its frames are 0..{read - 1}",
            code="VIDEO_FRAME",
        )
    return frames


def _pick(recording: Recording, total: int, count: int, must_have: int | None) -> tuple[list[Frame], int]:
    """Return the wanted frames of a recording of ``total`` frames, and its true length."""
    wanted = [int(index) for index in np.linspace(0, total - 1, min(count, total)).round()]
    if must_have is not None:
        nearest = min(range(len(wanted)), key=lambda position: abs(wanted[position] - must_have))
        wanted[nearest] = must_have
    frames, read = [], 0
    for frame in recording:
        read = frame.index + 1
        if frame.index in wanted:
            frames.append(frame)
    return frames, read


def _length(recording: Recording) -> int:
    return max((frame.index + 1 for frame in recording), default=0)


def _sample_camera(recording: Recording, count: int, must_have: int | None) -> list[Frame]:
    if must_have is not None and must_have >= count:
        raise VideoError(f"of the camera {recording.name} only frames 0..{count - 1} are taken, not {must_have}")
    return list(islice(recording, count))
