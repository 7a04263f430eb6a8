"""Rates, latencies and counts of the node since activation. Thread-safe; knows no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Percentiles speak about the last frames, rates about the last seconds.
_LAST_FRAMES = 300
_RATE_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The statistics at one moment.

    Attributes:
        input_rate_hz: Images received a second.
        output_rate_hz: Frames with a result a second.
        results: Frames with a result.
        latency_p50_s: Stamp to publishing, median [s]; 0 before the first frame, as all that follow.
        latency_p95_s: Stamp to publishing, 95th percentile [s].
        encode_p50_s: Vision encoder, median [s].
        generate_p50_s: Language model, median [s].
    """

    input_rate_hz: float = 0.0
    output_rate_hz: float = 0.0
    results: int = 0
    latency_p50_s: float = 0.0
    latency_p95_s: float = 0.0
    encode_p50_s: float = 0.0
    generate_p50_s: float = 0.0


class _Rate:
    """Events a second over the last seconds."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=1000)

    def tick(self, now_s: float) -> None:
        self._times_s.append(now_s)

    def per_second(self, now_s: float) -> float:
        while self._times_s and self._times_s[0] < now_s - _RATE_WINDOW_S:
            self._times_s.popleft()
        if len(self._times_s) < 2:
            return 0.0
        # To the present when nothing comes any more, so that the rate falls instead of standing still.
        intervals = len(self._times_s) - 1
        period_s = (self._times_s[-1] - self._times_s[0]) / intervals
        silent_s = now_s - self._times_s[-1]
        return intervals / max(1e-6, self._times_s[-1] - self._times_s[0] + (silent_s if silent_s > period_s else 0.0))


class Statistics:
    """Collects what happens to frames.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        with self._lock:
            self._input, self._output = _Rate(), _Rate()
            self._results = 0
            self._latency_s: deque[float] = deque(maxlen=_LAST_FRAMES)
            self._encode_s: deque[float] = deque(maxlen=_LAST_FRAMES)
            self._generate_s: deque[float] = deque(maxlen=_LAST_FRAMES)

    def image_received(self) -> None:
        """Count an image on arrival."""
        with self._lock:
            self._input.tick(self._clock())

    def result_published(self, latency_s: float | None, encode_s: float, generate_s: float) -> None:
        """Count a frame with a result.

        Args:
            latency_s: Stamp to publishing [s]; None if the image had no stamp.
            encode_s: Time of the vision encoder [s]; 0 if it had nothing to do.
            generate_s: Time of the language model [s]; 0 if it had nothing to do.
        """
        with self._lock:
            self._output.tick(self._clock())
            self._results += 1
            if latency_s is not None:
                self._latency_s.append(latency_s)
            if encode_s > 0:
                self._encode_s.append(encode_s)
            if generate_s > 0:
                self._generate_s.append(generate_s)

    def snapshot(self) -> Snapshot:
        """Return the statistics now."""
        with self._lock:
            now_s = self._clock()
            p50, p95 = _percentiles(self._latency_s, (50, 95))
            return Snapshot(
                self._input.per_second(now_s),
                self._output.per_second(now_s),
                self._results,
                p50,
                p95,
                *_percentiles(self._encode_s, (50,)),
                *_percentiles(self._generate_s, (50,)),
            )


def _percentiles(values: Sequence[float], which: Sequence[float]) -> list[float]:
    return [float(v) for v in np.percentile(list(values), which)] if values else [0.0] * len(which)
