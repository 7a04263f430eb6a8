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
            "Frame 1 shows an object inside {box}. Mark it in all frames.",
            "Follow what is in {box} of the first frame.",
            "Keep track of the thing at {box} and write down its coordinates frame by frame.",
            "Given the box {box} in Frame 1, give the box of the same object in every frame.",
            "The first box is {box}. Continue it over the whole clip.",
            "In Frame 1 something is at {box}. Where is it in each of the frames?",
            "Please follow the object marked by {box} in the first frame.",
            "Tell me the position of the object from {box} in every frame of this video.",
            "What are the coordinates, frame by frame, of the thing that is at {box} at the beginning?",
            "Start at {box} in Frame 1 and track the object to the last frame.",
            "An object was selected by {box} in Frame 1. List its boxes.",
            "Stay on the target, which is first seen at {box}, and report where it is.",
            "Locate the object of {box} again in each frame.",
            "Box {box} belongs to Frame 1. Which boxes belong to the frames that follow?",
            "Observe the object at {box} in Frame 1. How does its box change over the frames?",
            "Find the object that Frame 1 shows at {box} in all frames.",
            "Single object tracking: the object is at {box} in Frame 1.",
            "For every frame, where is the object that was at {box} in Frame 1?",
        ),
        RSOT: (
            PUBLISHED[RSOT],
            "Track {expression} through the video.",
            "Give the box of {expression} in each frame.",
            "Follow {expression} and say where it is in every frame.",
            "Where is {expression} in every frame?",
            "Find {expression} in all frames of the video.",
            "Locate {expression} frame by frame.",
            "Keep your eyes on {expression} and list its boxes.",
            "Which boxes does {expression} have in these frames?",
            "Mark {expression} in each frame.",
            "The target is {expression}. Track it.",
            "Follow {expression} from the first frame to the last.",
            "I am looking for {expression}. Where is it in each frame?",
            "Write down the coordinates of {expression} for every frame.",
            "Show me where {expression} goes.",
            "Please track {expression} over the whole clip.",
            "This video shows {expression}. Give the position in each frame.",
            "What are the coordinates of {expression} in the frames of this video?",
            "Detect {expression} and follow it through the frames.",
            "Point out {expression} in every single frame.",
            "Report the box around {expression}, frame by frame.",
            "Object to follow: {expression}. Give one box a frame.",
        ),
        REC: (
            PUBLISHED[REC],
            "Give the box of {expression}.",
            "Find {expression} in the image.",
            "Locate {expression}.",
            "What are the coordinates of {expression}?",
            "Draw a box around {expression}.",
            "Show me {expression}.",
            "In which box is {expression}?",
            "Point out {expression} in this picture.",
            "Please give the position of {expression}.",
        ),
        REG: (
            PUBLISHED[REG],
            "What is at {box}?",
            "Name the object in {box}.",
            "What does the box {box} show?",
            "Say what can be seen inside {box}.",
            "Give a short description of the thing at {box}.",
            "How would you call the object in {box}?",
            "Write an expression for what is in {box}.",
            "Which object do the coordinates {box} belong to?",
        ),
        VIDEO_REG: (
            PUBLISHED[VIDEO_REG],
            "What is the object that starts at {box}?",
            "Describe the object at {box} in Frame 1.",
            "Frame 1 shows something at {box}. What is it?",
            "Look at {box} in the first frame. Describe what is there.",
            "Use all frames to describe the object at {box} in Frame 1.",
            "Say in a few words what the thing at {box} in Frame 1 is.",
            "Name the object that Frame 1 shows inside {box}.",
            "The box in Frame 1 is {box}. Which object is it?",
            "How can the object at {box} of the first frame be described?",
            "In Frame 1 an object is marked by {box}. Tell me what it is.",
            "Give an expression that names the target at {box} in Frame 1.",
            "What does the video show at {box} in its first frame?",
            "Watch the object that is at {box} in Frame 1 and describe it.",
            "Which thing is at {box} when the video begins?",
            "Please describe the target, whose box in Frame 1 is {box}.",
            "Someone points at {box} in Frame 1. What do they mean?",
            "Find words for the object that is first seen at {box}.",
            "Write a short description of what moves or rests at {box} in Frame 1.",
            "Identify the object in {box} of Frame 1.",
            "Box {box} in Frame 1 belongs to which object?",
            "Describe what the box {box} encloses in the first frame of the video.",
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
