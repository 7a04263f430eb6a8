"""The targets that pages have asked for, each with the tracker that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from elysium_core.errors import TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import Tracker, TrackState, TrackUpdate
from elysium_core.viewer.protocol import TargetView


@dataclass(slots=True)
class _Followed:
    id: str
    tracker: Tracker
    tracker_id: str
    text: str = ""
    last: TrackUpdate | None = None


class FollowedTargets:
    """Targets of one stream. Only the thread that uses the model calls it.

    A tracker takes a box in its newest frame. A box that was drawn on an older one gets a tracker of its own, which is
    shown that frame first; from then on all trackers see the same frames.

    Args:
        make_tracker: Makes a tracker.
    """

    def __init__(self, make_tracker: Callable[[], Tracker]) -> None:
        self._make_tracker = make_tracker
        self._first = make_tracker()
        self._targets: dict[str, _Followed] = {}
        self._ids = count(1)
        self._newest: Frame | None = None

    @property
    def trackers(self) -> Iterator[Tracker]:
        """The trackers in use, each once; the first is always one of them."""
        yield self._first
        yield from {id(t.tracker): t.tracker for t in self._targets.values() if t.tracker is not self._first}.values()

    def add(self, expression: str, box: Box | None, drawn_on: Frame | None) -> str:
        """Start a target and return its id.

        Args:
            expression: Words, cleaned; may be empty.
            box: Its box in ``drawn_on``.
            drawn_on: A frame; None = the newest.

        Raises:
            TargetError: There are too many targets, or neither words nor a box.
            ExpressionError: The words cannot be used.
        """
        limit = self._first.config.max_targets
        if len(self._targets) >= limit:
            raise TargetError(f"there are already {limit} targets; stop one first", code="TARGET_LIMIT")
        tracker = self._first
        if box is not None and drawn_on is not None and drawn_on is not self._newest:
            tracker = self._make_tracker()
            tracker.step(drawn_on)
        target = _Followed(str(next(self._ids)), tracker, tracker.add(expression, box))
        self._targets[target.id] = target
        return target.id

    def remove(self, target_id: str) -> None:
        """Stop one target, or all with an empty id.

        Raises:
            TargetError: There is no such target.
        """
        for target in [self.get(target_id)] if target_id else list(self._targets.values()):
            target.tracker.remove(target.tracker_id)
            del self._targets[target.id]

    def get(self, target_id: str) -> _Followed:
        """Return a target.

        Raises:
            TargetError: There is no such target.
        """
        target = self._targets.get(target_id)
        if target is None:
            raise TargetError(f"there is no target {target_id!r}; it may have been stopped", code="TARGET_UNKNOWN")
        return target

    def step(self, frame: Frame) -> tuple[TargetView, ...]:
        """Show a frame to all trackers; return what they say about it."""
        found = {(id(tracker), update.target_id): update for tracker in self.trackers for update in tracker.step(frame)}
        self._newest = frame
        views = []
        for target in list(self._targets.values()):
            update = found.get((id(target.tracker), target.tracker_id))
            if update is None:
                continue
            target.last = update
            views.append(_view(target, update))
            if update.state is TrackState.REMOVED:
                del self._targets[target.id]
        return tuple(views)


def _view(target: _Followed, update: TrackUpdate) -> TargetView:
    box = update.box or (update.last_box if update.state is TrackState.LOST else None)
    return TargetView(
        id=target.id,
        words=update.expression,
        state=update.state.value,
        box=None if box is None else (round(box.x1, 5), round(box.y1, 5), round(box.x2, 5), round(box.y2, 5)),
        score=round(update.score, 4),
        reason=update.reason,
        text=target.text or update.described,
    )
