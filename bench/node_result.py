"""What one run of ``python -m bench.node`` measured, and the machine it ran on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elysium_ros.client.node_process import PROFILE_VARIABLES

MEBIBYTE = 2**20
_MOST_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What one run measured.

    Attributes:
        model: Model of the node.
        rate_hz: Images a second that were sent.
        width: Image width [px].
        height: Image height [px].
        seconds: How long images were sent [s].
        sent: Images sent.
        answered: Images with an answer.
        superseded: Images received by the node and skipped for a newer one.
        lost: Images that never reached the node's callback.
        latency_p50_ms: Stamp of the image to arrival of its answer here, median [ms].
        latency_p95_ms: The same, 95th percentile [ms].
        latency_p99_ms: The same, 99th percentile [ms].
        node_latency_p50_ms: Stamp of the image to publishing, as the node itself says, median [ms].
        return_ms: Publishing to arrival here, median and 95th percentile [ms]; the bench's own share is in here.
        stages_ms: Median and 95th percentile of each stage over the last frames, as the node says [ms].
            ``transport`` is the way there, ``node`` is what the node itself takes, all others are parts of ``node``.
        rss_start_mib: Memory of the node when the first image was sent [MiB].
        rss_end_mib: Memory of the node after the last answer [MiB].
        rss_slope_mib_per_h: Straight line through the memory in the last two thirds [MiB/h];
            None when that is less than a minute, in which a slope is noise.
        pages: Pages of the viewer that looked on; None if no viewer ran.
    """

    model: str
    rate_hz: float
    width: int
    height: int
    seconds: float
    sent: int
    answered: int
    superseded: int
    lost: int
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    node_latency_p50_ms: float
    return_ms: tuple[float, float]
    stages_ms: dict[str, tuple[float, float]]
    rss_start_mib: float
    rss_end_mib: float
    rss_slope_mib_per_h: float | None
    pages: int | None = None


def slope_per_hour(samples: Sequence[tuple[float, int]]) -> float | None:
    """Return how fast memory grows after the first third, which is warming up [MiB/h].

    It is the median of the slopes between all pairs of samples (Theil and Sen): a few odd samples, or memory that is
    taken once and given back, do not tilt it as they tilt a fitted line.

    Args:
        samples: Time [s] and memory [bytes], in order of time.

    Returns:
        None if they span less than a minute.
    """
    late = [sample for sample in samples if sample[0] >= samples[-1][0] / 3] if samples else []
    if not late or late[-1][0] - late[0][0] < 60.0:
        return None
    # All pairs of a day of samples would not fit into memory; a thousand samples say the same.
    times_s, sizes = np.asarray(late[:: len(late) // _MOST_SAMPLES + 1], dtype=np.float64).T
    first, second = np.triu_indices(len(times_s), k=1)
    slopes = (sizes[second] - sizes[first]) / (times_s[second] - times_s[first])
    return float(np.median(slopes)) * 3600 / MEBIBYTE


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "ros_distro": os.environ.get("ROS_DISTRO", "unknown"),
        "rmw": os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
        "dds_profile": next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), ""),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def as_text(result: Result) -> str:
    """Return one run as a line for people."""
    slope = result.rss_slope_mib_per_h
    growth = "slope needs a longer run" if slope is None else f"{slope:+.1f} MiB/h"
    return (
        f"{result.model:>10}  {result.width}x{result.height} at {result.rate_hz:g} Hz  "
        f"p50 {result.latency_p50_ms:.1f} ms  p95 {result.latency_p95_ms:.1f} ms  p99 {result.latency_p99_ms:.1f} ms  "
        f"{result.answered} answered, {result.superseded} superseded, {result.lost} lost of {result.sent}  "
        f"RSS {result.rss_start_mib:.0f} -> {result.rss_end_mib:.0f} MiB ({growth})"
        f"{'' if result.pages is None else f'  viewer with {result.pages} pages'}"
    )


def stages_as_text(result: Result) -> str:
    """Return where the time of a run went as a line for people."""
    parts = {**result.stages_ms, "way back": result.return_ms}
    return f"{'':>10}  p50 / p95 of " + ", ".join(f"{name} {p50:.1f} / {p95:.1f}" for name, (p50, p95) in parts.items())
