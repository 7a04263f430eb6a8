"""Animated GIFs that stay small enough for a README or an issue."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elysium_core.frames import Frame
from elysium_core.io.frame_writer import EvenSample, FrameWriter

MAX_BYTES = 4_000_000
"""Size a GIF is shrunk to [bytes]."""

# A picture is not made narrower than this as long as leaving out frames helps: letters on it stay readable.
_READABLE_WIDTH = 380
_MIN_WIDTH = 160
# A long recording is shown as a time lapse instead of as a slide show.
_LONGEST_SHOWN_MS = 200
# Pixels that changed by less than this keep their old value: sensor noise would otherwise be half of the file.
_NOISE_LEVEL = 7
_PALETTE_FRAMES = 12
# A pixel whose colour is this near to that of its left neighbour takes it. GIF stores runs of one colour in next to
# nothing, so a photo with sensor noise becomes a third of the size, and nobody sees the difference.
_RUN_LEVEL = 10


class GifWriter(FrameWriter):
    """Writes an animated GIF of bounded size; see :class:`FrameWriter`.

    At most ``max_fps`` frames a second are kept and at most ``max_frames`` in all,
    spread evenly. If the file is too large it is made a little narrower; if that is
    not enough, sparser; at last both.

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
        """Take the next frame; most frames of a fast video are left out."""
        self._end_ns = frame.stamp_ns
        # Half a millisecond of tolerance: stamps are rounded, and 10 Hz out of 30 Hz is each third frame.
        if frame.stamp_ns < self._due_ns - 500_000:
            return
        self._due_ns = frame.stamp_ns + self._interval_ns
        if self._sample.wants_next():
            self._sample.add(Frame(_at_most(frame.image, self.max_width or frame.width), frame.stamp_ns, frame.index))
        else:
            self._sample.skip()

    def _finish(self) -> None:
        frames = self._sample.kept
        for kept in (frames, frames[::2]):
            if self._fits(kept, _READABLE_WIDTH):
                return
        frames = frames[::2]
        while not self._fits(frames, _MIN_WIDTH) and len(frames) > 2:
            frames = frames[::2]

    def _fits(self, frames: list[Frame], narrowest: int) -> bool:
        """Save as wide as the largest size allows, but not below ``narrowest``; return whether it is small enough."""
        width = frames[0].width
        while (size := self._save(frames, width)) > self._max_bytes:
            if width <= narrowest:
                return False
            width = max(narrowest, int(width * max(0.6, 0.95 * math.sqrt(self._max_bytes / size))))
        return True

    def _save(self, frames: list[Frame], width: int) -> int:
        height = round(frames[0].height * width / frames[0].width)
        images = _without_noise([_resized(frame.image, width, height) for frame in frames])
        palette = _common_palette(images)
        pictures = [_in_palette(image, palette) for image in images]
        stamps = [frame.stamp_ns for frame in frames] + [max(self._end_ns, frames[-1].stamp_ns)]
        # A GIF counts in hundredths of a second; the moments are rounded, so that no error adds up.
        moments = [round((stamp - stamps[0]) / 1e7) for stamp in stamps]
        shown_ms = [10 * int(gap) for gap in np.diff(moments)]
        shown_ms[-1] = shown_ms[-1] or 100
        # Browsers slow down frames shorter than 20 ms to 100 ms.
        durations = [min(_LONGEST_SHOWN_MS, max(20, shown)) for shown in shown_ms]
        pictures[0].save(
            self._temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=False
        )
        return self._temporary.stat().st_size


def _common_palette(images: list[NDArray[np.uint8]]) -> Image.Image:
    # One palette for all frames: colours that differ from frame to frame flicker.
    step = max(1, len(images) // _PALETTE_FRAMES)
    # Each third pixel is enough to choose colours, in a ninth of the time.
    mosaic = np.concatenate([image[::3, ::3] for image in images[::step]], axis=0)
    return Image.fromarray(mosaic).quantize(255, method=Image.Quantize.MEDIANCUT, kmeans=2)


def _in_palette(image: NDArray[np.uint8], palette: Image.Image) -> Image.Image:
    """Return the picture in the colours of ``palette``, with runs as long as :data:`_RUN_LEVEL` allows."""
    indices = np.array(Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE))
    values = palette.getpalette() or []
    colors = np.asarray(values, np.int16).reshape(-1, 3)
    for column in range(1, indices.shape[1]):
        left = indices[:, column - 1]
        is_near = np.abs(image[:, column] - colors[left]).max(axis=1) <= _RUN_LEVEL
        indices[:, column] = np.where(is_near, left, indices[:, column])
    picture = Image.fromarray(indices)
    picture.putpalette(values)
    return picture


def _without_noise(images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    calm = [images[0]]
    for image in images[1:]:
        changed = cv2.absdiff(image, calm[-1]).max(axis=2, keepdims=True) > _NOISE_LEVEL
        calm.append(np.where(changed, image, calm[-1]))
    return calm


def _at_most(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    if image.shape[1] <= width:
        return image.copy()
    return _resized(image, width, max(1, round(image.shape[0] * width / image.shape[1])))


def _resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, max(1, height)), interpolation=cv2.INTER_AREA), dtype=np.uint8)
