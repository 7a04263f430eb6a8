"""The questions of every task: one for inference (as published), several for training.

``{expression}`` and ``{box}`` are filled by :func:`fill`, which never lets words of one
slot be read as another slot.
"""

from __future__ import annotations

import re
from types import MappingProxyType

SOT = "sot"
RSOT = "rsot"
REC = "rec"
REG = "reg"
VIDEO_REG = "video_reg"
CAPTION = "caption"

PUBLISHED = MappingProxyType(
    {
        SOT: (
            "This is a video showing an object with coordinates {box} in Frame 1. "
            "Please provide the detailed coordinates of the object in each frame."
        ),
        RSOT: "Please find one {expression} and provide the detailed coordinates in each frame.",
        REC: "Where is {expression}?",
        REG: "Describe this object in {box}.",
        VIDEO_REG: "This is a video showing an object with coordinates {box} in Frame 1. Please describe the object.",
        CAPTION: "Describe the video.",
    }
)
"""What the published evaluation asks; the default of inference."""

TRAINING = MappingProxyType(
    {
        SOT: (
            PUBLISHED[SOT],
            "The target is at {box} in Frame 1. Follow it through every frame.",
            "Track the object that starts at {box}.",
            "Where does the object at {box} in Frame 1 go? Give its box in each frame.",
        ),
        RSOT: (
            PUBLISHED[RSOT],
            "Track {expression} through the video.",
            "Give the box of {expression} in each frame.",
            "Follow {expression} and say where it is in every frame.",
        ),
        REC: (
            PUBLISHED[REC],
            "Give the box of {expression}.",
            "Find {expression} in the image.",
            "Locate {expression}.",
        ),
        REG: (
            PUBLISHED[REG],
            "What is at {box}?",
            "Name the object in {box}.",
        ),
        VIDEO_REG: (
            PUBLISHED[VIDEO_REG],
            "What is the object that starts at {box}?",
            "Describe the object at {box} in Frame 1.",
        ),
        CAPTION: (
            PUBLISHED[CAPTION],
            "What can be seen?",
            "List what is in the video.",
        ),
    }
)
"""Phrasings a task is trained with; the published one comes first."""

_SLOT = re.compile(r"\{(expression|box)\}")


def fill(template: str, *, expression: str = "", box: str = "") -> str:
    """Fill a question's slots in one pass, so that filled-in words are never looked at again.

    Args:
        template: A question of this module.
        expression: Cleaned words for ``{expression}``.
        box: Text of a box for ``{box}``.
    """
    values = {"expression": expression, "box": box}
    return _SLOT.sub(lambda slot: values[slot.group(1)], template)
