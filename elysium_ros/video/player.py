"""Settings of the video node, and the thread that plays a recording in real time. Imports no ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_ros.node.parameter_spec import Change, Spec

STAMPS = ("now", "video")
"""``now``: the clock when the frame is sent. ``video``: the clock at the start plus the time in the video, exactly."""


def _setting(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    facts = {"description": description, "limits": limits, "choices": choices, "unit": unit}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How a video is played as a camera; each field is a ROS parameter of the same name, read-only after start."""

    source: str = _setting(
        "", "Video file, folder of images, bag, /dev/videoN, number of a camera, or address of a stream."
    )
    topic: str = _setting("", "Image topic, of a bag; empty for the only one.")
    rate: float = _setting(
        0.0, "Frames a second; 0 = as recorded. Of a camera, at most this many.", limits=(0, 1000), unit="Hz"
    )
    loop: bool = _setting(False, "Start over at the end.")
    exit_at_end: bool = _setting(False, "End the process after the last frame instead of staying.")
    start_paused: bool = _setting(False, "Hold the first frame until ~/play is called with data: true.")
    pause_after: int = _setting(
        0, "Pause when this many frames were sent, until ~/play is called; 0 = never.", limits=(0, 1_000_000)
    )
    wait_for_subscribers: int = _setting(
        0, "Hold the first frame until the images have this many subscribers.", limits=(0, 100)
    )
    frame_id: str = _setting("camera_optical_frame", "Camera's optical frame, for every header.")
    width: int = _setting(0, "Scale to this width; 0 = keep, or in proportion to height.", limits=(0, 16384), unit="px")
    height: int = _setting(
        0, "Scale to this height; 0 = keep, or in proportion to width.", limits=(0, 16384), unit="px"
    )
    fov: float = _setting(60.0, "Horizontal field of view that camera_info pretends.", limits=(1, 179), unit="deg")
    stamps: str = _setting(
        "now", "now: when sent. video: the start plus the time in the video, exactly.", choices=STAMPS
    )
    image_transport: str = _setting(
        "raw", "Images as they are, as JPEG on image/compressed, or both.", choices=("raw", "compressed", "both")
    )
    jpeg_quality: int = _setting(90, "Quality of the compressed images.", limits=(1, 100))
    reliability: str = _setting(
        "reliable", "Of the image topics; reliable matches every subscriber.", choices=("reliable", "best_effort")
    )

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> VideoSettings:
        """Build settings from parameter values as a command line types them.

        ``rate:=15`` arrives as a whole number and ``source:=0`` too; both mean what a person meant.

        Raises:
            ConfigError: A value is of the wrong type or out of range; the message names all that are.
        """
        accepted: dict[str, Any] = {}
        problems = []
        for name, value in values.items():
            number = isinstance(value, int) and not isinstance(value, bool)
            try:
                accepted[name] = VIDEO_SPECS[name].coerce(str(value) if name == "source" and number else value)
            except ConfigError as error:
                problems.append(str(error))
        if not accepted.get("source", "?"):
            problems.append("no source is given; set the parameter `source` to a video, a folder of images or a camera")
        if problems:
            raise ConfigError("; ".join(problems))
        return cls(**accepted)


