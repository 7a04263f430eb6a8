"""What the log says of a normal run: a line when images begin to come, and when a target is found, lost or ended.

Knows no ROS.
"""

from __future__ import annotations

from collections.abc import Iterator

from elysium_core.tracking.types import TrackState, TrackUpdate
from elysium_ros.perception import FrameResult


class Narrator:
    """Turns the results of all cameras into lines for a person; most frames give none."""

    def __init__(self) -> None:
        self._cameras: set[str] = set()
        # Whether each target was found when last heard of; one that never was is not here.
        self._found: dict[str, bool] = {}

    def lines(self, result: FrameResult) -> Iterator[str]:
        """Yield what is new since the result before."""
        camera = result.image.camera
        suffix = f" in camera {camera!r}" if camera else ""
        if camera not in self._cameras:
            self._cameras.add(camera)
            yield f"images of {result.frame.width} x {result.frame.height} px arrive{suffix}"
        for view in result.views:
            news = self._news(view.update)
            if news:
                yield f"{_name(view.update)}{suffix} {news}"

    def _news(self, update: TrackUpdate) -> str:
        target_id = update.target_id
        was_found = self._found.get(target_id)
        if update.state is TrackState.REMOVED:
            self._found.pop(target_id, None)
            return f"ended, {update.reason}" if update.reason else "ended"
        if update.state is TrackState.TRACKED and not was_found:
            self._found[target_id] = True
            return f"found{'' if was_found is None else ' again'}, score {update.score:.2f}"
        if update.state is TrackState.LOST and was_found:
            self._found[target_id] = False
            return f"lost, {update.reason}" if update.reason else "lost"
        return ""


def _name(update: TrackUpdate) -> str:
    return f"target {update.target_id}" + (f" ({update.expression!r})" if update.expression else "")
