"""Recordings in other light, colour or shape, and recordings whose target is painted out, with their true boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.frame_sources import FrameSource
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.frames import Frame

Image = NDArray[np.uint8]

PORTRAIT = "portrait"
PAINTED_OUT = "painted out"

# Height of a portrait picture per width.
_PORTRAIT = 4 / 3
# A painted-out box is larger than the true box, so that no edge of the object stays; its longer side is painted at so
# many pixels and enlarged.
_PAINT_MARGIN, _PAINT_PX, _PAINT_RADIUS = 0.15, 96, 5


@dataclass(frozen=True, slots=True)
class AlteredFrames:
    """Frames of another source with changed pixels.

    Attributes:
        source: The source.
        change: Gets a frame; returns its new image.
    """

    source: FrameSource
    change: Callable[[Frame], Image]

    @property
    def name(self) -> str:
        """Folder or file of the source."""
        return self.source.name

    @property
    def count(self) -> int | None:
        """Number of frames of the source."""
        return self.source.count

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for frame in self.source:
            yield replace(frame, image=self.change(frame))


def exposed(image: Image, factor: float) -> Image:
    """Multiply the light, as a longer or shorter exposure does; what is too bright is cut off at white.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        factor: Of the light; pixels are sRGB, so that they change less.
    """
    linear = (image.astype(np.float32) / 255) ** 2.2 * factor
    return np.rint(255 * np.clip(linear, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def saturated(image: Image, factor: float) -> Image:
    """Scale the distance of each pixel from its grey; 0 gives a grey picture."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.rint(np.clip(grey + factor * (image - grey), 0, 255)).astype(np.uint8)


def bands(height: int, width: int) -> tuple[int, int]:
    """Rows above and below that turn a picture into one in portrait format; 0 where it is one."""
    rows = max(0, round(width * _PORTRAIT) - height)
    return rows // 2, rows - rows // 2


def with_bands(image: Image) -> Image:
    """Add dark bands above and below, up to the portrait format."""
    above, below = bands(*image.shape[:2])
    return cv2.copyMakeBorder(image, above, below, 0, 0, cv2.BORDER_CONSTANT, value=(16, 16, 16)).astype(np.uint8)


def painted_out(image: Image, box_xywh_px: NDArray[np.float64]) -> Image:
    """Fill a box from what surrounds it.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        box_xywh_px: x, y, w, h [px]; without a finite box the picture stays as it is.
    """
    if not np.isfinite(box_xywh_px).all():
        return image
    height, width = image.shape[:2]
    x, y, w, h = box_xywh_px
    margin = _PAINT_MARGIN * max(w, h) + 2
    left, right = int(np.clip(x - margin, 0, width)), int(np.clip(x + w + margin, 0, width))
    top, bottom = int(np.clip(y - margin, 0, height)), int(np.clip(y + h + margin, 0, height))
    if right <= left or bottom <= top:
        return image
    # The painter needs a rim of known pixels around the hole.
    rim = int(margin) + 4
    part = np.s_[max(0, top - rim) : bottom + rim, max(0, left - rim) : right + rim]
    hole = np.zeros((height, width), np.uint8)
    hole[top:bottom, left:right] = 255
    scale = min(1.0, _PAINT_PX / max(image[part].shape[:2]))
    small = cv2.resize(image[part], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole[part], small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    painted = cv2.inpaint(small, small_hole, _PAINT_RADIUS, cv2.INPAINT_TELEA)
    painted = cv2.resize(painted, image[part].shape[1::-1], interpolation=cv2.INTER_LINEAR)
    result = image.copy()
    result[part] = np.where(hole[part][..., None] > 0, painted, image[part])
    return result


def _pixels(change: Callable[[Image], Image]) -> Callable[[LabelledRecording], LabelledRecording]:
    def alter(recording: LabelledRecording) -> LabelledRecording:
        return replace(recording, frames=AlteredFrames(recording.frames, lambda frame: change(frame.image)))

    return alter


def _portrait(recording: LabelledRecording) -> LabelledRecording:
    size = recording.frame_size
    if size is None:
        first = next(iter(recording.frames))
        size = first.width, first.height
    above, below = bands(size[1], size[0])
    boxes = recording.boxes_xywh_px + np.asarray([0, above, 0, 0])
    frames = AlteredFrames(recording.frames, lambda frame: with_bands(frame.image))
    return replace(recording, frames=frames, boxes_xywh_px=boxes, frame_size=(size[0], size[1] + above + below))


def gone_from(recording: LabelledRecording) -> int:
    """Index of the first frame without the target in a painted-out recording: the middle one."""
    return recording.frame_count // 2


def _without_target(recording: LabelledRecording) -> LabelledRecording:
    first, boxes = gone_from(recording), recording.boxes_xywh_px

    def change(frame: Frame) -> Image:
        return painted_out(frame.image, boxes[frame.index]) if frame.index >= first else frame.image

    shown = boxes.copy()
    shown[first:] = np.nan
    absent = recording.absent.copy()
    absent[first:] = True
    return replace(recording, frames=AlteredFrames(recording.frames, change), boxes_xywh_px=shown, absent=absent)


ALTERATIONS: dict[str, Callable[[LabelledRecording], LabelledRecording]] = {
    "as it is": lambda recording: recording,
    "exposure x.3": _pixels(lambda image: exposed(image, 0.3)),
    "exposure x.5": _pixels(lambda image: exposed(image, 0.5)),
    "exposure x2": _pixels(lambda image: exposed(image, 2.0)),
    "half saturation": _pixels(lambda image: saturated(image, 0.5)),
    "grey": _pixels(lambda image: saturated(image, 0.0)),
    PORTRAIT: _portrait,
    PAINTED_OUT: _without_target,
}
"""What is done to a recording, by name."""
