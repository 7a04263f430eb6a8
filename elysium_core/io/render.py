"""Writers of rendered frames: MP4 video, animated GIF, or a contact sheet of a few frames."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.files import draft_of, publish
from elysium_core.io.gif import MAX_BYTES, write_gif
from elysium_core.io.image import resized, write_image
from elysium_core.io.labels import contact_sheet
from elysium_core.io.sampling import sample_evenly

T = TypeVar("T")

# Divides evenly by all usual frame rates (24, 25, 30, 29.97, 50, 60) and is within the limit of MPEG-4 part 2.
_MP4_TICKS_PER_S = 60_000

# Few players show more, and no encoder takes much more [px].
_LONGEST_SIDE = 8192
_LONGEST_SIDE_MPEG4 = 8190

_SHEET_TILES = 12


def open_writer(path: str | PathLike[str], fps: float) -> FrameWriter:
    """Open a writer for the format that the ending of ``path`` names.

    ``.mp4`` is a video, ``.gif`` an animation of at most 4 MB, ``.png`` or ``.jpg``
    a contact sheet of at most 12 frames.

    Args:
        path: The file to write.
        fps: Nominal frame rate [Hz]; each frame is shown at its own stamp.

    Raises:
        VideoError: The ending is unknown or the folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return Mp4Writer(path, fps)
    if suffix == ".gif":
        return GifWriter(path)
    if suffix in (".png", ".jpg", ".jpeg"):
        return ContactSheetWriter(path)
    raise VideoError(f"cannot write a video as {str(path)!r}; end it in .mp4, .gif or .png", code="VIDEO_WRITE")


