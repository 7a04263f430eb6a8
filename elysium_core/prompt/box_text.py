"""The text format of boxes, for training and inference.

A box is ``[x1,y1,x2,y2]``, each coordinate ``int(round(value * 100))`` of the frame's
width or height, so 0..100, without blanks (paper, section 3.1). The answer about a clip is
``Frame 1: [..], Frame 2: [..].``; the answer about one frame has no label.

Reading is strict: frames are matched by their label, never by order. Text that is not exactly
a box gives no box, and the reason is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from elysium_core.errors import BoxError
from elysium_core.geometry import Box

LEVELS = 100
"""Coordinates are multiples of 1/LEVELS of the width or height of the frame."""

# The pattern also matches damaged labels. A box with a damaged label must not count as unlabelled: it may belong to
# another frame.
_FRAME_BOX = re.compile(r"(Frame\s*\d+\s*(?::\s*)?)?\[([^\[\]]*)(\]?)")
_LABEL = re.compile(r"Frame\s+([0-9]{1,6})\s*:\s*\Z")
_FOUR_INTEGERS = re.compile(r"\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\Z")


def quantize(box: Box) -> tuple[int, int, int, int]:
    """The four integers 0..100 that stand for a box in text."""
    return round(box.x1 * LEVELS), round(box.y1 * LEVELS), round(box.x2 * LEVELS), round(box.y2 * LEVELS)


def format_box(box: Box) -> str:
    """Write one box.

    Example:
        >>> format_box(Box(0.231, 0.45, 0.458, 0.72))
        '[23,45,46,72]'
    """
    return "[" + ",".join(map(str, quantize(box))) + "]"


def format_track(boxes: Sequence[Box]) -> str:
    """Write the answer about one object in all frames of a clip.

    Example:
        >>> format_track([Box(0, 0, 0.5, 0.5), Box(0.1, 0, 0.6, 0.5)])
        'Frame 1: [0,0,50,50], Frame 2: [10,0,60,50].'
    """
    if len(boxes) == 1:
        return format_box(boxes[0]) + "."
    return ", ".join(f"Frame {number}: {format_box(box)}" for number, box in enumerate(boxes, 1)) + "."


def format_beginning(boxes: Sequence[Box]) -> str:
    """Write the beginning of :func:`format_track` for which the boxes are known.

    Example:
        >>> format_beginning([Box(0, 0, 0.5, 0.5)])
        'Frame 1: [0,0,50,50],'
    """
    return "".join(f"Frame {number}: {format_box(box)}, " for number, box in enumerate(boxes, 1)).rstrip()


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The boxes read from an answer.

    Attributes:
        boxes: One entry for each frame; None where the answer has no valid box for it.
        groups: For each frame, the number of the bracket its box was read from, counted from 0.
        problems: Number of problems by reason: ``missing``, ``malformed``, ``range``, ``empty``
            (no area or reversed), ``unclosed``, ``unlabelled``, ``repeated``, ``unknown_frame``.
        candidates: All valid boxes about the last frame with the numbers of their brackets, if the model may write
            several; ``boxes`` has the first of them.
    """

    boxes: tuple[Box | None, ...]
    groups: tuple[int | None, ...] = ()
    problems: Counter[str] = field(default_factory=Counter)
    candidates: tuple[tuple[Box, int], ...] = ()


def parse_answer(text: str, frame_count: int) -> ParsedAnswer:
    """Read the boxes of an answer about ``frame_count`` frames.

    Never raises, for any text. If a frame occurs twice, its first valid box counts.

    Args:
        text: The answer of the model.
        frame_count: Frames in the clip, >= 1. For one frame the label may be left out.
    """
    boxes: list[Box | None] = [None] * frame_count
    groups: list[int | None] = [None] * frame_count
    problems: Counter[str] = Counter()
    for group, match in enumerate(_FRAME_BOX.finditer(text)):
        label, body, closer = match.groups()
        position = _read_label(label, frame_count)
        if position is None:
            problems["unlabelled"] += 1
            continue
        if not 0 <= position < frame_count:
            problems["unknown_frame"] += 1
            continue
        if boxes[position] is not None:
            problems["repeated"] += 1
            continue
        box = _read_box(body, closer, problems)
        if box is not None:
            boxes[position], groups[position] = box, group
    problems["missing"] += sum(box is None for box in boxes)
    return ParsedAnswer(tuple(boxes), tuple(groups), +problems)


def _read_label(label: str | None, frame_count: int) -> int | None:
    """Position of the labelled frame, from 0; None if the label is damaged. A single frame needs no label."""
    if label is None:
        return 0 if frame_count == 1 else None
    match = _LABEL.match(label)
    return int(match[1]) - 1 if match else None


def _read_box(body: str, closer: str, problems: Counter[str]) -> Box | None:
    if not closer:
        problems["unclosed"] += 1
        return None
    match = _FOUR_INTEGERS.match(body)
    if match is None:
        problems["malformed"] += 1
        return None
    values = [int(value) for value in match.groups()]
    if max(values) > LEVELS:
        problems["range"] += 1
        return None
    try:
        return Box(*(value / LEVELS for value in values))
    except BoxError:
        problems["empty"] += 1
        return None
