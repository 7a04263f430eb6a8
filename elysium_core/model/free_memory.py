"""How much memory a device has left."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device [bytes]; None where it is not known.

    Of a GPU, what torch keeps of freed tensors is given back first: it would count as used.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith(" kB")}
    return values.get("MemAvailable")
