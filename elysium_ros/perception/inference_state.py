"""What the inference thread tells of itself, and what it must know of the node. Imports no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from elysium_core.types import ModelInfo


class NodeLife(Protocol):
    """The state of the node, as far as callers of the inference thread need it."""

    @property
    def is_shutting_down(self) -> bool:
        """Whether the process is ending; nobody waits for the model then."""
        ...

    def why_inactive(self) -> str:
        """Say for a caller why nothing can be done now, and what to do."""
        ...

    def give_up(self, reason: str) -> None:
        """End the process, so that a new one can take its place."""
        ...


@dataclass(frozen=True, slots=True)
class InferenceState:
    """The inference thread at one moment.

    Attributes:
        model: The loaded model, None if there is none.
        paused: Images are not processed.
        busy_s: How long the present request or image has taken so far [s]; 0 when idle.
        restarts: How often the model hung or crashed and was given up.
        restarting: Why the model is being loaded again, starting with a code; empty if it is not.
        failures: Frames that the model failed on since activation.
        standing_failure: Why the model failed on the newest frame; empty if it did not.
        parse_failures: Answers without a usable box since activation.
        received: Images received since activation.
        dropped: Images skipped since activation.
        active_ids: Ids of the targets that are followed or searched for, ascending.
    """

    model: ModelInfo | None = None
    paused: bool = False
    busy_s: float = 0.0
    restarts: int = 0
    restarting: str = ""
    failures: int = 0
    standing_failure: str = ""
    parse_failures: int = 0
    received: int = 0
    dropped: int = 0
    active_ids: tuple[int, ...] = ()
