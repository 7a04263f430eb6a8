"""Picking the few frames of a recording that a model is shown."""

from __future__ import annotations

from elysium_core.errors import VideoError
from elysium_core.frames import Frame, sample_evenly
from elysium_core.io.frame_writer import EvenSample
from elysium_core.io.recording import Recording

# Frames held per frame asked for while the length of the recording is still unknown.
_HELD_PER_FRAME = 4


def sample_recording(recording: Recording, count: int, must_have: int | None = None) -> list[Frame]:
    """Read a recording to its end and return up to ``count`` frames, spread evenly over it.

    Memory stays bounded however long the recording is. A camera has no end: its
    first ``count`` frames are taken.

    Args:
        recording: Where to read.
        count: Most frames returned, >= 1.
        must_have: Index of a frame that has to be among them, None for any.

    Returns:
        Frames in order of time.

    Raises:
        VideoError: There is no frame ``must_have``.
    """
    sample: EvenSample[Frame] = EvenSample(max(2, _HELD_PER_FRAME * count))
    wanted: Frame | None = None
    last: Frame | None = None
    for number, frame in enumerate(recording, start=1):
        sample.add(frame)
        last = frame
        if frame.index == must_have:
            wanted = frame
        if recording.is_live and number >= count and (must_have is None or frame.index >= must_have):
            break
    if must_have is not None and wanted is None:
        end = f"its last is {last.index}" if last else "it has none"
        raise VideoError(f"{recording.name!r} has no frame {must_have} that can be read; {end}", code="VIDEO_FRAME")
    frames = sample_evenly(sample.kept, count)
    return frames if wanted is None else _with_frame(frames, wanted)


def _with_frame(frames: list[Frame], wanted: Frame) -> list[Frame]:
    nearest = min(range(len(frames)), key=lambda position: abs(frames[position].index - wanted.index))
    return [*frames[:nearest], wanted, *frames[nearest + 1 :]]