class FrameWriter(ABC):
    """Writes frames to a file that appears only when it is complete.

    Use it as a context manager: leaving the block normally completes the file,
    leaving it by an exception discards it.

    Args:
        path: The file to write; missing parent folders are made.

    Attributes:
        path: The file to write.
        max_width: Frames wider than this are scaled down [px]; None = never.

    Raises:
        VideoError: The folder cannot be written.
    """

    max_width: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._temporary = draft_of(path)
            self._temporary.touch()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Add the next frame, to be shown at its ``stamp_ns``.

        Raises:
            VideoError: The file cannot be written.
        """

    @abstractmethod
    def _finish(self) -> None:
        """Write the rest of the temporary file; at least one frame was added before."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """No frame has been written."""

    def scale_for(self, width: int) -> float:
        """Return the scale, 0..1, at which a frame of ``width`` px is written.

        Labels should be drawn after scaling by it, so that they stay readable.
        """
        return min(1.0, self.max_width / width) if self.max_width else 1.0

    def close(self) -> None:
        """Complete the file. Without a single frame no file is written.

        Raises:
            VideoError: The file cannot be written.
        """
        try:
            if not self.is_empty:
                self._finish()
                publish(self._temporary, self.path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Discard the temporary file; a completed file stays."""
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _failure(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or error
        return VideoError(f"cannot write {str(self.path)!r}: {reason}", code="VIDEO_WRITE")


class Mp4Writer(FrameWriter):
    """Writes H.264 video, or MPEG-4 part 2 where FFmpeg has no H.264 encoder; at most 8192 px a side.

    Args:
        path: The file to write.
        fps: Nominal frame rate, > 0 [Hz].

    Raises:
        VideoError: The file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path)
        self.max_width = _LONGEST_SIDE
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._start_ns = 0
        self._last_tick = -1

    @property
    def is_empty(self) -> bool:
        """No frame has been written."""
        return self._container is None

    def write(self, frame: Frame) -> None:
        """Encode the next frame; a frame of another size is scaled to the size of the first."""
        try:
            container, stream = self._opened(frame)
            tick = round((frame.stamp_ns - self._start_ns) * _MP4_TICKS_PER_S / 1e9)
            self._last_tick = max(tick, self._last_tick + 1)
            picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="rgb24")
            picture.pts, picture.time_base = self._last_tick, Fraction(1, _MP4_TICKS_PER_S)
            container.mux(stream.encode(picture.reformat(stream.width, stream.height, "yuv420p")))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._failure(error) from error

    def abort(self) -> None:
        """Discard the temporary file; a completed file stays."""
        if self._container is not None:
            self._container.close()
        super().abort()

    def _finish(self) -> None:
        if self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def _opened(self, frame: Frame) -> tuple[OutputContainer, VideoStream]:
        if self._container is None or self._stream is None:
            self._start_ns = frame.stamp_ns
            self._container = av.open(
                # Else FFmpeg would take the part of a name before a colon for a protocol.
                f"file:{self._temporary}",
                "w",
                format="mp4",
                options={"movflags": "+faststart"},
            )
            self._stream = _add_mp4_stream(self._container, self._rate, frame.width, frame.height)
        return self._container, self._stream


def _add_mp4_stream(container: OutputContainer, rate: Fraction, width: int, height: int) -> VideoStream:
    is_h264 = "libx264" in av.codecs_available
    if is_h264:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "4"})
    # 4:2:0 colour needs even sizes; the frame is scaled, so that an odd last row or column is not cut off.
    scale = min(1.0, (_LONGEST_SIDE if is_h264 else _LONGEST_SIDE_MPEG4) / max(width, height))
    stream.width, stream.height = (max(2, int(side * scale) // 2 * 2) for side in (width, height))
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, _MP4_TICKS_PER_S)
    return stream


class GifWriter(FrameWriter):
    """Writes an animated GIF of bounded size; see :class:`FrameWriter`.

    At most ``max_fps`` frames a second are kept and at most ``max_frames`` in all,
    spread evenly. A file that is too large is written again: narrower, then with
    fewer frames, then both.

    Args:
        path: The file to write.
        max_width: Widest picture [px], > 0.
        max_fps: Highest frame rate [Hz], 1..50.
        max_frames: Most frames kept, >= 2.
        max_bytes: Largest file [bytes].

    Raises:
        VideoError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_width: int = 480,
        max_fps: float = 15.0,
        max_frames: int = 150,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(path)
        self.max_width = max_width
        self._max_bytes = max_bytes
        self._interval_ns = 1e9 / max_fps
        self._due_ns = -math.inf
        self._sample: EvenSample[Frame] = EvenSample(max_frames)
        self._end_ns = 0

    @property
    def is_empty(self) -> bool:
        """No frame has been written."""
        return not self._sample.kept

    def write(self, frame: Frame) -> None:
        """Add the next frame; of a fast video most frames are left out."""
        self._end_ns = frame.stamp_ns
        # Half a millisecond of tolerance: stamps are rounded, and 10 Hz out of 30 Hz is each third frame.
        if frame.stamp_ns < self._due_ns - 500_000:
            return
        self._due_ns = frame.stamp_ns + self._interval_ns
        if self._sample.wants_next():
            image = _at_most(frame.image, self.max_width or frame.width)
            self._sample.add(Frame(image, frame.stamp_ns, frame.index))
        else:
            self._sample.skip()

    def _finish(self) -> None:
        write_gif(self._temporary, self._sample.kept, self._end_ns, self._max_bytes)


class ContactSheetWriter(FrameWriter):
    """Writes one picture of up to 12 frames in a grid, spread evenly over the recording.

    Args:
        path: The picture to write.

    Raises:
        VideoError: The file cannot be written.
    """

    max_width = 480

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._sample: EvenSample[Frame] = EvenSample(2 * _SHEET_TILES)

    @property
    def is_empty(self) -> bool:
        """No frame has been written."""
        return not self._sample.kept

    def write(self, frame: Frame) -> None:
        """Add the next frame."""
        if self._sample.wants_next():
            self._sample.add(Frame(_at_most(frame.image, self.max_width), frame.stamp_ns, frame.index))
        else:
            self._sample.skip()

    def _finish(self) -> None:
        frames = sample_evenly(self._sample.kept, _SHEET_TILES)
        write_image(self._temporary, contact_sheet(frames))


class EvenSample(Generic[T]):
    """Keeps a bounded number of items from a stream of unknown length, evenly spread.

    Args:
        limit: Most items kept, >= 2.

    Attributes:
        kept: The items kept, in order; the first item always is.
    """

    def __init__(self, limit: int) -> None:
        self.kept: list[T] = []
        self._limit = limit
        self._stride = 1
        self._seen = 0

    def wants_next(self) -> bool:
        """Return whether the next item would be kept, so that others need not be made."""
        return self._seen % self._stride == 0

    def add(self, item: T) -> None:
        """Offer the next item."""
        if self.wants_next():
            if len(self.kept) == self._limit:
                self.kept = self.kept[::2]
                self._stride *= 2
            if self.wants_next():
                self.kept.append(item)
        self._seen += 1

    def skip(self) -> None:
        """Pass over an item for which :meth:`wants_next` is false."""
        self._seen += 1


def _at_most(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return a copy, scaled down if it is wider than ``width`` px or very tall."""
    scale = min(1.0, width / image.shape[1], _LONGEST_SIDE / image.shape[0])
    if scale == 1:
        return image.copy()
    return resized(image, *(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])))
