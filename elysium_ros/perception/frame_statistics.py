"""Rates, latencies and counts of the node since activation. Thread-safe; imports no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# Percentiles speak about the last frames, rates about the last seconds.
_LAST_FRAMES = 300
_RATE_WINDOW_S = 5.0
_RATE_EVENTS = 1000
_MODEL_STAGES = ("encode", "generate")


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Where the time of one frame went. None, or 0 for a model's part, leaves a stage out of the statistics.

    Attributes:
        latency_s: Stamp to publishing [s]; None if the image has no stamp.
        transport_s: Stamp to the arrival in this process [s]; None if the image has no stamp.
        wait_s: Arrival to the moment the inference thread takes it [s].
        decode_s: Message to RGB picture [s].
        encode_s: Vision encoder [s]; 0 if it had nothing to do.
        generate_s: Language model [s]; 0 if it had nothing to do.
        node_s: Arrival to publishing, which contains all but ``transport_s`` [s].
    """

    latency_s: float | None = None
    transport_s: float | None = None
    wait_s: float | None = None
    decode_s: float | None = None
    encode_s: float = 0.0
    generate_s: float = 0.0
    node_s: float | None = None


STAGES = ("transport", "wait", "decode", "encode", "generate", "node")
"""Stages in the order in which a frame passes them, and the whole way through the node."""


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """Percentiles of one stage [s]; 0 before the first frame."""

    name: str
    p50_s: float = 0.0
    p95_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The statistics at one moment.

    Attributes:
        input_rate_hz: Images received a second.
        output_rate_hz: Frames with a result a second.
        results: Frames with a result.
        latency_p50_s: Stamp to publishing, median [s]; 0 before the first frame.
        latency_p95_s: Stamp to publishing, 95th percentile [s].
        stages: All of :data:`STAGES`, in their order.
    """

    input_rate_hz: float = 0.0
    output_rate_hz: float = 0.0
    results: int = 0
    latency_p50_s: float = 0.0
    latency_p95_s: float = 0.0
    stages: tuple[StageSnapshot, ...] = tuple(StageSnapshot(name) for name in STAGES)

    def stage(self, name: str) -> StageSnapshot:
        """Return one stage by its name."""
        return self.stages[STAGES.index(name)]


def _times() -> deque[float]:
    return deque(maxlen=_RATE_EVENTS)


def _frames() -> deque[float]:
    return deque(maxlen=_LAST_FRAMES)


@dataclass(frozen=True, slots=True)
class _Record:
    """What has happened since the last reset; times on the steady clock [s], durations [s]."""

    received_s: deque[float] = field(default_factory=_times)
    published_s: deque[float] = field(default_factory=_times)
    latency_s: deque[float] = field(default_factory=_frames)
    stages_s: dict[str, deque[float]] = field(default_factory=lambda: {name: _frames() for name in STAGES})


class Statistics:
    """Collects what happens to frames.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._record, self._results = _Record(), 0

    def reset(self) -> None:
        """Start anew."""
        with self._lock:
            self._record, self._results = _Record(), 0

    def image_received(self) -> None:
        """Count an image on arrival."""
        with self._lock:
            self._record.received_s.append(self._clock())

    def result_published(self, times: FrameTimes) -> None:
        """Count a frame with a result."""
        with self._lock:
            record = self._record
            record.published_s.append(self._clock())
            self._results += 1
            if times.latency_s is not None:
                record.latency_s.append(times.latency_s)
            for name, values_s in record.stages_s.items():
                took_s = getattr(times, f"{name}_s")
                # A model that had nothing to do says nothing about how long it takes.
                if took_s or (took_s is not None and name not in _MODEL_STAGES):
                    values_s.append(took_s)

    def snapshot(self) -> Snapshot:
        """Return the statistics now."""
        with self._lock:
            now_s, record = self._clock(), self._record
            return Snapshot(
                _per_second(record.received_s, now_s),
                _per_second(record.published_s, now_s),
                self._results,
                *_percentiles(record.latency_s),
                tuple(StageSnapshot(name, *_percentiles(values_s)) for name, values_s in record.stages_s.items()),
            )


def _per_second(times_s: deque[float], now_s: float) -> float:
    """Return the rate of events over the last seconds [Hz]; forgets older ones."""
    while times_s and times_s[0] < now_s - _RATE_WINDOW_S:
        times_s.popleft()
    if len(times_s) < 2:
        return 0.0
    intervals = len(times_s) - 1
    span_s, silent_s = times_s[-1] - times_s[0], now_s - times_s[-1]
    # To the present when nothing comes any more, so that the rate falls instead of standing still.
    is_late = silent_s > span_s / intervals
    return intervals / max(1e-6, span_s + (silent_s if is_late else 0.0))


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile; 0 without values."""
    if not values:
        return 0.0, 0.0
    p50, p95 = np.percentile(list(values), (50, 95))
    return float(p50), float(p95)
