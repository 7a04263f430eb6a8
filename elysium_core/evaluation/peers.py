"""Base classes that wrap models of other projects (peers), so that the benchmarks can run them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import TrackingConfig
from elysium_core.types import Grounding, ModelInfo, Tracker, TrackerStats, TrackState, TrackUpdate

OPENCV, HF = "opencv:", "hf:"
"""Prefixes of the names of models of other projects."""


def is_peer(name: str) -> bool:
    """Return whether a model name, as on the command line, stands for a model of another project."""
    return name.startswith((OPENCV, HF))


@dataclass(frozen=True, slots=True)
class Sighting:
    """The result of a peer for one target in one frame.

    Attributes:
        box: The box, None if it has none.
        score: 0..1; 1 if the peer gives no score.
        reason: Why there is no box.
    """

    box: Box | None
    score: float = 1.0
    reason: str = ""


@dataclass(slots=True)
class PeerTarget:
    """One target of a peer.

    Attributes:
        expression: The caller's words, empty if none.
        box: Box to start from, None if the target was given by words alone.
        age: Frames since the target was added.
        last_box: Its last box.
        memory: State that the peer keeps for it between frames.
    """

    expression: str
    box: Box | None
    age: int = 0
    last_box: Box | None = None
    memory: Any = None


class PeerModel(ABC):
    """A model of another project. Tasks that it cannot do raise a BackendError.

    Args:
        info: Description of the model.
        ability: What it can do; the end of the error message.
    """

    def __init__(self, info: ModelInfo, ability: str) -> None:
        self.info = info
        self._ability = ability

    @abstractmethod
    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker. It returns the boxes of each frame at once, in every mode."""

    def clean_words(self, expression: str) -> str:
        """Clean an expression; :meth:`PeerTracker.check` decides whether it can be used."""
        return clean_expression(expression)

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Refuse."""
        raise self._refusal()

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = False) -> str:
        """Refuse."""
        raise self._refusal()

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """Refuse."""
        raise self._refusal()

    def caption(self, frames: Frame | Sequence[Frame]) -> str:
        """Refuse."""
        raise self._refusal()

    def interrupted_by(self, other: Callable[[], object]) -> AbstractContextManager[None]:
        """Do nothing: other models cannot be interrupted."""
        return nullcontext()

    def warm_up(self) -> None:  # noqa: B027 - nothing to do is right here
        """Do nothing, because the first frame is not timed separately."""

    def close(self) -> None:  # noqa: B027 - nothing to do is right here
        """Do nothing, because the memory is freed with the object."""

    def _refusal(self) -> BackendError:
        return BackendError(f"{self.info.name} cannot do this; {self._ability}")


class PeerTracker(ABC):
    """A tracker that follows each target independently, frame by frame.

    Subclasses define how a target is checked, started and followed.

    Args:
        config: Settings; only ``max_targets`` and ``score_threshold`` are used.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.stats = TrackerStats()
        self._targets: dict[str, PeerTarget] = {}
        self._removed: dict[str, PeerTarget] = {}
        self._next_id = 1
        self._last_frame: Frame | None = None

    @abstractmethod
    def check(self, expression: str, box: Box | None) -> None:
        """Raise TargetError if a target given like this cannot be followed."""

    @abstractmethod
    def start(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Start a target in the frame of its box."""

    @abstractmethod
    def follow(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Find a started target in a later frame."""

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :class:`elysium_core.types.Tracker`."""
        if not expression and box is None:
            raise TargetError("a target needs an expression, a box, or both", code="TARGET_EMPTY")
        if len(self._targets) >= self.config.max_targets:
            raise TargetError(f"there are already {self.config.max_targets} targets", code="TARGET_LIMIT")
        words = clean_expression(expression) if expression else ""
        self.check(words, box)
        target = PeerTarget(words, box)
        if self._last_frame is not None and box is not None:
            # The box belongs to the last frame, not to the next one.
            self.start(target, self._last_frame)
            target.age = 1
        target_id = str(self._next_id)
        self._next_id += 1
        self._targets[target_id] = target
        return target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; see :class:`elysium_core.types.Tracker`."""
        if target_id not in self._targets:
            raise TargetError(f"there is no target {target_id!r}", code="TARGET_UNKNOWN")
        self._removed[target_id] = self._targets.pop(target_id)

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Process one frame; see :class:`elysium_core.types.Tracker`."""
        started = time.perf_counter()
        updates = [
            self._update(target_id, target, frame, Sighting(None, 0.0, "stopped"), TrackState.REMOVED)
            for target_id, target in self._removed.items()
        ]
        self._removed.clear()
        for target_id, target in self._targets.items():
            sighting = self.start(target, frame) if target.age == 0 else self.follow(target, frame)
            updates.append(self._update(target_id, target, frame, sighting, self._state(sighting)))
        self._last_frame = frame
        self.stats.frames += 1
        self.stats.generate_s = time.perf_counter() - started
        return updates

    def flush(self) -> list[TrackUpdate]:
        """Return nothing, because every frame is answered at once."""
        return []

    def reset(self) -> None:
        """Forget all targets and frames."""
        self._targets.clear()
        self._removed.clear()
        self._last_frame = None

    def configure(self, config: TrackingConfig) -> None:
        """Replace the settings."""
        self.config = config

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are followed."""
        return list(self._targets)

    def count_failure(self, reason: str) -> None:
        """Count an answer without a usable box."""
        self.stats.parse_failures = dict(Counter(self.stats.parse_failures) + Counter([reason]))

    def _state(self, sighting: Sighting) -> TrackState:
        if sighting.box is None:
            return TrackState.LOST
        return TrackState.TRACKED if sighting.score >= self.config.score_threshold else TrackState.UNCERTAIN

    def _update(
        self, target_id: str, target: PeerTarget, frame: Frame, sighting: Sighting, state: TrackState
    ) -> TrackUpdate:
        if state is TrackState.TRACKED:
            target.last_box = sighting.box
        reason = sighting.reason or ("the score is low" if state is TrackState.UNCERTAIN else "")
        update = TrackUpdate(
            target_id=target_id,
            frame_index=frame.index,
            box=sighting.box,
            score=sighting.score if sighting.box is not None else 0.0,
            state=state,
            stamp_ns=frame.stamp_ns,
            expression=target.expression,
            age=target.age,
            last_box=target.last_box,
            reason=reason,
        )
        target.age += 1
        return update
