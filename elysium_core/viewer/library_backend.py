"""A backend without ROS: a model in this process looks at a file or a camera."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from elysium_core.errors import ElysiumError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.recording import Recording
from elysium_core.settings import TrackingConfig
from elysium_core.types import PerceptionModel
from elysium_core.viewer.backend import Deliver, Picture, Tell, ViewerError, encode_jpeg
from elysium_core.viewer.followed_targets import FollowedTargets
from elysium_core.viewer.frame_player import FramePlayer
from elysium_core.viewer.protocol import CameraStatus, TargetView

ANSWER_TIMEOUT_S = 60.0
"""Longest wait for the model [s]."""

_REMEMBERED_BYTES = 96 << 20
_REMEMBERED_FRAMES = 90
_RATE_FRAMES = 30
_JOIN_S = 5.0
_CAMERAS = ("",)

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class LibraryBackend:
    """Implements :class:`elysium_core.viewer.backend.Backend` with a model of this process.

    One thread uses the model: it takes requests first, then the newest frame. So an answer in words delays tracking.

    Args:
        recording: What is looked at; closed at the end.
        model: The model; closed at the end.
        config: Settings of the trackers.
        loop: Start a file over at its end.
        expressions: What is followed from the start, cleaned.
    """

    cameras: Sequence[str] = _CAMERAS

    def __init__(
        self,
        recording: Recording,
        model: PerceptionModel,
        config: TrackingConfig | None = None,
        *,
        loop: bool = True,
        expressions: Sequence[str] = (),
    ) -> None:
        # A folder on this machine is nobody's business.
        self.source = Path(recording.name).name or recording.name
        self._model = model
        self._targets = FollowedTargets(partial(model.tracker, "stream", config))
        for words in expressions:
            self._targets.add(words, None, None)
        self._arrival = threading.Condition()
        self._player = FramePlayer(recording, loop=loop, arrival=self._arrival, on_fault=self._on_fault)
        self._orders: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._is_watched = self._is_paused = self._is_closed = False
        # Something has changed since the newest frame was shown.
        self._needs_look = False
        self._remembered: deque[Frame] = deque(maxlen=_REMEMBERED_FRAMES)
        self._result_times: deque[float] = deque(maxlen=_RATE_FRAMES)
        self._latencies_s: deque[float] = deque(maxlen=300)
        self._fault: ElysiumError | None = None
        self._thread = threading.Thread(target=self._run, name="viewer_model", daemon=True)

    def start(self, deliver: Deliver, tell: Tell) -> None:
        """Start the threads."""
        self._deliver, self._tell = deliver, tell
        self._thread.start()
        self._player.start()

    def watch(self, cameras: frozenset[str]) -> None:
        """Show frames, or hold the file while nobody looks."""
        with self._arrival:
            self._is_watched = bool(cameras)
            self._player.hold(self._is_paused or not self._is_watched)
            self._needs_look = True
            self._arrival.notify_all()

    def status(self, camera: str) -> CameraStatus:
        """Return rates and latencies of the last frames."""
        # Copied at once: the model's thread appends to it.
        p50, p95 = (float(value) * 1e3 for value in np.percentile(list(self._latencies_s) or [0.0], (50, 95)))
        fault, player, info = self._fault, self._player, self._model.info
        return CameraStatus(
            model=Path(info.name).name,
            device=info.device,
            paused=self._is_paused,
            input_hz=_rate(player.arrival_times),
            output_hz=_rate(self._result_times),
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            received=player.received,
            dropped=player.dropped,
            fault="" if fault is None else fault.code,
            fault_text="" if fault is None else str(fault),
            position=player.position,
        )

    def track(self, camera: str, expression: str, box: Box | None, stamp_ns: int, add: bool) -> str:
        """Follow something; see :class:`elysium_core.viewer.backend.Backend`."""
        if not expression.strip() and box is None:
            raise TargetError("say what to follow, or draw a box", code="TARGET_EMPTY")

        def start() -> str:
            words = self._model.clean_words(expression) if expression.strip() else ""
            drawn_on = self._find(stamp_ns) if box is not None else None
            if not add:
                self._targets.remove("")
            target = self._targets.add(words, box, drawn_on)
            self._needs_look = True
            return target

        return self._ask_thread(start)

    def stop(self, camera: str, target: str) -> None:
        """Stop one target, or all."""

        def remove() -> None:
            self._targets.remove(target)
            self._needs_look = True

        self._ask_thread(remove)

    def describe(self, camera: str, target: str) -> str:
        """Describe a target by its box in the newest frame."""

        def describe() -> str:
            followed = self._targets.get(target)
            box = None if followed.last is None else followed.last.box
            if box is None:
                raise TargetError(f"target {target} has no box now; describe it when it is seen again", "TARGET_NO_BOX")
            followed.text = self._model.describe(self._find(0), box)
            self._needs_look = True
            return followed.text

        return self._ask_thread(describe)

    def ask(self, camera: str, question: str) -> str:
        """Ask about the newest frame."""
        return self._ask_thread(lambda: self._model.ask(self._find(0), question))

    def pause(self, paused: bool) -> None:
        """Hold the frame, or go on."""
        with self._arrival:
            self._is_paused = paused
            self._player.hold(paused or not self._is_watched)
            self._arrival.notify_all()

    def close(self) -> None:
        """End the threads; close recording and model."""
        with self._arrival:
            self._is_closed = True
            self._arrival.notify_all()
        self._player.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._model.close()

    # ----------------------------------------------------------------------------------------------- the model's thread

    def _run(self) -> None:
        while True:
            with self._arrival:
                self._arrival.wait_for(self._has_work)
                if self._is_closed:
                    break
                order = self._orders.popleft() if self._orders else None
                frame = None if order or self._is_paused else self._player.take()
            if order is not None:
                _fulfil(*order)
            elif frame is not None:
                self._look_at(frame)
            else:
                self._look_again()
        for _, answer in self._orders:
            answer.cancel()

    def _has_work(self) -> bool:
        if self._is_closed or self._orders or (self._player.has_frame and not self._is_paused):
            return True
        is_still = self._is_paused or (self._player.has_ended and not self._player.has_frame)
        return is_still and self._needs_look and self._is_watched and bool(self._remembered)

    def _look_at(self, frame: Frame) -> None:
        self._remember(frame)
        self._needs_look = False
        try:
            views = self._targets.step(frame)
        except Exception as error:  # noqa: BLE001 - a frame that cannot be used must not end the thread
            _log.exception("the tracker failed at a frame")
            self._on_fault(error if isinstance(error, ElysiumError) else ElysiumError(f"the tracker failed: {error}"))
            return
        failures = (tracker.stats.failure for tracker in self._targets.trackers)
        if (failure := next((f for f in failures if f is not None), None)) is not None:
            self._on_fault(failure)
        elif self._fault is not None and not self._player.has_ended:
            self._fault = None
        now_s = time.monotonic()
        self._result_times.append(now_s)
        self._latencies_s.append(now_s - (frame.arrived_s or now_s))
        if self._is_watched:
            self._show(frame, views)

    def _show(self, frame: Frame, views: tuple[TargetView, ...]) -> None:
        encode = partial(encode_jpeg, frame.image)
        self._deliver(Picture("", frame.stamp_ns, frame.width, frame.height, views, True, encode))

    def _look_again(self) -> None:
        """Look once more at the newest frame, because no other comes by itself."""
        self._needs_look = False
        frame = self._remembered[-1]
        self._show(frame, self._targets.step(frame))

    def _remember(self, frame: Frame) -> None:
        self._remembered.append(frame)
        size = frame.image.nbytes
        while len(self._remembered) > max(1, _REMEMBERED_BYTES // size):
            self._remembered.popleft()

    def _find(self, stamp_ns: int) -> Frame:
        if not self._remembered:
            raise ViewerError("there is no picture yet; wait for the first", code="NO_IMAGE")
        if stamp_ns == 0:
            return self._remembered[-1]
        frame = next((frame for frame in self._remembered if frame.stamp_ns == stamp_ns), None)
        if frame is None:
            raise TargetError("the picture that the box was drawn on is not remembered; draw again", code="BOX_STAMP")
        return frame

    # --------------------------------------------------------------------------------------------------- other threads

    def _ask_thread(self, order: Callable[[], Result]) -> Result:
        answer: Future[Result] = Future()
        with self._arrival:
            if self._is_closed:
                raise ViewerError("the viewer ends", code="VIEWER_CLOSED")
            self._orders.append((order, answer))
            self._arrival.notify_all()
        try:
            return answer.result(ANSWER_TIMEOUT_S)
        except CancelledError:
            raise ViewerError("the viewer ends", code="VIEWER_CLOSED") from None
        except FutureTimeoutError:
            answer.cancel()
            raise ViewerError(f"the model did not answer within {ANSWER_TIMEOUT_S:g} s", code="NO_ANSWER") from None

    def _on_fault(self, error: ElysiumError) -> None:
        is_news = self._fault is None or self._fault.code != error.code
        self._fault = error
        if is_news:
            self._tell("", error.code, str(error))


def _fulfil(order: Callable[[], Any], answer: Future[Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(order())
    except Exception as error:  # noqa: BLE001 - it belongs to who asked
        answer.set_exception(error)


def _rate(times: deque[float]) -> float:
    """Return a rate [Hz] from the times of the last events [s]; 0 if the last one is long ago."""
    points = list(times)
    if len(points) < 2 or time.monotonic() - points[-1] > 2.0:
        return 0.0
    return (len(points) - 1) / max(points[-1] - points[0], 1e-9)
