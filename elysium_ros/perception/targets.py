"""The targets that the node follows: one of them, and the list of all. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.labels import target_name
from elysium_core.types import Tracker, TrackState, TrackUpdate
from elysium_ros.perception.target_events import EndReason, Listener, TargetEvent
from elysium_ros.perception.types import FrameJob, Incoming, ObjectView


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A frame in which a target had a box."""

    image: Incoming
    frame: Frame
    box: Box


class Target:
    """One target. Used by the inference thread only.

    Attributes:
        label: Short name for display: the words, cut at a blank, or the id.
        last: Newest update; None before its first frame.
        sight: Newest frame in which it had a box, at first the one in which it was given; None if never.
        group_id: See below.

    Args:
        target_id: The node's id, >= 1, unique over all cameras and never reused.
        camera: Camera it is followed in.
        expression: The caller's words as they are used, may be empty.
        tracker: The tracker that follows it.
        tracker_id: Its id there.
        sight: The frame in which it was given by a box; None if it was given by words.
        group_id: The request for all objects of some names that it was found for; else 0.
    """

    def __init__(
        self,
        target_id: int,
        camera: str,
        expression: str,
        tracker: Tracker,
        tracker_id: str,
        sight: Sight | None,
        group_id: int = 0,
    ) -> None:
        self.id = target_id
        self.camera = camera
        self.expression = expression
        self.label = target_name(target_id, expression)
        self.tracker = tracker
        self.tracker_id = tracker_id
        self.last: TrackUpdate | None = None
        self.sight = sight
        self.group_id = group_id
        self._listeners: list[Listener] = []
        self._description, self._description_stamp_ns = "", 0
        # Whether it was found when that last changed; None before the first time.
        self._found: bool | None = None

    def take(self, update: TrackUpdate, job: FrameJob) -> ObjectView:
        """Keep an update of the tracker; return it as it is published."""
        self.last = replace(update, target_id=str(self.id))
        if update.described and not self._description:
            self.describe(update.described, update.stamp_ns if self.sight is None else self.sight.image.stamp_ns)
        if update.box is not None:
            self.sight = Sight(job.image, job.frame, update.box)
        # In most frames a target that was found is still there, which is no news.
        is_still_there = self._found and update.state is TrackState.TRACKED
        return self._view(self.last, "" if is_still_there else self._news(self.last))

    def search_again(self, tracker: Tracker, tracker_id: str) -> None:
        """Go on with another tracker, to which the words were added; what was seen before counts no more.

        Args:
            tracker: The tracker that follows it from now on.
            tracker_id: Its id there.
        """
        self.tracker, self.tracker_id = tracker, tracker_id
        self.last = self.sight = None
        if self._found:
            self._found = False

    def farewell(self, reason: EndReason, job: FrameJob) -> ObjectView:
        """Return the last view, with the state REMOVED, of a target that its tracker does not report itself."""
        last = self.last
        update = TrackUpdate(
            str(self.id), job.frame.index, None, 0.0, TrackState.REMOVED, job.image.stamp_ns, self.expression,
            last.age if last else 0, last.last_box if last else None, reason.value,
        )  # fmt: skip
        return self._view(update, self._news(update))

    def failed(self, frame: Frame, reason: str) -> TrackUpdate:
        """Return the update for a frame that the model failed on: it has no box."""
        last = self.last
        return TrackUpdate(
            self.tracker_id, frame.index, None, 0.0, TrackState.LOST, frame.stamp_ns, self.expression,
            last.age + 1 if last else 0, last.last_box if last else None, reason,
        )  # fmt: skip

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with each event from now on, in the inference thread, until it wants no more."""
        self._listeners.append(listener)

    def tell(self, job: FrameJob, view: ObjectView) -> None:
        """Pass what is published of a frame to all listeners; those that have heard enough leave."""
        if not self._listeners:
            return
        self._pass_on(TargetEvent(job.image, job.frame.width, job.frame.height, view))
        if view.update.state is TrackState.REMOVED:
            self.tell_end(EndReason.LOST if self.sight else EndReason.NOT_FOUND)

    def tell_end(self, reason: EndReason) -> None:
        """Pass the end of this target to all listeners."""
        self._pass_on(TargetEvent(end=reason))

    def _pass_on(self, event: TargetEvent) -> None:
        self._listeners = [listener for listener in self._listeners if listener(event)]

    def describe(self, text: str, stamp_ns: int) -> None:
        """Keep a text about the target, and the stamp of its picture [ns]."""
        self._description, self._description_stamp_ns = text, stamp_ns

    def _view(self, update: TrackUpdate, news: str) -> ObjectView:
        return ObjectView(self.id, update, self.label, self._description, self._description_stamp_ns, news)

    def _news(self, update: TrackUpdate) -> str:
        if update.state is TrackState.REMOVED:
            return f"ended, {update.reason}" if update.reason else "ended"
        if update.state is TrackState.TRACKED and not self._found:
            again = "" if self._found is None else " again"
            self._found = True
            words = f", followed by the words {update.described!r}" if update.described else ""
            return f"found{again}, score {update.score:.2f}{words}"
        if update.state is TrackState.LOST and self._found:
            self._found = False
            return f"lost, {update.reason}" if update.reason else "lost"
        return ""


class TargetList:
    """The targets of all cameras, and those that have ended since the last frame of their camera.

    Used by the inference thread only, unless it says otherwise.

    Args:
        targets: Targets by id.
        ended: Targets whose end was not published yet, by camera.
    """

    def __init__(
        self,
        targets: Mapping[int, Target] = MappingProxyType({}),
        ended: Mapping[str, list[tuple[Target, EndReason]]] = MappingProxyType({}),
    ) -> None:
        self._by_id = dict(targets)
        self._ended = dict(ended)
        self._changed = False

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def ids(self) -> list[int]:
        """Ids of the targets; may be read from any thread."""
        return list(self._by_id.copy())

    def get(self, target_id: int) -> Target | None:
        """Return the target with this id; None if it is not followed."""
        return self._by_id.get(target_id)

    def of(self, camera: str = "") -> list[Target]:
        """Return the targets of a camera, of all cameras for ``""``, by id."""
        return [target for _, target in sorted(self._by_id.items()) if not camera or target.camera == camera]

    def by_tracker_id(self, tracker: Tracker) -> dict[str, Target]:
        """Return the targets that a tracker follows, by its own ids."""
        return {target.tracker_id: target for target in self._by_id.values() if target.tracker is tracker}

    def add(self, target: Target) -> None:
        """Take a target in."""
        self._by_id[target.id] = target
        self._changed = True

    def note_change(self) -> None:
        """Have the next frame say that what is followed has changed."""
        self._changed = True

    def remove(self, target: Target) -> None:
        """Drop a target whose end its tracker has reported."""
        del self._by_id[target.id]
        self._changed = True

    def dismiss(self, target: Target, reason: EndReason) -> None:
        """End a target that no tracker follows any more; its end is published with the next frame of its camera."""
        self.remove(target)
        self._ended.setdefault(target.camera, []).append((target, reason))
        target.tell_end(reason)

    def end(self, target: Target, reason: EndReason) -> None:
        """End a target that its tracker still follows."""
        if target.tracker_id in target.tracker.target_ids:
            target.tracker.remove(target.tracker_id)
        self.dismiss(target, reason)

    def tell_end(self, reason: EndReason) -> None:
        """Tell the listeners of all targets that they have ended."""
        for target in self.of():
            target.tell_end(reason)

    def take_news(self, job: FrameJob) -> tuple[list[ObjectView], bool]:
        """Return the last views of what has ended in the camera of a frame, and whether what is followed has changed.

        Each end and each change is returned once.
        """
        ended = self._ended.pop(job.image.camera, None)
        changed, self._changed = self._changed, False
        return [target.farewell(reason, job) for target, reason in ended] if ended else [], changed

    def leave(self) -> TargetList:
        """Let go of all targets and return them in a list of their own; may be called from any thread."""
        targets, self._by_id = self._by_id, {}
        ended, self._ended = self._ended, {}
        return TargetList(targets, ended)
