"""What the node knows of each target it follows, and who wants to hear of it. Knows no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import Tracker, TrackState, TrackUpdate
from elysium_ros.perception.mailbox import Incoming


class EndReason(Enum):
    """Why a target is no longer followed; the value is the sentence for a person."""

    STOPPED = "it was stopped"
    REPLACED = "it was replaced by another target"
    LOST = "it stayed lost for longer than tracking.remove_after"
    NOT_FOUND = "it was never found"
    TIME_JUMP = "the stamps of the images went backwards"
    RESET = "the tracker was reset"
    INACTIVE = "the node was deactivated"


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One target in one frame, as it is published.

    Attributes:
        update: What the tracker said; ``target_id`` is the node's id of the target, not the tracker's.
        description: Latest text about the target, may be empty.
        description_stamp_ns: Stamp of the picture that text is about [ns].
    """

    update: TrackUpdate
    description: str = ""
    description_stamp_ns: int = 0

    @property
    def id(self) -> int:
        """The node's id of the target, >= 1."""
        return int(self.update.target_id)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A frame in which a target had a box."""

    image: Incoming
    frame: Frame
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class TargetEvent:
    """What a listener hears: the target in one frame, or its end.

    Attributes:
        image: The image it speaks about; None for an end between two frames.
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


@dataclass(slots=True, eq=False)
class Target:
    """One target. Used by the inference thread only.

    Attributes:
        id: The node's id, >= 1, unique over all cameras and never reused.
        camera: Camera it is followed in.
        expression: The caller's words as they are used, may be empty.
        tracker: Who follows it.
        tracker_id: Its id there.
        last: Newest update.
        sight: Newest frame in which it had a box, at first the one in which it was given; None if never.
        description: Latest text about it.
        description_stamp_ns: Stamp of the picture that text is about [ns].
        described_at_s: When that was, on the steady clock [s].
        listeners: Who hears of it; called in the inference thread, so they must be quick.
    """

    id: int
    camera: str
    expression: str
    tracker: Tracker
    tracker_id: str
    last: TrackUpdate | None = None
    sight: Sight | None = None
    description: str = ""
    description_stamp_ns: int = 0
    described_at_s: float = float("-inf")
    listeners: list[Listener] = field(default_factory=list)

    def view(self, update: TrackUpdate) -> ObjectView:
        """Return an update of this target as it is published."""
        return ObjectView(update, self.description, self.description_stamp_ns)

    def farewell(self, reason: EndReason, index: int, stamp_ns: int) -> TrackUpdate:
        """Return the REMOVED update for a target that its tracker does not report itself.

        Args:
            reason: Why it ended.
            index: ``Frame.index`` of the frame in which this is published.
            stamp_ns: Stamp of that frame [ns].
        """
        last = self.last
        return TrackUpdate(
            str(self.id), index, None, 0.0, TrackState.REMOVED, stamp_ns, self.expression,
            last.age if last else 0, last.last_box if last else None, reason.value,
        )  # fmt: skip

    def failed(self, frame: Frame, reason: str) -> TrackUpdate:
        """Return the update for a frame that the model failed on: no box, whatever was known before."""
        last = self.last
        return TrackUpdate(
            self.tracker_id, frame.index, None, 0.0, TrackState.LOST, frame.stamp_ns, self.expression,
            last.age + 1 if last else 0, last.last_box if last else None, reason,
        )  # fmt: skip

    def tell(self, event: TargetEvent) -> None:
        """Pass an event to all listeners; those that have heard enough leave."""
        self.listeners = [listener for listener in self.listeners if listener(event)]
