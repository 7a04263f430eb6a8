"""What became of the images of one camera: arrived, refused, answered. Thread-safe; imports no ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# The share of lost images is that of the last one to two such periods.
_LOSS_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """The record of a camera at one moment.

    Attributes:
        silence_s: Time since the last image, used or not, or since the start if there was none [s].
        received: Images since the start, used or not.
        answered: Results since the start.
        result_age_s: Time since the last result [s]; 0 if there was none.
        lost: Images that the middleware lost on the way here since the start.
        loss_share: Share of the images of the last seconds that were lost, 0..1.
        waiting_s: Time since the first image after the last result [s]; 0 if none has come after it.
        refused: Images that could not be used since the last result, by code.
        last_refusal: Why the newest of them could not be used, starting with the code; empty if there is none.
        refusals: Images that could not be used since the start, by code.
    """

    silence_s: float = 0.0
    received: int = 0
    answered: int = 0
    result_age_s: float = 0.0
    lost: int = 0
    loss_share: float = 0.0
    waiting_s: float = 0.0
    refused: Mapping[str, int] = field(default_factory=dict)
    last_refusal: str = ""
    refusals: Mapping[str, int] = field(default_factory=dict)

    @property
    def refusal_code(self) -> str:
        """The commonest code of the images refused since the last result; empty if none was."""
        return max(self.refused, key=self.refused.__getitem__, default="")

    @property
    def refusal_text(self) -> str:
        """Why no image can be used, without the code at its start: all codes with counts, and the newest reason."""
        counts = ", ".join(f"{code} {count} times" for code, count in self.refused.items())
        return f"images arrive, but none could be used since the last result: {counts}; the newest: {self.last_refusal}"


class CameraRecord:
    """Notes what happens to the images of one camera.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_received_s = clock()
        self._received = self._answered = 0
        self._last_answered_s = 0.0
        self._lost = 0
        # What has come and what was lost, in the running and in the last period.
        self._period_begin_s, self._period, self._last_period = self._last_received_s, [0, 0], [0, 0]
        self._waiting_since_s: float | None = None
        self._refused: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._last_refusal = ""

    def image_received(self) -> None:
        """Note that an image has arrived, whatever will become of it."""
        with self._lock:
            self._received += 1
            self._last_received_s = self._clock()
            self._roll_period(self._last_received_s)
            self._period[0] += 1
            if self._waiting_since_s is None:
                self._waiting_since_s = self._last_received_s

    def images_lost(self, count: int) -> None:
        """Note that the middleware has lost images on the way here.

        Args:
            count: Their number; negative where images that counted as lost have come after all, as Fast DDS reports
                of large images among small ones.
        """
        with self._lock:
            self._lost = max(0, self._lost + count)
            self._roll_period(self._clock())
            self._period[1] = max(0, self._period[1] + count)

    def image_refused(self, reason: str) -> None:
        """Note that an image which has arrived cannot be used.

        Args:
            reason: One sentence that starts with a code and a colon.
        """
        code = reason.partition(":")[0]
        with self._lock:
            self._refused[code] += 1
            self._refusals[code] += 1
            self._last_refusal = reason

    def image_answered(self) -> None:
        """Note that there is a result of an image."""
        with self._lock:
            self._answered += 1
            self._last_answered_s = self._clock()
            self._waiting_since_s = None
            self._refused.clear()
            self._last_refusal = ""

    def wait_anew(self) -> None:
        """Do not count the time so far as waiting for a result, because none was wanted."""
        with self._lock:
            self._waiting_since_s = None
            self._refused.clear()
            self._last_refusal = ""

    def health(self) -> CameraHealth:
        """Return the record now."""
        with self._lock:
            now_s = self._clock()
            self._roll_period(now_s)
            came, lost = (sum(counts) for counts in zip(self._period, self._last_period, strict=True))
            return CameraHealth(
                silence_s=now_s - self._last_received_s,
                received=self._received,
                answered=self._answered,
                result_age_s=now_s - self._last_answered_s if self._answered else 0.0,
                lost=self._lost,
                loss_share=lost / max(1, came + lost),
                waiting_s=0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s,
                refused=dict(self._refused.most_common()),
                last_refusal=self._last_refusal,
                refusals=dict(self._refusals),
            )

    def _roll_period(self, now_s: float) -> None:
        passed = (now_s - self._period_begin_s) // _LOSS_PERIOD_S
        if passed >= 1:
            self._last_period = self._period if passed == 1 else [0, 0]
            self._period = [0, 0]
            self._period_begin_s += passed * _LOSS_PERIOD_S
