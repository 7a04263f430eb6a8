"""Times that may be compared: taken in turns in one run, and refused where the machine was not quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""What may be told as time: what passes, or what this process has computed, which others on the machine change less."""

MAX_SPREAD = 0.30
"""Largest spread of a baseline's times, (upper quartile - lower quartile) / median, at which a ratio is told."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster something is than a baseline.

    Attributes:
        quartiles: Of baseline over ours, turn by turn: lower, median, upper; empty if refused.
        spread: The baseline's own spread.
        refused: Why no ratio is told; empty if it is.
    """

    quartiles: tuple[float, ...]
    spread: float
    refused: str = ""


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    turns: int,
    device: torch.device,
    clock: str = "wall",
) -> dict[str, Seconds]:
    """Seconds of each run in each turn: A, B, C, A, B, C, ...

    A change of the machine's load meets all of them. Nothing is warmed up here.

    Args:
        runs: What to time, by name.
        turns: How often.
        device: What has to be waited for.
        clock: One of :data:`CLOCKS`.
    """
    now = CLOCKS[clock]
    times = {name: np.empty(turns) for name in runs}
    for turn in range(turns):
        for name, run in runs.items():
            started = now()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name][turn] = now() - started
    return times


def compare(baseline: Seconds, ours: Seconds) -> Ratio:
    """The ratio of two series of :func:`time_in_turns`, refused if the baseline's own times spread too much."""
    low, middle, high = np.percentile(baseline, (25, 50, 75))
    spread = float((high - low) / middle)
    if spread > MAX_SPREAD:
        reason = f"the baseline's own times spread by {spread:.0%}, over {MAX_SPREAD:.0%}: run on a quiet machine"
        return Ratio((), spread, reason)
    return Ratio(tuple(float(value) for value in np.percentile(baseline / ours, (25, 50, 75))), spread)
