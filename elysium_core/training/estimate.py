"""What a run will cost: two steps of each stage are tried before it starts."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from elysium_core.training.loop import TrainingLoop


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """Estimated cost of one stage on this machine if nothing else runs on it.

    Attributes:
        name: The stage.
        steps: Remaining steps.
        step_s: Time of one step, including its batch [s].
        trained: Number of trained weights.
        memory_mb: Peak memory of the trial process, or of the GPU if one is used [MB].
    """

    name: str
    steps: int
    step_s: float
    trained: int
    memory_mb: float

    @property
    def total_s(self) -> float:
        """Time of the remaining steps [s]."""
        return self.steps * self.step_s

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.steps} steps of {self.step_s:.2g} s, about {_duration(self.total_s)}; "
            f"{self.trained / 1e6:.2f} M weights trained, {self.memory_mb:.0f} MB"
        )


class TriedStage(Protocol):
    """A stage whose steps can be tried; :class:`elysium_core.training.nano.scratch.StageRun` is one."""

    loop: TrainingLoop
    device: torch.device

    @property
    def batches(self) -> Dataset[Any]:
        """Its batches by number."""
        ...


def estimate_stages(
    make: Callable[[str, Path], TriedStage], stages: Mapping[str, int], steps_done: Mapping[str, int]
) -> Iterator[StageEstimate]:
    """Try every stage that is not finished.

    Args:
        make: Makes a stage, of its name and of a folder for its files.
        stages: Steps of each stage.
        steps_done: Steps that earlier runs have done, by stage.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, steps in stages.items():
            left = steps - steps_done.get(name, 0)
            if left > 0:
                yield _try_stage(make(name, Path(folder)), name, left)


def _try_stage(run: TriedStage, name: str, steps: int) -> StageEstimate:
    threads = run.loop.settings.threads
    torch.set_num_threads(threads)
    run.loop.model.train()
    batches = run.batches
    run.loop.train_step([batches[0]])
    # The first step also sets up kernels and buffers. On a CPU the CPU time of this process is measured, so that other
    # processes do not change the estimate.
    on_gpu = run.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    run.loop.train_step([batches[1]])
    seconds = (clock() - started) / (1 if on_gpu else threads)
    trained = sum(parameter.numel() for parameter in run.loop.optimizer.parameters)
    return StageEstimate(name, steps, seconds, trained, _memory_mb(run.device))


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
