"""One video stream of a container: which one it is, its frames upright, their times, and where it ends."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from elysium_core.errors import VideoError
from elysium_core.frames import MAX_PIXELS
from elysium_core.io.recording import DEFAULT_FPS

# Containers without a frame rate state the rate of their clock instead, such as 90000.
_FASTEST_FPS = 1000
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
# Formats that are written as one stream without an end: times may jump where two recordings were joined.
_JOINABLE = frozenset({"mpegts", "mpeg"})
_LONGEST_GAP_NS = 10_000_000_000
# Formats that state a duration before the frames come; others guess it from what is there.
_STATE_DURATION = frozenset({"matroska,webm", "flv", "asf"})
_LAST_ENTRIES = 1000
# The stated end may be off by some frames, and by a small share of a long recording.
_END_FRAMES, _END_SHARE = 3, 0.02


def main_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the video itself: not a cover picture or preview, which may come first.

    Raises:
        VideoError: There is none, its codec is unknown, or its frames are too large.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    if not streams:
        only = " but a cover picture" if container.streams.video else ""
        raise VideoError(f"{name!r} holds no video stream{only}", code="VIDEO_EMPTY")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError(f"{name!r} uses a codec that this FFmpeg cannot decode", code="VIDEO_DECODE")
    stream = max(known, key=_rank)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(
            f"the frames of {name!r} have {context.width}x{context.height} px, over the limit of {MAX_PIXELS} px",
            code="IMG_TOO_LARGE",
        )
    stream.thread_type = "AUTO"
    return stream


def _rank(stream: VideoStream) -> tuple[bool, bool, int]:
    """Order of preference: moving pictures, then the stream that players show, then the largest."""
    context = stream.codec_context
    return stream.frames != 1, bool(stream.disposition & Disposition.default), context.width * context.height


class StreamEnd:
    """Compares what was read of a stream with the end that its file states.

    Args:
        container: The file.
        stream: Its stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container, self._stream = container, stream
        self._packets = 0
        self._end_s = 0.0
        self._failed = False

    def note(self, packet: Packet[VideoStream]) -> None:
        """Count one packet of the stream."""
        self._packets += packet.size > 0
        if packet.pts is not None and packet.time_base is not None:
            self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def fail(self) -> None:
        """Note that reading ended by an error."""
        self._failed = True

    def is_early(self) -> bool:
        """Return whether the file ended before the stated end. Only for streams that were read to their end."""
        if self._failed or self._lacks_packets():
            return True
        if self._container.format.name == "avi":
            return self._packets < self._stream.frames * (1 - _END_SHARE) - _END_FRAMES
        stated = self._stated_s()
        allowed = max(_END_FRAMES / frame_rate(self._stream), _END_SHARE * stated)
        return self._end_s < stated - allowed

    def _lacks_packets(self) -> bool:
        """Return whether the index of the file (MP4) names packets behind its end."""
        entries = self._stream.index_entries
        size = self._container.size
        last = range(max(0, len(entries) - _LAST_ENTRIES), len(entries))
        return size > 0 and any(entries[number].pos + entries[number].size > size for number in last)

    def _stated_s(self) -> float:
        """Return the end that the file states [s]; 0 if it states none."""
        if self._container.format.name not in _STATE_DURATION or not self._container.duration:
            return 0.0
        whole = self._container.duration / av.time_base
        # Sound may be longer than the video.
        own = _seconds(self._stream.metadata.get("DURATION", ""))
        if own is None:
            return whole if len(self._container.streams) == 1 else 0.0
        return min(own, whole)


def _seconds(text: str) -> float | None:
    """Read ``00:01:02.500000000``; None if it is not such a time."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None


def decode(
    container: InputContainer, stream: VideoStream, end: StreamEnd | None = None
) -> Iterator[tuple[VideoFrame | None, bool]]:
    """Yield each decoded frame and whether it is damaged; None for a packet that could not be read or decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            if end is not None:
                end.fail()
            yield None, True
            return
        if end is not None:
            end.note(packet)
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            yield None, True
            continue
        yield from ((frame, frame.is_corrupt) for frame in frames if isinstance(frame, VideoFrame))


class StampClock:
    """Turns presentation times into strictly increasing stamps [ns].

    Where times go back, as where two files were joined, the next frame comes one period after the last one.

    Args:
        fps: Nominal frame rate [Hz].
        format_name: FFmpeg's name of the container's format.
        from_zero: The first frame has stamp 0; else stamps are the times themselves.
    """

    def __init__(self, fps: float, format_name: str = "", *, from_zero: bool = True) -> None:
        self._period_ns = round(1e9 / fps)
        self._may_jump = format_name in _JOINABLE
        self._offset_ns: int | None = None if from_zero else 0
        self._last_ns = -1

    def stamp_ns(self, frame: VideoFrame, index: int) -> int:
        """Return the stamp of the next frame, which has number ``index``."""
        if frame.time is None:
            self._last_ns = self._last_ns + self._period_ns if self._last_ns >= 0 else index * self._period_ns
            return self._last_ns
        time_ns = round(frame.time * 1e9)
        if self._offset_ns is None:
            self._offset_ns = -time_ns
        stamp = time_ns + self._offset_ns
        is_jump = self._may_jump and stamp - self._last_ns > _LONGEST_GAP_NS
        if self._last_ns >= 0 and (stamp <= self._last_ns or is_jump):
            self._offset_ns += self._last_ns + self._period_ns - stamp
            stamp = self._last_ns + self._period_ns
        self._last_ns = max(stamp, 0)
        return self._last_ns


def frame_rate(stream: VideoStream) -> float:
    """Return the nominal frame rate [Hz]; a usual one if the stream states none."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    fps = float(rate) if rate else 0.0
    return fps if 0 < fps <= _FASTEST_FPS else DEFAULT_FPS


def upright_rgb(frame: VideoFrame, coded_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Convert a frame to RGB and turn or mirror it as its display matrix says.

    Args:
        frame: A decoded frame.
        coded_size: Width and height of the first frame: a stream may change its size, a recording has one size.
    """
    image = frame.reformat(width=coded_size[0], height=coded_size[1], format="rgb24").to_ndarray()
    a, b, c, d = _display_matrix(frame)
    # A point (x, y) of the picture is shown at (a x + c y, b x + d y).
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.swapaxes(0, 1)
        across, down = c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return the part of the display matrix that turns and mirrors; that of an upright picture if there is none."""
    entries: Iterable[Any] = frame.side_data  # the stubs of PyAV take it for a mapping from text
    for entry in entries:
        if entry.type is SideDataType.DISPLAYMATRIX:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(entry))
            return a, b, c, d
    return 1, 0, 0, 1
