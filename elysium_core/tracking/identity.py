"""A model and a tracker without weights, for baselines, tests and measurements of the code around a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import TargetError
from elysium_core.frames import Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import TrackingConfig
from elysium_core.types import Grounding, ModelInfo, TrackerStats, TrackState, TrackUpdate

_WHOLE_FRAME = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(slots=True)
class _Target:
    expression: str
    box: Box
    age: int = 0


class IdentityTracker:
    """A tracker that repeats the first box of each target (the whole frame for words), with score 1.

    It is the "frozen first box" baseline of every evaluation. It also measures the cost of the
    code around the model, because it has no weights and computes nothing.
    """

    def __init__(self, config: TrackingConfig | None = None) -> None:
        self.config = config or TrackingConfig()
        self.stats = TrackerStats()
        self._targets: dict[str, _Target] = {}
        self._removed: dict[str, _Target] = {}
        self._next_id = 1

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :class:`elysium_core.types.Tracker`."""
        if not expression and box is None:
            raise TargetError("a target needs an expression, a box, or both", code="TARGET_EMPTY")
        limit = self.config.max_targets
        if len(self._targets) >= limit:
            raise TargetError(f"there are already {limit} targets; stop one first", code="TARGET_LIMIT")
        target_id = str(self._next_id)
        self._targets[target_id] = _Target(clean_expression(expression) if expression else "", box or _WHOLE_FRAME)
        self._next_id += 1
        return target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; see :class:`elysium_core.types.Tracker`."""
        if target_id not in self._targets:
            raise TargetError(f"there is no target {target_id!r}", code="TARGET_UNKNOWN")
        self._removed[target_id] = self._targets.pop(target_id)

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Report every target at its first box, and removed ones once."""
        require_frame(frame)
        updates = []
        self.stats.frames += 1
        for target_id, target in self._removed.items():
            updates.append(
                TrackUpdate(
                    target_id, frame.index, None, 0.0, TrackState.REMOVED, frame.stamp_ns,
                    target.expression, target.age, target.box, "stopped",
                )
            )  # fmt: skip
        self._removed.clear()
        for target_id, target in self._targets.items():
            updates.append(
                TrackUpdate(
                    target_id, frame.index, target.box, 1.0, TrackState.TRACKED, frame.stamp_ns,
                    target.expression, target.age, target.box,
                )
            )  # fmt: skip
            target.age += 1
        return updates

    def flush(self) -> list[TrackUpdate]:
        """Return no updates: every frame was answered by :meth:`step`."""
        return []

    def reset(self) -> None:
        """Forget all targets."""
        self._targets.clear()
        self._removed.clear()

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings; only ``max_targets`` matters here."""
        self.config = config

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are tracked."""
        return list(self._targets)


class IdentityModel:
    """A model without weights: it finds everything in the whole frame, and its tracks never move."""

    info = ModelInfo(name="identity", describes="none")

    def clean_words(self, expression: str) -> str:
        """Clean an expression; every name is accepted."""
        return clean_expression(expression)

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Answer with the whole frame."""
        clean_expression(expression)
        return Grounding(_WHOLE_FRAME, 1.0)

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = False) -> str:
        """Describe an object by the coordinates of its box [%]."""
        return "something at " + ",".join(f"{round(v * 100)}" for v in box)

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """Answer that no model is loaded."""
        clean_expression(question)
        return "no model is loaded"

    def caption(self, frames: Frame | Sequence[Frame]) -> str:
        """Answer that no model is loaded."""
        return "no model is loaded"

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> IdentityTracker:
        """Make an :class:`IdentityTracker`."""
        return IdentityTracker(replace(config or TrackingConfig(), mode=mode))

    def interrupted_by(self, other: Callable[[], object]) -> AbstractContextManager[None]:
        """Do nothing, because no answer takes long."""
        return nullcontext()

    def warm_up(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
