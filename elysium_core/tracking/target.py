"""The states of a target over time: tracked, uncertain, lost, removed. Independent of any model."""

from __future__ import annotations

from dataclasses import dataclass

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import TrackingConfig
from elysium_core.types import Grounding, TrackState, TrackUpdate

_NOT_FOUND_YET = "not found yet"


@dataclass(slots=True)
class Target:
    """A target and its state.

    Attributes:
        target_id: Id of the target.
        expression: The caller's words, cleaned; empty for a target given by a box.
        state: Current state.
        last_box: Last certain box, that is, one with a score of at least the threshold.
        age: Frames since the target was added.
        sure_at_s: Stream time of the last certain box [s]; None before the first.
        lost_at_s: Stream time at which the target became LOST [s]; None while it is not.
        asked_at_s: Stream time of the last search by words [s].
    """

    target_id: str
    expression: str
    state: TrackState = TrackState.LOST
    last_box: Box | None = None
    age: int = 0
    sure_at_s: float | None = None
    lost_at_s: float | None = None
    asked_at_s: float | None = None

    def observe(self, frame: Frame, now_s: float, seen: Grounding, config: TrackingConfig) -> TrackUpdate:
        """Change the state by the observation of one frame and return the update.

        A target without a certain box is UNCERTAIN for ``lost_after_s``, and a box below the
        threshold is reported. Then it is LOST and no box is reported. After another
        ``remove_after_s`` it is REMOVED.

        Args:
            frame: The frame.
            now_s: Stream time of the frame [s].
            seen: The observation.
            config: Threshold and times.
        """
        box, score, reason = seen.box, seen.score, seen.reason
        if box is not None and score >= config.score_threshold:
            self.state, self.last_box, self.sure_at_s, self.lost_at_s, reason = TrackState.TRACKED, box, now_s, None, ""
        else:
            reason = reason or f"score {score:.2f} is below {config.score_threshold:g}"
            self._doubt(now_s, config)
        if self.state in (TrackState.LOST, TrackState.REMOVED):
            box = None
            reason = reason if self.last_box is not None else f"{_NOT_FOUND_YET}: {reason}"
        update = self.update(frame, box, score if box is not None else 0.0, reason)
        self.age += 1
        return update

    def stop(self, frame: Frame) -> TrackUpdate:
        """Set the state to REMOVED and return the last update, for a target that the user stopped."""
        self.state = TrackState.REMOVED
        return self.update(frame, None, 0.0, "stopped")

    def update(self, frame: Frame, box: Box | None, score: float, reason: str) -> TrackUpdate:
        """The update of this target for one frame."""
        return TrackUpdate(
            self.target_id,
            frame.index,
            box,
            score,
            self.state,
            frame.stamp_ns,
            self.expression,
            self.age,
            self.last_box,
            reason,
        )

    def _doubt(self, now_s: float, config: TrackingConfig) -> None:
        if self.lost_at_s is None:
            certain_recently = self.sure_at_s is not None and now_s - self.sure_at_s < config.lost_after_s
            if certain_recently:
                self.state = TrackState.UNCERTAIN
                return
            self.lost_at_s = now_s
        self.state = TrackState.LOST
        if config.remove_after_s > 0 and now_s - self.lost_at_s >= config.remove_after_s:
            self.state = TrackState.REMOVED


class StreamClock:
    """Time of a stream in seconds, which never decreases.

    It is computed from the stamps of the frames, or from their times of arrival if there are no
    stamps. If neither is known, 30 frames per second are assumed. A stamp that goes back (a bag that
    is played in a loop) does not change the time.
    """

    _DEFAULT_PERIOD_S = 1 / 30

    def __init__(self) -> None:
        self.now_s = 0.0
        self._last: tuple[int, float | None] | None = None

    def tick(self, frame: Frame) -> float:
        """Advance to a frame and return its time [s]."""
        if self._last is not None:
            last_ns, last_arrived_s = self._last
            if frame.stamp_ns > 0 and last_ns > 0:
                self.now_s += max(0, frame.stamp_ns - last_ns) * 1e-9
            elif frame.arrived_s is not None and last_arrived_s is not None:
                self.now_s += max(0.0, frame.arrived_s - last_arrived_s)
            else:
                self.now_s += self._DEFAULT_PERIOD_S
        self._last = frame.stamp_ns, frame.arrived_s
        return self.now_s
