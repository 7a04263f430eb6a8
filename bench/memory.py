"""How much memory something takes, as the system counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch

_MIB = 1 << 20
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class MemoryMeter:
    """Measures from its making on: what is held on a device above what was held then.

    Args:
        device: A GPU (memory that torch has allocated there), or the CPU (resident memory of the process).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _give_back()
        self._before = held_bytes(device)

    def peak_mib(self, run: Callable[[], object]) -> float | None:
        """Run something and return the most that was held meanwhile [MiB]; None where the system does not tell."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            run()
            return (torch.cuda.max_memory_allocated(self._device) - (self._before or 0)) / _MIB
        reset = _reset_resident_peak()
        run()
        peak = _read_bytes(_STATUS, "VmHWM")
        if not reset or peak is None or self._before is None:
            return None
        return max(0, peak - self._before) / _MIB


def held_bytes(device: torch.device) -> int | None:
    """Memory that this process holds: what torch has allocated on a GPU, else resident memory; None if not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _read_bytes(_STATUS, "VmRSS")


def allocated_bytes(device: torch.device) -> int | None:
    """Memory that is in use, without what allocators keep for later; None if not known.

    Torch's tensors on a GPU; on the CPU everything from the C allocator, which leaves out
    Python's small objects: :func:`sys.getallocatedblocks` counts those.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)  # of glibc since 2.33
    if mallinfo is None:
        return None
    mallinfo.restype = _MallocInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


class _MallocInfo(ctypes.Structure):
    """What ``mallinfo2`` of glibc returns [bytes, or numbers of blocks]."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _give_back() -> None:
    """Return what is free already to the system: it would be used again and not be counted."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others have no such thing
    if trim is not None:
        trim(0)


def _reset_resident_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _read_bytes(path: Path, key: str) -> int | None:
    """A line such as ``VmRSS:  1234 kB`` of a file of the proc file system, in bytes."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), None)
