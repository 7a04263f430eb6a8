"""Estimates time and memory of a run from two trial steps of each stage with procedural backgrounds."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from elysium_core.training.nano.clip_batches import ClipBatches
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.scratch import StageRun


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


def estimate_stages(recipe: Recipe, steps_done: dict[str, int]) -> Iterator[StageEstimate]:
    """Estimate every stage that is not finished by running two steps of it.

    Args:
        recipe: The recipe.
        steps_done: Steps that earlier runs have done, by stage.
    """
    trial = recipe.model_copy(update={"data": recipe.data.model_copy(update={"photo_folders": ()})})
    with tempfile.TemporaryDirectory() as folder:
        for name, stage in recipe.stages.items():
            left = stage.steps - steps_done.get(name, 0)
            if left > 0:
                yield _try_stage(trial, name, left, Path(folder))


def _try_stage(recipe: Recipe, name: str, steps: int, folder: Path) -> StageEstimate:
    torch.set_num_threads(recipe.stages[name].threads)
    run = StageRun(recipe, name, folder)
    run.loop.model.train()
    batches = ClipBatches(recipe, name, run.tokenizer_folder)
    run.loop.train_step([batches[0]])
    # The first step also sets up kernels and buffers. On a CPU the CPU time of this process is measured, so that other
    # processes do not change the estimate.
    on_gpu = run.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    run.loop.train_step([batches[1]])
    seconds = (clock() - started) / (1 if on_gpu else recipe.stages[name].threads)
    trained = sum(parameter.numel() for parameter in run.optimizer.parameters)
    return StageEstimate(name, steps, seconds, trained, _memory_mb(run.device))


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
