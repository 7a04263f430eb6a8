"""A few frames out of a long video, without holding it in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from elysium_core.data.readers.frame_sources import FrameSource, VideoFrames
from elysium_core.errors import DataError
from elysium_core.frames import Frame


def sample_video(path: Path, count: int) -> list[Frame]:
    """Return ``count`` frames spread evenly from the first to the last of a video file (all if fewer).

    Raises:
        DataError: The video has no frame that can be read.
        VideoError: It is no video.
    """
    return sample_source(VideoFrames(path), count)


def sample_source(source: FrameSource, count: int) -> list[Frame]:
    """Return ``count`` frames spread evenly over a source, as :func:`elysium_core.frames.sample_evenly` does.

    The source is read once to count its frames if it does not know their number, and
    once to keep the wanted ones.

    Raises:
        DataError: It has no frame that can be read.
    """
    total = source.count if source.count is not None else sum(1 for _ in source)
    if total == 0:
        raise DataError(f"{source.name!r} holds no frame that can be read")
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    last = max(wanted)
    frames = []
    for position, frame in enumerate(source):
        if position in wanted:
            frames.append(frame)
        if position == last:
            break
    return frames
