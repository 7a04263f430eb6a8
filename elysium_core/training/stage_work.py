"""What a stage of training is to the loop that runs it: its settings, its batches and what is learnt from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from elysium_core.training.losses import Losses


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How a stage is run.

    Attributes:
        steps: Optimiser steps.
        batch: Samples a batch of one process.
        accumulate: Batches a step and process.
        clip_norm: Largest norm of a step's gradient.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
        evaluate_every: Steps between two evaluations; 0 = never.
        workers: Processes that draw batches, for each training process; with any, a stage starts about 2 s later.
        threads: CPU threads of a training process.
        tied: Names of weights that are another weight's memory, and so are not saved.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    clip_norm: float = 1.0
    log_every: int = 20
    save_every_s: float = 60.0
    evaluate_every: int = 0
    workers: int = 1
    threads: int = 1
    tied: frozenset[str] = frozenset()


class StageWork(Protocol):
    """What a stage learns, and from what."""

    name: str
    settings: LoopSettings

    @property
    def batches(self) -> Dataset[Any]:
        """Batches by number; each has ``to(device)`` and may have ``skipped``, reasons why data was not used."""
        ...

    def seed(self, number: int) -> int:
        """Seed of what is random inside the model for one batch."""
        ...

    def rate_factor(self, step: int) -> float:
        """Learning rate of a step as a share of the peak."""
        ...

    def weight(self, batch: Any) -> float:
        """How much a batch counts among those of its step: over its answer tokens, for example."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Losses of a batch; ``total`` is minimised. Always the same names."""
        ...

    def held_out(self) -> Sequence[Any]:
        """Batches that are never trained on, at least one; the same in every process."""
        ...

    def pictures(self, model: nn.Module, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """Pictures by name of what the model, in evaluation mode, answers about a held-out batch; may be none."""
        ...

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the stage's result; asked of the main process alone."""
        ...
