"""What became of one video of a curation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KEPT, NOTHING, BAD_LINE, NO_CAPTION, NO_CHUNK, LANGUAGE, BAD_VIDEO, TOO_LONG, FAILED = (
    "kept",
    "nothing kept",
    "bad line",
    "no caption",
    "no chunk",
    "other language",
    "bad video",
    "too long",
    "failed",
)
OUTCOMES = (KEPT, NOTHING, BAD_LINE, NO_CAPTION, NO_CHUNK, LANGUAGE, BAD_VIDEO, TOO_LONG, FAILED)
"""What can become of a video; the last one is an error of a detector or tracker."""


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """A picture of one decision, for contact sheets.

    Attributes:
        reason: The gate that rejected, or ``kept``.
        expression: The chunk.
        jpeg: The first, middle and last frame side by side with their boxes.
    """

    reason: str
    expression: str
    jpeg: bytes


@dataclass(slots=True)
class VideoResult:
    """What became of one video.

    Attributes:
        vid: Its id.
        outcome: One of :data:`OUTCOMES`.
        detail: The error; empty if there was none.
        lines: The kept tracks in the layout of ElysiumTrack.
        counts: Noun chunks by what became of them: a reason of the rules, or ``kept``.
        lowest_scores: Trajectories by the lowest score of the tracker, rounded down to tenths: ``0.7``.
        seconds: Wall time by stage: parse, detect, track, write [s].
        frames: Frames that were used.
        samples: Pictures of decisions.
    """

    vid: str
    outcome: str = NOTHING
    detail: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lowest_scores: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    samples: list[SamplePicture] = field(default_factory=list)
