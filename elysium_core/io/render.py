"""Writing what was seen and drawn: MP4 video, animated GIF, or a contact sheet of a few frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from elysium_core.errors import VideoError
from elysium_core.frames import Frame, sample_evenly
from elysium_core.io.frame_writer import EvenSample, FrameWriter
from elysium_core.io.gif import GifWriter
from elysium_core.io.image import write_image
from elysium_core.io.labels import LabelStyle, draw_label, label_size

# Divides evenly by all usual frame rates (24, 25, 30, 29.97, 50, 60) and is within the limit of MPEG-4 part 2.
_TICKS_PER_S = 60_000
_SHEET_TILES = 12
_SHEET_GROUND, _SHEET_INK = (24, 24, 24), (225, 225, 225)


def open_writer(path: str | PathLike[str], fps: float) -> FrameWriter:
    """Open a writer for the format that the ending of ``path`` names.

    ``.mp4`` is a video, ``.gif`` an animation of at most 4 MB, ``.png`` or ``.jpg``
    a contact sheet of at most 12 frames.

    Args:
        path: The file to write.
        fps: Nominal frame rate [Hz]; the stamps of the frames decide when each is shown.

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


class Mp4Writer(FrameWriter):
    """Writes H.264 (MPEG-4 part 2 where FFmpeg has no encoder for it) that every player shows.

    Args:
        path: The file to write.
        fps: Nominal frame rate, > 0 [Hz].

    Raises:
        VideoError: The file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path)
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
        """Encode the next frame; one of another size is scaled to the first one's."""
        try:
            container, stream = self._opened(frame)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="rgb24")
            tick = round((frame.stamp_ns - self._start_ns) * _TICKS_PER_S / 1e9)
            self._last_tick = max(tick, self._last_tick + 1)
            picture.pts, picture.time_base = self._last_tick, Fraction(1, _TICKS_PER_S)
            container.mux(stream.encode(picture.reformat(stream.width, stream.height, "yuv420p")))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._failure(error) from error

    def abort(self) -> None:
        """Throw away what was written; a finished file stays."""
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
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = _add_stream(self._container, self._rate, frame.width, frame.height)
        return self._container, self._stream


def _add_stream(container: OutputContainer, rate: Fraction, width: int, height: int) -> VideoStream:
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "4"})
    # 4:2:0 colour needs even sizes; an odd last row or column is scaled in, not cut.
    stream.width, stream.height = (max(2, side // 2 * 2) for side in (width, height))
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
    return stream


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
        """Take the next frame."""
        if self._sample.wants_next():
            self._sample.add(Frame(_fitted(frame.image, self.max_width), frame.stamp_ns, frame.index))
        else:
            self._sample.skip()

    def _finish(self) -> None:
        frames = sample_evenly(self._sample.kept, _SHEET_TILES)
        captions = [f"frame {frame.index}" for frame in frames]
        write_image(self._temporary, contact_sheet([frame.image for frame in frames], captions))


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int | None = None, gap_px: int = 6
) -> NDArray[np.uint8]:
    """Lay pictures out in a grid, each with a caption in a strip below it.

    Args:
        images: RGB uint8 pictures, at least one; all are scaled to the size of the first.
        captions: One a picture; if all are empty there is no strip.
        columns: Pictures in a row; as square as possible if None.
        gap_px: Space around each picture [px].

    Returns:
        An RGB uint8 picture.

    Raises:
        ValueError: There is no picture, or not one caption a picture.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"a contact sheet needs one caption a picture, not {len(captions)} for {len(images)}")
    height, width = images[0].shape[:2]
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images) * height / width * 1.5)))
    rows = math.ceil(len(images) / columns)
    font_px = max(10, round(width / 28))
    strip_px = label_size(captions[0], font_px)[1] if any(captions) else 0
    row_px, column_px = height + strip_px + gap_px, width + gap_px
    sheet = np.full((rows * row_px + gap_px, columns * column_px + gap_px, 3), _SHEET_GROUND, np.uint8)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(position, columns)
        top, left = gap_px + row * row_px, gap_px + column * column_px
        sheet[top : top + height, left : left + width] = cv2.resize(image, (width, height))
        if caption:
            draw_label(sheet, caption, left, top + height, font_px, LabelStyle(_SHEET_GROUND, _SHEET_INK))
    return sheet


def _fitted(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    if image.shape[1] <= width:
        return image.copy()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
