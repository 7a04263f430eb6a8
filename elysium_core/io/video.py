"""Video files and cameras, decoded by FFmpeg (PyAV), and :func:`open_video` for every kind of source."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from elysium_core.errors import ElysiumError, VideoError
from elysium_core.frames import MAX_PIXELS, Frame
from elysium_core.io.image import IMAGE_SUFFIXES
from elysium_core.io.recording import DEFAULT_FPS, PictureRecording, Recording, pictures_in

# FFmpeg also renders text files as "video"; a mistyped file name should not become a film of its letters.
_NOT_VIDEO_FORMATS = frozenset({"tty"})
# Containers without a frame rate state the rate of their clock instead, such as 90000.
_FASTEST_FPS = 1000
_DEVICE = re.compile(r"(?:/dev/video)?([0-9]{1,3})")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def open_video(source: str | PathLike[str] | int, *, fps: float = DEFAULT_FPS) -> Recording:
    """Open a source of frames and check that its first frame can be read.

    Args:
        source: A video file; a folder of pictures (read in natural order of their
            names: 2 before 10); a single picture; or a V4L2 camera as a number or
            ``/dev/videoN``. An existing file or folder wins over a camera number.
        fps: Frame rate of a folder of pictures [Hz].

    Raises:
        VideoError: The source is missing, empty, damaged, of an unknown format, or
            its frames are larger than :data:`~elysium_core.frames.MAX_PIXELS`.

    Example:
        >>> with open_video("kitchen.mp4") as recording:    # doctest: +SKIP
        ...     for frame in recording:
        ...         print(frame.index, frame.stamp_ns, frame.image.shape)
    """
    text = str(source)
    if not text:
        raise VideoError("the name of the video is empty; give a file, a folder of pictures or a camera number")
    path = Path(text)
    device = _DEVICE.fullmatch(text)
    if device and (text.startswith("/dev/") or not path.exists()):
        return CameraRecording(int(device.group(1)))
    if _ADDRESS.match(text):
        raise VideoError(f"{text[:200]!r} is a network address; only files, folders of pictures and cameras are read")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise VideoError(f"there is no video {text[:200]!r}; check the path", code="VIDEO_MISSING") from error
    if stat.S_ISDIR(mode):
        return PictureRecording(pictures_in(path), name=text, fps=fps)
    if not stat.S_ISREG(mode):
        raise VideoError(f"{text!r} is neither a file nor a folder of pictures nor a camera")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PictureRecording([path], name=text, fps=fps)
    return FileRecording(path)


class FileRecording(Recording):
    """A video file; see :class:`Recording`.

    Frames are rotated upright according to the file's metadata. Stamps count from the first frame.

    Args:
        path: An existing file.

    Raises:
        VideoError: It is not a video, is damaged from the start, or its frames are too large.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self.files = (path,)
        if path.stat().st_size == 0:
            raise VideoError(f"{self.name!r} is an empty file (0 bytes)", code="VIDEO_EMPTY")
        with self._open() as container:
            stream = _video_stream(container, self.name)
            first = next((frame for frame in _decode(container, stream) if frame is not None), None)
            if first is None:
                raise VideoError(f"{self.name!r} holds no frame that can be decoded", code="VIDEO_DECODE")
            self.fps = _frame_rate(stream)
            self.frame_count = stream.frames or None
        self._coded_size = (first.width, first.height)
        self.height, self.width = _upright_rgb(first, self._coded_size).shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first; one that cannot be decoded is skipped and counted."""
        self.skipped = 0
        clock = _StampClock(self.fps)
        with self._open() as container:
            stream = _video_stream(container, self.name)
            for index, decoded in enumerate(_decode(container, stream)):
                if decoded is None:
                    self.skipped += 1
                else:
                    yield Frame(_upright_rgb(decoded, self._coded_size), clock.stamp_ns(decoded, index), index)

    def _open(self) -> InputContainer:
        try:
            # The whitelist keeps a playlist from reaching out to the network.
            container = av.open(f"file:{self._path}", options={"protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(
                f"{self.name!r} cannot be read as a video ({reason}); it is damaged or has an unknown format",
                code="VIDEO_DECODE",
            ) from error
        if container.format.name in _NOT_VIDEO_FORMATS:
            container.close()
            raise VideoError(f"{self.name!r} is a text file, not a video", code="VIDEO_DECODE")
        return container


class CameraRecording(Recording):
    """A V4L2 camera; see :class:`Recording`.

    Stamps come from the camera driver and its clock.

    Args:
        number: N of ``/dev/videoN``.

    Raises:
        VideoError: There is no such camera, it is busy, or it sends no frames.
    """

    is_live = True

    def __init__(self, number: int) -> None:
        self.name = f"/dev/video{number}"
        if not Path(self.name).exists():
            raise VideoError(f"there is no camera {self.name}; list the cameras with: ls /dev/video*", "CAM_MISSING")
        try:
            self._container = av.open(self.name, format="v4l2")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"camera {self.name} cannot be opened: {reason}", code="CAM_OPEN") from error
        try:
            stream = _video_stream(self._container, self.name)
            self.fps = _frame_rate(stream)
            self.width, self.height = (stream.codec_context.width, stream.codec_context.height)
            self._decoded = enumerate(_decode(self._container, stream))
            self._clock = _StampClock(self.fps, from_zero=False)
        except ElysiumError:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the recording is closed; a second loop continues where the first one stopped.

        Raises:
            VideoError: The camera stopped sending.
        """
        for index, decoded in self._decoded:
            if decoded is None:
                self.skipped += 1
                continue
            image = _upright_rgb(decoded, (self.width, self.height))
            yield Frame(image, self._clock.stamp_ns(decoded, index), index)
        raise VideoError(f"camera {self.name} stopped sending frames; is it still plugged in?", code="CAM_TIMEOUT")

    def close(self) -> None:
        """Release the camera."""
        self._container.close()


