"""Live streams of network cameras (RTSP, HTTP), read in a thread so that the newest frame is always the next one."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from elysium_core.errors import VideoError, printable
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.video_stream import decode, frame_rate, main_stream, upright_rgb

_LOG = logging.getLogger(__name__)

# What FFmpeg may use for an address of each scheme: a playlist must not reach files or other protocols.
_PROTOCOLS: Final = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,udp,tcp,tls",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
}
SCHEMES: Final = tuple(_PROTOCOLS)
"""Schemes of the addresses that are read."""

_LONGEST_BACKOFF_S = 8.0
_JOIN_S = 2.0


def without_password(address: str) -> str:
    """Return an address as it may be shown: on one line, without user and password, and without its query."""
    shown = re.sub(r"(?<=://)[^/?#]*@", "", address).partition("?")[0]
    return printable(shown, 200)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A decoded frame, with its number and its time of arrival since the first one [ns]."""

    frame: VideoFrame
    index: int
    stamp_ns: int


class StreamRecording(Recording):
    """A live stream; see :class:`~elysium_core.io.recording.Recording`.

    Frames that come while the last one is still being used are left out, except for the newest; ``index`` counts them.
    Stamps are times of arrival since the first frame. A stream that breaks off is opened again.

    Attributes:
        reconnects: How often it was opened again.

    Args:
        address: An ``rtsp://``, ``rtsps://``, ``http://`` or ``https://`` address.
        timeout_s: Longest silence of the server before the connection counts as broken [s], > 0.
        patience_s: Without a frame for this long, despite new connections, the stream has ended [s].
        backoff_s: Wait before the first new connection; twice as long before each further one, up to 8 s [s].

    Raises:
        VideoError: ``STREAM_OPEN`` it cannot be opened; ``STREAM_FILE`` it is a recorded file; ``STREAM_SCHEME``
            another scheme; what :func:`~elysium_core.io.video_stream.main_stream` raises.
    """

    is_live = True

    def __init__(
        self, address: str, *, timeout_s: float = 5.0, patience_s: float = 30.0, backoff_s: float = 0.5
    ) -> None:
        self.name = without_password(address)
        self.reconnects = 0
        scheme = address.partition("://")[0].lower()
        if scheme not in _PROTOCOLS or not _has_host(address):
            raise VideoError(
                f"{self.name!r} is not the address of a stream; use one such as rtsp://host/path, with "
                f"{', '.join(SCHEMES)}",
                code="STREAM_SCHEME",
            )
        self._address, self._protocols = address, _PROTOCOLS[scheme]
        self._timeout_s, self._patience_s, self._backoff_s = timeout_s, patience_s, backoff_s
        self._changed = threading.Condition()
        self._newest: _Arrival | None = None
        self._failure: VideoError | None = None
        self._stopping = threading.Event()
        self._arrived = 0
        self._first_ns = 0
        self._heard_s = time.monotonic()
        self._coded_size = (0, 0)
        # A daemon: a server that answers nothing must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="live_stream", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._failure is not None)
            if self._newest is None and self._failure is not None:
                raise self._failure
            first = self._newest
        if first is not None:
            self.height, self.width = upright_rgb(first.frame, self._coded_size).shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, again and again, until the recording is closed.

        Raises:
            VideoError: The stream has broken off and cannot be had again (``STREAM_LOST``).
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._failure or self._stopping.is_set())
                if self._stopping.is_set():
                    return
                arrival, self._newest = self._newest, None
                if arrival is None:
                    raise self._failure or VideoError(f"the stream {self.name} has ended", code="STREAM_LOST")
            self.read += 1
            yield Frame(upright_rgb(arrival.frame, self._coded_size), arrival.stamp_ns, arrival.index)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a code and a sentence for each thing that was wrong with the frames read so far."""
        yield from super().problems()
        if self.reconnects:
            yield "STREAM_RECONNECTED", f"the stream broke off and was opened again {self.reconnects} times"

    def close(self) -> None:
        """End the thread; what it waits for may take until the timeout."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        backoff_s = self._backoff_s
        while not self._stopping.is_set():
            before = self._arrived
            try:
                self._read()
                reason = VideoError(f"the server of {self.name} ended the stream", code="STREAM_LOST")
            except VideoError as error:
                reason = error
            if self._stopping.is_set():
                return
            silence_s = time.monotonic() - self._heard_s
            if not self._arrived or silence_s > self._patience_s:
                self._fail(reason if not self._arrived else self._lost(silence_s, reason))
                return
            backoff_s = self._backoff_s if self._arrived > before else min(2 * backoff_s, _LONGEST_BACKOFF_S)
            _LOG.warning("%s; it is opened again in %.1f s", reason, backoff_s)
            self._stopping.wait(backoff_s)
            self.reconnects += 1

    def _lost(self, silence_s: float, reason: VideoError) -> VideoError:
        return VideoError(
            f"the stream {self.name} has sent nothing for {silence_s:.0f} s ({reason}); check camera and network",
            code="STREAM_LOST",
        )

    def _fail(self, error: VideoError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _read(self) -> None:
        """Read one connection to its end.

        Raises:
            VideoError: It cannot be opened or used.
        """
        with self._open() as container:
            if container.size > 0 and "hls" not in container.format.name:
                raise VideoError(
                    f"{self.name!r} is a recorded file of {container.size} bytes, not a live stream; download it first",
                    code="STREAM_FILE",
                )
            stream = main_stream(container, self.name)
            if not self._arrived:
                self.fps = frame_rate(stream)
            undecoded = 0
            for decoded, is_damaged in decode(container, stream):
                if self._stopping.is_set():
                    return
                if decoded is None:
                    undecoded = 1
                    continue
                # The last one of a connection is no frame: there, reading has failed.
                self.skipped, undecoded = self.skipped + undecoded, 0
                self.damaged += is_damaged
                self._arrive(decoded)
        if not self._arrived:
            raise VideoError(f"the stream {self.name} ended before a frame had come", code="STREAM_OPEN")

    def _arrive(self, decoded: VideoFrame) -> None:
        now_ns = time.monotonic_ns()
        with self._changed:
            if not self._arrived:
                self._first_ns, self._coded_size = now_ns, (decoded.width, decoded.height)
            self._newest = _Arrival(decoded, self._arrived, now_ns - self._first_ns)
            self._arrived += 1
            self._heard_s = now_ns / 1e9
            self._changed.notify_all()

    def _open(self) -> InputContainer:
        options = {"protocol_whitelist": self._protocols, "rtsp_transport": "tcp", "fflags": "nobuffer"}
        try:
            return av.open(self._address, options=options, timeout=(self._timeout_s, self._timeout_s))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise VideoError(
                f"the stream {self.name} cannot be opened ({reason}); check the address and that the camera is on",
                code="STREAM_OPEN",
            ) from error


def _has_host(address: str) -> bool:
    try:
        return bool(urlsplit(address).hostname)
    except ValueError:
        return False
