"""Events of a target for those who wait for it: a view in a frame, or its end and the reason. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from elysium_ros.perception.types import Incoming, ObjectView


class EndReason(Enum):
    """Why a target is no longer followed; the value is the sentence for a person."""

    STOPPED = "it was stopped"
    REPLACED = "it was replaced by another target"
    LOST = "it stayed lost for longer than tracking.remove_after"
    NOT_FOUND = "it was never found"
    TIME_JUMP = "the stamps of the images went backwards"
    RESET = "the tracker was reset"
    INACTIVE = "the node was deactivated"
    MODEL_FAILED = "the model failed and was loaded again"


@dataclass(frozen=True, slots=True, eq=False)
class TargetEvent:
    """An event of one target: its view in one frame, or its end.

    Attributes:
        image: The image of that frame; None for an end.
        width: Width of that image [px].
        height: Height of that image [px].
        view: The target in that image; None for an end.
        end: Why there will be no more events; None while it is followed.
    """

    image: Incoming | None = None
    width: int = 0
    height: int = 0
    view: ObjectView | None = None
    end: EndReason | None = None


Listener = Callable[[TargetEvent], bool]
"""Takes an event; returns whether it wants more."""
