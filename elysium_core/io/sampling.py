"""The few frames of a video that a model is shown. Frames are sampled here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording

MOST_FRAMES = 32
"""Frames a model is shown at once at most: the longest clip of the paper (section 4.3)."""

QUESTION_FRAMES = 16
"""Usual number of frames for a question about a video or a caption of it (paper, section 4.3)."""

_DESCRIPTION_FRAMES = 8

T = TypeVar("T")


def description_frames(clip_length: int) -> int:
    """Return the usual number of frames for a description of one object, 1..8.

    Args:
        clip_length: Frames of the clips that the model was trained with; it is shown no more than those.
    """
    return min(max(clip_length, 1), _DESCRIPTION_FRAMES)


def even_positions(total: int, count: int, keep: int | None = None) -> list[int]:
    """Return positions spread evenly from the first to the last, ascending.

    Args:
        total: Number of positions to choose among, >= 0.
        count: Most positions returned, >= 1.
        keep: A position that must be among them, 0..total-1: it replaces the one nearest to it.

    Example:
        >>> even_positions(12, 4), even_positions(12, 4, keep=5)
        ([0, 4, 7, 11], [0, 5, 7, 11])
    """
    positions = [int(position) for position in np.linspace(0, total - 1, min(count, total)).round()]
    if keep is not None and keep not in positions:
        nearest = min(range(len(positions)), key=lambda number: abs(positions[number] - keep))
        positions[nearest] = keep
    return positions


def sample_evenly(frames: Sequence[T], count: int, keep: int | None = None) -> list[T]:
    """Pick up to ``count`` frames at :func:`even_positions`; all of them if there are no more."""
    return [frames[position] for position in even_positions(len(frames), count, keep)]


class EvenSample(Generic[T]):
    """Keeps a bounded number of items from a stream of unknown length, evenly spread.

    Args:
        limit: Most items kept, >= 2.

    Attributes:
        kept: The items kept, in order; the first item always is.
    """

    def __init__(self, limit: int) -> None:
        self.kept: list[T] = []
        self._limit = limit
        self._stride = 1
        self._seen = 0

    def wants_next(self) -> bool:
        """Return whether the next item would be kept, so that others need not be made."""
        return self._seen % self._stride == 0

    def add(self, item: T) -> None:
        """Offer the next item."""
        if self.wants_next():
            if len(self.kept) == self._limit:
                self.kept = self.kept[::2]
                self._stride *= 2
            if self.wants_next():
                self.kept.append(item)
        self._seen += 1

    def skip(self) -> None:
        """Pass over an item for which :meth:`wants_next` is false."""
        self._seen += 1


def sample_recording(recording: Recording, count: int, keep: int | None = None) -> list[Frame]:
    """Return up to ``count`` frames spread evenly over a recording, in order of time.

    A camera has no end: its next ``count`` frames are returned, from number ``keep`` on.

    Args:
        recording: The source.
        count: Most frames returned, >= 1.
        keep: Index of a frame that must be among them.

    Raises:
        VideoError: No frame can be read, or frame ``keep`` cannot (``VIDEO_FRAME``).
    """
    if recording.is_live:
        first = keep or 0
        chosen = list(islice(recording, first, first + count))
        return _require(chosen, [frame.index for frame in chosen], recording.name, keep)
    return sample_stored(recording, recording.name, count, recording.frame_count, keep)


def sample_stored(
    frames: Iterable[Frame], name: str, count: int, claimed: int | None = None, keep: int | None = None
) -> list[Frame]:
    """Return up to ``count`` frames spread evenly over frames that can be read several times.

    Only the chosen frames are held in memory, however long the source is.

    Args:
        frames: The source. Each iteration starts at the first frame; a frame that cannot be decoded leaves a gap
            in the indices.
        name: Name of the source, for messages.
        count: Most frames returned, >= 1.
        claimed: Number of frames according to the source; None if it states none. A wrong one costs a second reading.
        keep: Index of a frame that must be among them.

    Raises:
        VideoError: No frame can be read, or frame ``keep`` cannot (``VIDEO_FRAME``).
    """
    expected = list(range(claimed)) if claimed else [frame.index for frame in frames]
    chosen, readable = _pick(frames, expected, count, keep)
    if readable != expected:
        chosen, readable = _pick(frames, readable, count, keep)
    return _require(chosen, readable, name, keep)


def _pick(
    frames: Iterable[Frame], expected: Sequence[int], count: int, keep: int | None
) -> tuple[list[Frame], list[int]]:
    """Return the wanted ones of the frames with the expected indices, and the indices that were really there."""
    place = expected.index(keep) if keep is not None and keep in expected else None
    wanted = set(sample_evenly(expected, count, place))
    chosen, readable = [], []
    for frame in frames:
        readable.append(frame.index)
        if frame.index in wanted:
            chosen.append(frame)
    return chosen, readable


def _require(chosen: list[Frame], readable: Sequence[int], name: str, keep: int | None) -> list[Frame]:
    if not chosen:
        raise VideoError(f"{name!r} holds no frame that can be read", code="VIDEO_EMPTY")
    if keep is not None and keep not in readable:
        raise VideoError(
            f"{name!r} has no frame {keep} that can be read; its frames are {readable[0]}..{readable[-1]}",
            code="VIDEO_FRAME",
        )
    return chosen
