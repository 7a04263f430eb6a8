"""The questions of every task: the published one for inference, and several for training.

:func:`fill` replaces the slots ``{expression}`` and ``{box}``.
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
"""The question of each task in the published evaluation, used for inference."""

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
"""The questions of each task for training; the published one comes first."""

_SLOT = re.compile(r"\{(expression|box)\}")


def fill(template: str, *, expression: str = "", box: str = "") -> str:
    """Fill the slots of a question. A slot inside the filled-in text is not replaced.

    Args:
        template: A question of this module.
        expression: Cleaned expression for ``{expression}``.
        box: Box text for ``{box}``.
    """
    values = {"expression": expression, "box": box}
    return _SLOT.sub(lambda slot: values[slot.group(1)], template)
