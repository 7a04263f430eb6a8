"""Writers of rendered frames: MP4 video, animated GIF, or a contact sheet of a few frames."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.frame_writer import LONGEST_SIDE_PX, FrameWriter
from elysium_core.io.gif import MAX_BYTES, write_gif
from elysium_core.io.image import resized, write_image
from elysium_core.io.labels import contact_sheet
from elysium_core.io.mp4_writer import Mp4Writer
from elysium_core.io.sampling import EvenSample, sample_evenly

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


def _at_most(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return a copy, scaled down if it is wider than ``width`` px or very tall."""
    scale = min(1.0, width / image.shape[1], LONGEST_SIDE_PX / image.shape[0])
    if scale == 1:
        return image.copy()
    return resized(image, *(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])))
