"""Plays a recording at its own pace into a slot for the newest frame."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from elysium_core.errors import ElysiumError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording

# A still picture is shown this often, so that what is asked for is answered soon.
_STILL_PERIOD_S = 0.2
_JOIN_S = 3.0


class FramePlayer:
    """Reads a recording in a thread. A frame that is not taken in time is replaced by the next one.

    Files play at their own rate and hold while nobody watches; a camera is always read, so that its frames are new.

    Args:
        recording: What is played; it is closed at the end.
        loop: Start a file over at its end.
        arrival: Notified when there is a new frame.
        on_fault: Called with what ended the playing.

    Attributes:
        received: Frames that were read.
        dropped: Frames that were replaced by a newer one.
        position: Place in the file, 0..1; None for a camera, or if its length is unknown.
        arrival_times: Times of the last frames on a monotonic clock [s].
        has_ended: There will be no more frames.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        loop: bool,
        arrival: threading.Condition,
        on_fault: Callable[[ElysiumError], None],
    ) -> None:
        self.received = 0
        self.dropped = 0
        self.arrival_times: deque[float] = deque(maxlen=30)
        self.position: float | None = None
        self.has_ended = False
        self._recording = recording
        self._loop = loop
        self._arrival = arrival
        self._on_fault = on_fault
        self._waiting: Frame | None = None
        self._is_held = not recording.is_live
        self._is_closed = False
        self._base_ns = time.time_ns()
        self._thread = threading.Thread(target=self._run, name="viewer_player", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, held: bool) -> None:
        """Hold a file at its frame, or go on. A camera goes on in any case."""
        with self._arrival:
            self._is_held = held and not self._recording.is_live
            self._arrival.notify_all()

    @property
    def has_frame(self) -> bool:
        """Whether a frame waits; to be asked while ``arrival`` is held."""
        return self._waiting is not None

    def take(self) -> Frame | None:
        """Take the frame that waits, if there is one; to be called while ``arrival`` is held."""
        frame, self._waiting = self._waiting, None
        return frame

    def close(self) -> None:
        """End the thread and close the recording."""
        with self._arrival:
            self._is_closed = True
            self._arrival.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self._recording.close()

    def _run(self) -> None:
        try:
            while self._play() and self._loop:
                pass
        except ElysiumError as error:
            self._on_fault(error)
        except (OSError, ValueError, MemoryError) as error:
            self._on_fault(ElysiumError(f"{self._recording.name!r} cannot be read any more ({error})", "VIDEO_DECODE"))
        with self._arrival:
            self.has_ended = True
            self._arrival.notify_all()

    def _play(self) -> bool:
        """Play once; return whether the end was reached."""
        recording, first_ns, last_ns, frames = self._recording, 0, 0, 0
        started_s = time.monotonic()
        for frame in recording:
            if frames == 0:
                first_ns = frame.stamp_ns
            elapsed_ns = frame.stamp_ns - first_ns
            held_s = self._wait_until(started_s + elapsed_ns / 1e9 if not recording.is_live else 0.0)
            if held_s is None:
                return False
            started_s += held_s
            last_ns = max(last_ns, elapsed_ns)
            frames += 1
            total = recording.frame_count
            self.position = min(1.0, frames / total) if total and not recording.is_live else None
            self._put(replace(frame, index=self.received, stamp_ns=self._base_ns + elapsed_ns))
        pause_s = _STILL_PERIOD_S if frames == 1 else 1 / recording.fps
        self._base_ns += last_ns + round(pause_s * 1e9)
        return self._wait_until(started_s + last_ns / 1e9 + pause_s) is not None and frames > 0

    def _put(self, frame: Frame) -> None:
        with self._arrival:
            self.received += 1
            self.dropped += self._waiting is not None
            self.arrival_times.append(time.monotonic())
            self._waiting = replace(frame, arrived_s=self.arrival_times[-1])
            self._arrival.notify_all()

    def _wait_until(self, due_s: float) -> float | None:
        """Wait for a time and while frames are held; return how long they were held [s], None when closed."""
        held_s = 0.0
        with self._arrival:
            while not self._is_closed:
                now_s = time.monotonic()
                if self._is_held:
                    self._arrival.wait()
                    held_s += time.monotonic() - now_s
                elif now_s < due_s + held_s:
                    self._arrival.wait(due_s + held_s - now_s)
                else:
                    return held_s
        return None
