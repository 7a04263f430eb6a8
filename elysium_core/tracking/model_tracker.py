"""Base classes of the trackers that run a model: settings, counters, the list of targets, and one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from elysium_core.engine.engine import EngineCounters
from elysium_core.errors import BackendError, TargetError
from elysium_core.families.base import Seen
from elysium_core.frames import Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.settings import PAPER_CLIP_FRAMES, TrackingConfig
from elysium_core.tracking.target import StreamClock, Target
from elysium_core.types import Grounding, TrackerStats, TrackState, TrackUpdate


class ModelTracker:
    """Base class of trackers; a subclass adds ``step`` and ``flush``.

    Args:
        runtime: The model.
        config: Settings of the tracker.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        self._runtime = runtime
        self._config = self._resolved(config)
        self._stats = TrackerStats()
        self._counters = EngineCounters()
        self._next_id = 1
        self._clock = StreamClock()
        self._targets: dict[str, Target] = {}
        self._stopped: list[Target] = []
        # Boxes given by add() that have not been used yet, by target id.
        self._given: dict[str, Box] = {}

    @property
    def config(self) -> TrackingConfig:
        """Current settings."""
        return self._config

    @property
    def stats(self) -> TrackerStats:
        """Counters since the tracker was made."""
        return self._stats

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are tracked or searched for."""
        return list(self._targets)

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next frame or clip on."""
        self._config = self._resolved(config)

    def _resolved(self, config: TrackingConfig) -> TrackingConfig:
        return config.resolved(self._runtime.family.settings.clip_length)

    @property
    def _clip_length(self) -> int:
        """Largest number of frames in one prompt."""
        return self._config.clip_length or PAPER_CLIP_FRAMES  # never None after _resolved()

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        self._clock = StreamClock()
        self._targets, self._stopped, self._given = {}, [], {}

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :meth:`elysium_core.types.Tracker.add`."""
        if not expression and box is None:
            raise TargetError("a target needs an expression, a box, or both", code="TARGET_EMPTY")
        limit = self._config.max_targets
        if len(self._targets) >= limit:
            raise TargetError(f"there are already {limit} targets; stop one first", code="TARGET_LIMIT")
        words = self._runtime.clean_words(expression) if expression else ""
        target = Target(str(self._next_id), words)
        self._next_id += 1
        self._targets[target.target_id] = target
        if box is not None:
            self._given[target.target_id] = box
        return target.target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; the next step reports it as REMOVED once."""
        if target_id not in self._targets:
            raise TargetError(f"there is no target {target_id!r}", code="TARGET_UNKNOWN")
        self._stopped.append(self._targets.pop(target_id))
        self._forget(target_id)

    def _forget(self, target_id: str) -> None:
        """Delete the data of a target that is not tracked any more."""
        self._given.pop(target_id, None)

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Encode RGB uint8 images (H, W, 3); their number and time are counted."""
        started = time.perf_counter()
        seen = self._runtime.encode_frames(images)
        self._stats.count_encoded(len(images), time.perf_counter() - started)
        return seen

    def _attempt(
        self, look: Callable[[Frame, float], dict[str, Grounding]], frame: Frame, now_s: float
    ) -> dict[str, Grounding]:
        """Look at a frame; times, failures and missing boxes are counted.

        Args:
            look: Returns observations of a frame by target id; may raise ``BackendError``.
            frame: The frame.
            now_s: Its time on the clock of the stream [s].

        Returns:
            One observation for each target; after a failure of the model, observations without a box.
        """
        self._stats.encode_s, started = 0.0, time.perf_counter()
        try:
            seen = look(frame, now_s)
        except BackendError as error:
            self._stats.count_failure(error)
            seen = {name: Grounding(None, 0.0, reason=str(error)) for name in self._targets}
        self._stats.generate_s = time.perf_counter() - started - self._stats.encode_s
        self._count_engine()
        for name in self._targets:
            observation = seen.setdefault(name, Grounding(None, 0.0, reason="there is nothing to search it by"))
            if observation.box is None:
                self._stats.count_missing(observation.reason)
        return seen

    def _count_engine(self) -> None:
        """Copy the counters of the engines to the statistics."""
        self._stats.llm_passes, self._stats.llm_tokens = self._counters.passes, self._counters.tokens


class LiveTracker(ModelTracker):
    """Base class of trackers that answer every frame for itself; a subclass adds ``_look``.

    Args:
        runtime: The model.
        config: Settings of the tracker.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        self._newest: Frame | None = None

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._newest = None

    def flush(self) -> list[TrackUpdate]:
        """Return no updates: every frame was answered by :meth:`step`."""
        return []

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Answer one frame; see :meth:`elysium_core.types.Tracker.step`."""
        require_frame(frame)
        self._stats.failure = None
        now_s = self._clock.tick(frame)
        self._stats.frames += 1
        updates = [target.stop(frame) for target in self._stopped]
        self._stopped.clear()
        seen = self._attempt(self._look, frame, now_s) if self._targets else {}
        self._newest = frame
        for name, target in list(self._targets.items()):
            update = target.observe(frame, now_s, seen[name], self._config)
            updates.append(self._completed(name, update))
            if update.state is TrackState.REMOVED:
                del self._targets[name]
                self._forget(name)
        return updates

    def _look(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        """Return observations by target id. ``self._newest`` is still the frame before.

        Raises:
            BackendError: The model or its device failed.
        """
        raise NotImplementedError

    def _completed(self, target_id: str, update: TrackUpdate) -> TrackUpdate:
        """The update with what else the tracker knows of its target."""
        return update