VIDEO_SPECS: dict[str, Spec] = {
    entry.name: Spec(
        name=entry.name, attribute=entry.name, default=entry.default, change=Change.READ_ONLY, **entry.metadata
    )
    for entry in fields(VideoSettings)
}
"""The table by parameter name."""


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The moment that ties video time to both clocks; renewed after every pause."""

    video_ns: int
    steady_s: float
    stamp_ns: int


class VideoPlayer:
    """Hands out each frame when it is due, never early.

    No frame of a file is dropped: those that are late (a slow disk, a busy machine)
    are handed out at once until the schedule is met again, as ``ros2 bag play`` does.

    Args:
        recording: What to play; closed with the player.
        emit: Called with each frame and its stamp [ns], in the player's thread.
        now_ns: The clock that stamps are in [ns].
        rate_hz: Frames a second; 0 = as recorded. Of a camera, at most this many.
        loop: Start over at the end.
        pause_after: Pause by itself when this many frames were handed out; 0 = never.
        stamps: One of :data:`STAMPS`; a camera's frames are always stamped ``now``.
        on_end: Called once in the player's thread when there will be no more frames.
    """

    def __init__(
        self,
        recording: Recording,
        emit: Callable[[Frame, int], None],
        now_ns: Callable[[], int],
        *,
        rate_hz: float = 0.0,
        loop: bool = False,
        pause_after: int = 0,
        stamps: str = "now",
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._recording = recording
        self._emit = emit
        self._now_ns = now_ns
        self._rate_hz = rate_hz
        self._loop = loop
        self._pause_after = pause_after
        self._video_stamps = stamps == "video" and not recording.is_live
        self._on_end = on_end
        self._anchor: _Anchor | None = None
        self._sent_at_s = float("-inf")
        self._playing = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="video_player", daemon=True)
        self.error: Exception | None = None
        self.frames_sent = 0

    def start(self) -> None:
        """Start the thread, paused; :meth:`play` makes it run."""
        self._thread.start()

    def play(self) -> None:
        """Play, or go on after a pause."""
        self._playing.set()

    def pause(self) -> None:
        """Hold at the next frame; a camera's frames are dropped meanwhile."""
        self._playing.clear()

    @property
    def is_paused(self) -> bool:
        """Whether no frames are handed out until :meth:`play`."""
        return not self._playing.is_set()

    def close(self) -> None:
        """End the thread and close the recording; can be called twice."""
        self._stopping.set()
        self._playing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._recording.close()

    def _run(self) -> None:
        try:
            offset_ns = self._play_once(0)
            while self._loop and not self._stopping.is_set():
                offset_ns = self._play_once(offset_ns)
        except Exception as error:  # noqa: BLE001 - the thread's last resort: whoever waits for the end reads why
            self.error = error
        finally:
            self._on_end()

    def _play_once(self, offset_ns: int) -> int:
        """Play from the beginning to the end; return the video time at which the next round starts [ns]."""
        video_ns, first_ns = offset_ns, None
        for frame in self._recording:
            time_ns = self._time_in_round(frame)
            # The stamps of a bag are times of day.
            first_ns = time_ns if first_ns is None else first_ns
            video_ns = offset_ns + time_ns - first_ns
            wanted = self._wanted_now() if self._recording.is_live else self._wait_until_due(video_ns)
            if self._stopping.is_set():
                break
            if wanted:
                self._emit(frame, self._stamp_ns(video_ns))
                self.frames_sent += 1
                if self.frames_sent == self._pause_after:
                    self.pause()
        return video_ns + round(1e9 / (self._rate_hz or self._recording.fps))

    def _time_in_round(self, frame: Frame) -> int:
        return round(frame.index * 1e9 / self._rate_hz) if self._rate_hz else frame.stamp_ns

    def _wait_until_due(self, video_ns: int) -> bool:
        if not self._playing.is_set():
            self._anchor = None
            self._playing.wait()
        if self._anchor is None:
            self._anchor = _Anchor(video_ns, time.monotonic(), self._now_ns())
        due_s = self._anchor.steady_s + (video_ns - self._anchor.video_ns) * 1e-9
        self._stopping.wait(max(0.0, due_s - time.monotonic()))
        return True

    def _wanted_now(self) -> bool:
        """Whether a camera's frame is handed out: not while paused, and not faster than asked for."""
        now_s = time.monotonic()
        # A tenth of a period of grace, or jitter would halve the rate of a camera that runs at just this rate.
        too_early = self._rate_hz > 0 and now_s - self._sent_at_s < 0.9 / self._rate_hz
        if too_early or not self._playing.is_set():
            return False
        self._sent_at_s = now_s
        return True

    def _stamp_ns(self, video_ns: int) -> int:
        if not self._video_stamps or self._anchor is None:
            return self._now_ns()
        return self._anchor.stamp_ns + video_ns - self._anchor.video_ns
