"""Memory of this process, on a GPU or in the computer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

_MIB = 1 << 20
# psutil has no peak. Linux counts one, and resets it when a 5 is written to clear_refs.
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Measures the memory that is held in addition to what was held when the meter was made.

    Args:
        device: A GPU (memory that torch has allocated on it) or the CPU (resident memory of the process).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if hasattr(psutil, "heap_trim"):
            # Memory that is free already would be used again without being counted.
            psutil.heap_trim()
        self._before = held_bytes(device)

    def peak_mib(self, run: Callable[[], object]) -> float | None:
        """Call ``run`` and return the most memory held meanwhile [MiB]; None where the system does not count it."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            run()
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / _MIB
        try:
            _CLEAR_REFS.write_text("5", encoding="ascii")
        except OSError:
            run()
            return None
        run()
        return max(0, _resident_peak() - self._before) / _MIB


def held_bytes(device: torch.device) -> int:
    """Return the memory that this process holds: allocated by torch on a GPU, else resident [bytes]."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return psutil.Process().memory_info().rss


def allocated_bytes(device: torch.device) -> int | None:
    """Return the memory in use, without what allocators keep for later; None where it is not known [bytes].

    Torch's tensors on a GPU. On the CPU everything from the C allocator, which leaves out Python's small objects:
    :func:`sys.getallocatedblocks` counts those.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    if not hasattr(psutil, "heap_info"):  # some C libraries cannot tell
        return None
    heap = psutil.heap_info()
    return heap.heap_used + heap.mmap_used


def _resident_peak() -> int:
    """Return the highest resident memory since the last reset [bytes]."""
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
