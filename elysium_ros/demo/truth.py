"""A recording whose objects are known: ``recording.mp4`` beside ``truth.json``.

``truth.json`` holds ``{"fps", "width", "height", "objects": [{"name", "expression", "boxes"}]}``; ``boxes`` has one
entry a frame, ``[x1, y1, x2, y2]`` normalised to the frame, or null where the object cannot be seen. The first
objects are the ones that the demo asks for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from elysium_core.errors import DataError, ElysiumError
from elysium_core.geometry import Box

VIDEO_NAME = "recording.mp4"
TRUTH_NAME = "truth.json"


@dataclass(frozen=True, slots=True)
class TruthObject:
    """One object of a recording.

    Attributes:
        name: For the reader.
        expression: Words that name this object and no other of the recording.
        boxes: Where it is in each frame, None where it cannot be seen.
    """

    name: str
    expression: str
    boxes: tuple[Box | None, ...]

    def box_at(self, frame_index: int) -> Box | None:
        """Return where the object is, None where it cannot be seen or the recording is over."""
        return self.boxes[frame_index] if 0 <= frame_index < len(self.boxes) else None


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about a recording.

    Attributes:
        frame_count: Number of frames.
        objects: The objects, those to be asked for first.
    """

    frame_count: int
    objects: tuple[TruthObject, ...]


def read_truth(path: str | PathLike[str]) -> Truth:
    """Read a truth file.

    Raises:
        DataError: It is missing, or not of the form that the module's text describes.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text("utf-8"))
        objects = tuple(_object(item) for item in data["objects"])
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ElysiumError) as error:
        raise DataError(f"{str(path)!r} is not a truth file: {type(error).__name__} {error}") from error
    counts = {len(item.boxes) for item in objects}
    if len(counts) != 1:
        raise DataError(f"{str(path)!r} needs objects with one box a frame each, not with {sorted(counts)} boxes")
    return Truth(counts.pop(), objects)


def _object(item: dict[str, Any]) -> TruthObject:
    boxes = tuple(None if box is None else Box(*box) for box in item["boxes"])
    return TruthObject(str(item["name"]), str(item["expression"]), boxes)
