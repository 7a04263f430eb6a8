"""Writer of MP4 video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from elysium_core.frames import Frame
from elysium_core.io.frame_writer import LONGEST_SIDE_PX, FrameWriter

# Divides evenly by all usual frame rates (24, 25, 30, 29.97, 50, 60) and is within the limit of MPEG-4 part 2.
_MP4_TICKS_PER_S = 60_000

# The limit of MPEG-4 part 2 [px].
_LONGEST_SIDE_MPEG4 = 8190


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
        self.max_width = LONGEST_SIDE_PX
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
    scale = min(1.0, (LONGEST_SIDE_PX if is_h264 else _LONGEST_SIDE_MPEG4) / max(width, height))
    stream.width, stream.height = (max(2, int(side * scale) // 2 * 2) for side in (width, height))
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, _MP4_TICKS_PER_S)
    return stream