class _StampClock:
    """Turns presentation times into strictly increasing stamps [ns]."""

    def __init__(self, fps: float, *, from_zero: bool = True) -> None:
        self._period_ns = round(1e9 / fps)
        self._start_ns: int | None = None if from_zero else 0
        self._last_ns = -1

    def stamp_ns(self, frame: VideoFrame, index: int) -> int:
        if frame.time is None:
            stamp = self._last_ns + self._period_ns if self._last_ns >= 0 else index * self._period_ns
        else:
            time_ns = round(frame.time * 1e9)
            if self._start_ns is None:
                self._start_ns = time_ns
            stamp = time_ns - self._start_ns
        self._last_ns = max(stamp, self._last_ns + 1)
        return self._last_ns


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        raise VideoError(f"{name!r} holds no video stream", code="VIDEO_EMPTY")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise VideoError(f"{name!r} uses a codec that this FFmpeg cannot decode", code="VIDEO_DECODE")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(
            f"the frames of {name!r} have {context.width}x{context.height} px, over the limit of {MAX_PIXELS} px",
            code="IMG_TOO_LARGE",
        )
    stream.thread_type = "AUTO"
    return stream


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | None]:
    """Yield decoded frames, and None for each packet that could not be read or decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            yield None
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            yield None
            continue
        yield from frames


def _frame_rate(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    fps = float(rate) if rate else 0.0
    return fps if 0 < fps <= _FASTEST_FPS else DEFAULT_FPS


def _upright_rgb(frame: VideoFrame, coded_size: tuple[int, int]) -> NDArray[np.uint8]:
    # A stream may change its size half-way; a recording has one size.
    image = frame.reformat(width=coded_size[0], height=coded_size[1], format="rgb24").to_ndarray()
    # Older versions of PyAV have no rotation attribute.
    quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns))
