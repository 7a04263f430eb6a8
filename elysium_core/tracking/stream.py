"""The live tracker: every frame is answered as it arrives, with memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor

from elysium_core.errors import BackendError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.inference.engine import EngineCounters
from elysium_core.inference.runtime import Runtime
from elysium_core.tracking.config import TrackingConfig
from elysium_core.tracking.grounding import ground_answers, observations
from elysium_core.tracking.target import Observation, StreamClock, Target
from elysium_core.tracking.types import TrackerStats, TrackState, TrackUpdate
from elysium_core.tracking.window import Window

# Two boxes for one target in one frame: above this they are the same place, below two opinions.
_SAME_PLACE_IOU = 0.5
_ANCHOR_FRAMES = 2


class StreamTracker:
    """Follows targets through one stream (protocol: :class:`elysium_core.tracking.types.Tracker`).

    A target given by words is found by words first. From then on it is asked for behind
    the frame in which it was last surely seen. While it is lost, and every
    ``reground_period_s``, it is looked for by its words again.

    Args:
        runtime: The model.
        config: Settings.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        self._runtime = runtime
        self._config = config
        self._stats = TrackerStats()
        self._counters = EngineCounters()
        self._next_id = 1
        self.reset()

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
        """Ids of the targets that are followed or searched for."""
        return list(self._targets)

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next frame on."""
        self._config = config

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        self._clock = StreamClock()
        self._targets: dict[str, Target] = {}
        self._stopped: list[Target] = []
        self._given: dict[str, Box] = {}
        self._windows: list[Window] = []
        self._newest: Frame | None = None

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :meth:`elysium_core.tracking.types.Tracker.add`."""
        if not expression and box is None:
            raise TargetError("a target needs an expression, a box, or both", code="TARGET_EMPTY")
        limit = self._config.max_targets
        if len(self._targets) >= limit:
            raise TargetError(f"there are already {limit} targets; stop one first", code="TARGET_LIMIT")
        words = self._runtime.clean_words(expression) if expression else ""
        target = Target(str(self._next_id), words)
        self._next_id += 1
        self._targets[target.target_id] = target
        if box is not None and self._newest is not None:
            target.last_box, target.sure_at_s = box, self._clock.now_s
            self._open_window(self._encode(self._newest), {target.target_id: box})
        elif box is not None:
            self._given[target.target_id] = box
        return target.target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; the next step reports it as REMOVED once."""
        if target_id not in self._targets:
            raise TargetError(f"there is no target {target_id!r}", code="TARGET_UNKNOWN")
        self._stopped.append(self._targets.pop(target_id))
        self._given.pop(target_id, None)
        self._leave_windows(target_id)

    def flush(self) -> list[TrackUpdate]:
        """Updates held back at the end of a stream: none, every frame was answered."""
        return []

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Look at one frame; see :meth:`elysium_core.tracking.types.Tracker.step`."""
        now_s = self._clock.tick(frame)
        self._stats.frames += 1
        self._newest = frame
        updates = [self._farewell(target, frame) for target in self._stopped]
        self._stopped.clear()
        if not self._targets:
            return updates
        seen = self._observe(frame, now_s)
        for target in list(self._targets.values()):
            updates.append(target.observe(frame, now_s, seen[target.target_id], self._config))
            if target.state is TrackState.REMOVED:
                del self._targets[target.target_id]
                self._leave_windows(target.target_id)
        return updates

    def _observe(self, frame: Frame, now_s: float) -> dict[str, Observation]:
        """One observation a target, whatever fails."""
        live = self._encode(frame)
        started = time.perf_counter()
        try:
            seen = self._look(live)
            self._adopt(live, seen, self._search(live, now_s, seen))
        except BackendError as error:
            # The memory may hold what failed; start afresh from words or the next box.
            self._windows.clear()
            seen = {name: Observation(None, 0.0, str(error)) for name in self._targets}
        self._stats.generate_s = time.perf_counter() - started
        self._stats.llm_passes, self._stats.llm_tokens = self._counters.passes, self._counters.tokens
        for name in self._targets:
            observation = seen.setdefault(name, Observation(None, 0.0, "there is nothing to search it by"))
            if observation.box is None:
                failures = self._stats.parse_failures
                failures[observation.reason] = failures.get(observation.reason, 0) + 1
        return seen

    def _look(self, live: Tensor) -> dict[str, Observation]:
        """Boxes given for this frame, and what every window says about it."""
        seen: dict[str, Observation] = {}
        for window in self._windows:
            guesses = {name: box for name in window.members if (box := self._targets[name].last_box) is not None}
            seen |= window.look(live, guesses)
        if self._given:
            self._open_window(live, self._given)
            seen |= {name: Observation(box, 1.0) for name, box in self._given.items()}
            self._given = {}
        self._windows = [window for window in self._windows if window.members]
        return seen

    def _search(self, live: Tensor, now_s: float, seen: Mapping[str, Observation]) -> dict[str, Observation]:
        """Look by words for the targets that need it."""
        due = {}
        for name, target in self._targets.items():
            if target.expression and self._is_due(target, now_s, name in seen):
                due[name] = target.expression
                target.asked_at_s = now_s
        if not due:
            return {}
        guesses = {name: box for name in due if (box := self._targets[name].last_box) is not None}
        return observations(ground_answers(self._runtime, live, due, guesses, self._counters))

    def _is_due(self, target: Target, now_s: float, watched: bool) -> bool:
        if not watched or target.state is TrackState.LOST:
            return True
        period, asked = self._config.reground_period_s, target.asked_at_s
        if asked is None:
            # Given by a box and words: the words wait for their first turn.
            target.asked_at_s = now_s
            return False
        return 0 < period <= now_s - asked

    def _adopt(self, live: Tensor, seen: dict[str, Observation], found: Mapping[str, Observation]) -> None:
        """Decide between following and searching, and open a new window where this frame is the better anchor."""
        anchors: dict[str, Box] = {}
        for name, by_words in found.items():
            followed = seen.get(name)
            best = by_words if followed is None or by_words.score > followed.score else followed
            agree = (
                followed is not None
                and followed.box is not None
                and by_words.box is not None
                and followed.box.iou(by_words.box) >= _SAME_PLACE_IOU
            )
            seen[name] = best
            certain = best.box is not None and best.score >= self._config.score_threshold
            if certain and best.box is not None and (best is by_words or agree):
                anchors[name] = best.box
        for window in [window for window in self._windows if window.full]:
            for name in window.members:
                box = seen[name].box
                if box is not None:
                    anchors.setdefault(name, box)
            self._windows.remove(window)
        if anchors:
            self._open_window(live, anchors)

    def _open_window(self, visual: Tensor, boxes: Mapping[str, Box]) -> None:
        """Move targets into a new window that opens with a frame in which their boxes are known."""
        for name in boxes:
            self._leave_windows(name)
        words = {name: target.expression for name, target in self._targets.items() if target.expression}
        window = self._config.window if self._config.window != "auto" else self._runtime.config.window
        frames = _ANCHOR_FRAMES if window == "anchor" else self._config.clip_length
        self._windows.append(Window(self._runtime, visual, dict(boxes), words, frames, self._counters))

    def _leave_windows(self, target_id: str) -> None:
        for window in self._windows:
            window.discard(target_id)
        self._windows = [window for window in self._windows if window.members]

    def _encode(self, frame: Frame) -> Tensor:
        started = time.perf_counter()
        tokens = self._runtime.encode_frames([frame.image])[0]
        self._stats.encode_s = time.perf_counter() - started
        self._stats.vision_encodes += 1
        return tokens

    @staticmethod
    def _farewell(target: Target, frame: Frame) -> TrackUpdate:
        target.state = TrackState.REMOVED
        return target.update(frame, None, 0.0, "stopped")
