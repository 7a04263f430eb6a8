"""The machine of a measurement: hardware, versions, and its highest rates."""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from typing import Any

import torch

_PACKAGES = (
    "torch",
    "transformers",
    "tensorrt",
    "tensorrt_rtx_cu13_bindings",
    "onnxruntime",
    "bitsandbytes",
    "torchao",
)
_QUERY = "driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
_QUERY_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Rates:
    """The highest rates of a device.

    Attributes:
        bytes_per_s: Bytes that a large copy reads and writes [1/s].
        flops_per_s: Operations of a large matrix product in the measured data type [1/s].
    """

    bytes_per_s: float
    flops_per_s: float


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the names and versions of device, driver and packages."""
    found: dict[str, Any] = {
        "device": str(device),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mib": properties.total_memory >> 20,
            "multiprocessors": properties.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "state": _query(device.index or 0),
        }
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _query(index: int) -> dict[str, str]:
    """Return the figures of ``nvidia-smi``; nothing where it cannot run."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, f"--id={index}", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_QUERY.split(","), (value.strip() for value in said.split(",")), strict=False))


def measure_rates(device: torch.device, dtype: torch.dtype, copy_bytes: int, side: int, repeats: int = 20) -> Rates:
    """Measure the rates of a device: median times of a copy and of a matrix product.

    Args:
        device: The device.
        dtype: Data type of the matrices.
        copy_bytes: Size of the copy, which must be far larger than any cache [bytes].
        side: Rows and columns of the matrices.
        repeats: Timed runs of each, after three untimed ones.
    """
    return Rates(_copy_rate(device, copy_bytes, repeats), _matmul_rate(device, dtype, side, repeats))


def _copy_rate(device: torch.device, count: int, repeats: int) -> float:
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2000 * count / statistics.median(time_on(device, lambda: target.copy_(source), repeats))


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return 2000 * side**3 / statistics.median(time_on(device, lambda: torch.mm(left, right, out=product), repeats))


def time_on(device: torch.device, run: Callable[[], object], repeats: int, warm_ups: int = 3) -> list[float]:
    """Return the times of some work, measured by events of the device on a GPU [ms]."""
    for _ in range(warm_ups):
        run()
    if device.type != "cuda":
        return [_wall_ms(run) for _ in range(repeats)]
    torch.cuda.synchronize(device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]  # type: ignore[no-untyped-call]
    marks[0].record(torch.cuda.current_stream(device))
    for mark in marks[1:]:
        run()
        mark.record(torch.cuda.current_stream(device))
    torch.cuda.synchronize(device)
    return [float(first.elapsed_time(second)) for first, second in pairwise(marks)]


def _wall_ms(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


def percentiles(values_ms: list[float]) -> dict[str, float]:
    """Return median, 95th and 99th percentile; nothing without values."""
    if not values_ms:
        return {}
    ordered = sorted(values_ms)
    last = len(ordered) - 1
    return {f"p{share}": round(ordered[round(last * share / 100)], 3) for share in (50, 95, 99)}
