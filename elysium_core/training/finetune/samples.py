"""What a data set offers for training, whatever its layout: frames, and what can be asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.frame_sources import FrameSource, PictureFrames, VideoFrames, ZipFrames
from elysium_core.errors import DataError, ElysiumError
from elysium_core.geometry import Box
from elysium_core.io.sampling import sample_recording
from elysium_core.io.video import open_video


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """An object of a still.

    Attributes:
        expression: Words that name it.
        box: Where it is.
    """

    expression: str
    box: Box


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a data set; its pictures are not read yet.

    Attributes:
        place: File and line, for messages.
        frames: The pictures; None for a conversation without any.
        rounds: Questions and answers of one conversation, in order.
        objects: Objects of a still.
        track: Box of one object in each frame, None where it is absent; empty if no object is followed.
        expression: Words that name the tracked object; empty if there are none.
    """

    place: str
    frames: FrameSource | None
    rounds: tuple[tuple[str, str], ...] = ()
    objects: tuple[LabelledObject, ...] = ()
    track: tuple[Box | None, ...] = ()
    expression: str = ""


def choose_frames(
    rng: np.random.Generator, available: Sequence[int], count: tuple[int, int], interval: tuple[int, int]
) -> list[int]:
    """Draw frames at one random distance, from a random start (paper, section 4.2).

    Args:
        rng: Where from.
        available: Indices to choose among, ascending, at least one.
        count: Fewest and most frames; a short video gives fewer.
        interval: Shortest and longest distance, in entries of ``available``.

    Returns:
        Chosen indices, ascending.
    """
    wanted = min(int(rng.integers(count[0], count[1] + 1)), len(available))
    longest = (len(available) - 1) // max(1, wanted - 1)
    high = max(1, min(interval[1], longest))
    step = int(rng.integers(min(interval[0], high), high + 1))
    start = int(rng.integers(0, len(available) - step * (wanted - 1)))
    return [available[start + step * place] for place in range(wanted)]


def read_frames(source: FrameSource, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Read some frames of a source; of a folder or a zip file, these alone.

    Raises:
        DataError: One of them is missing or damaged.
    """
    if isinstance(source, (PictureFrames, ZipFrames)):
        chosen = replace(source, names=[source.names[index] for index in indices])
        return [frame.image for frame in chosen]
    wanted, found = set(indices), {}
    for frame in source:
        if frame.index in wanted:
            found[frame.index] = frame.image
        if frame.index >= max(wanted):
            break
    missing = sorted(wanted - set(found))
    if missing:
        raise DataError(f"{source.name!r} has no frame {missing[0]} that can be read")
    return [found[index] for index in indices]


def read_evenly(source: FrameSource, count: int) -> list[NDArray[np.uint8]]:
    """Read up to ``count`` frames spread over the whole source, as questions about a video are asked.

    Raises:
        DataError: No frame can be read.
    """
    if isinstance(source, VideoFrames):
        try:
            with open_video(source.path) as recording:
                return [frame.image for frame in sample_recording(recording, count)]
        except ElysiumError as error:
            raise DataError(str(error)) from error
    total = source.count or 0
    places = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    return read_frames(source, places.tolist())
