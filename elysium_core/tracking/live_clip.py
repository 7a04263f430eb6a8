"""The paper's clips in a live stream: every clip is answered once, when its last frame has come.

Clips have up to 8 frames and overlap by one: the box of a clip's last frame starts the next clip (paper, section 4.3).
Unlike a recording, a stream has no known length, so its beginning is not one clip of 32 frames; and targets come at any
time: the clip is cut there, and the next one begins with the frame of the new target's box.
"""

from __future__ import annotations

from elysium_core.errors import TargetError
from elysium_core.frames import Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.model_tracker import ModelTracker
from elysium_core.tracking.target import Target
from elysium_core.types import TrackUpdate


class LiveClipTracker(ClipTracker):
    """Tracks targets of a live stream in the paper's clips (protocol: :class:`elysium_core.types.Tracker`).

    :meth:`step` returns the updates of a whole clip with its last frame, and nothing before; each update has index and
    stamp of its own frame.

    Args:
        runtime: A model that follows in whole frames.
        config: Settings of the tracker.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        # Targets that were added while frames of a clip waited, with their boxes: they are in the next clip.
        self._joining: dict[str, tuple[Target, Box | None]] = {}

    @property
    def oldest_waiting(self) -> int | None:
        """Index of the oldest frame whose updates are still to come; None if there is none."""
        waiting = self._frames if self._clips_done == 0 else self._frames[1:]
        return waiting[0].index if waiting and self.target_ids else None

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are tracked or searched for."""
        return [*self._targets, *self._joining]

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._joining = {}

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :meth:`elysium_core.types.Tracker.add`. It is in the next clip, which begins now.

        Raises:
            ExpressionError: The words cannot be used.
            TargetError: Neither words nor a box were given, or there are too many targets.
        """
        if len(self.target_ids) >= self._config.max_targets:
            limit = self._config.max_targets
            raise TargetError(f"there are already {limit} targets; stop one first", code="TARGET_LIMIT")
        target_id = ModelTracker.add(self, expression, box)
        if self._frames:
            self._joining[target_id] = self._targets.pop(target_id), self._given.pop(target_id, None)
        return target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; it is reported as REMOVED once, with the clip that waits."""
        if target_id in self._joining:
            self._stopped.append(self._joining.pop(target_id)[0])
        else:
            super().remove(target_id)

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Add one frame; return the updates of a clip that is complete with it."""
        require_frame(frame)
        self._stats.failure = None
        self._stats.frames += 1
        updates = self._begin_joining()
        if not self._targets:
            # Nothing is asked about this frame. It is kept because the box of a new target may be about it.
            self._frames, self._overlap, self._clips_done = [frame], None, 1
            self._clock.tick(frame)
            return [*updates, *self._end_stopped(frame)]
        self._frames.append(frame)
        if len(self._frames) >= self._clip_length:
            updates += self._run_clip(len(self._frames))
            updates += self._end_stopped(frame)
        return updates

    def flush(self) -> list[TrackUpdate]:
        """Answer the frames that wait, at the end of a recording."""
        self._stats.failure = None
        updates = self._begin_joining()
        is_answered = self._clips_done > 0 and len(self._frames) < 2
        if self._frames and self._targets and not is_answered:
            updates += self._run_clip(len(self._frames))
        return updates

    def _begin_joining(self) -> list[TrackUpdate]:
        """Cut the clip where targets were added: its frames are answered for the others, and the newest one stays."""
        if not self._joining:
            return []
        waits = len(self._frames) > 1 or self._clips_done == 0
        updates = self._run_clip(len(self._frames)) if self._targets and waits else []
        self._frames = self._frames[-1:]
        for target_id, (target, box) in self._joining.items():
            self._targets[target_id] = target
            if box is not None:
                self._given[target_id] = box
        self._joining = {}
        return updates

    def _end_stopped(self, frame: Frame) -> list[TrackUpdate]:
        ended = [target.stop(frame) for target in self._stopped]
        self._stopped.clear()
        return ended
