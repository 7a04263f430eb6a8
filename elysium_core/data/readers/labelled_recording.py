"""The common output of all readers of tracking data sets: one target in one recording, with its true boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import read_boxes
from elysium_core.data.readers.frame_sources import FrameSource
from elysium_core.errors import DataError

# Some boxes of real data sets are wrong; of boxes in other units, most are.
_MOST_OUTSIDE = 0.5


def _no_flags(count: int) -> NDArray[np.bool_]:
    return np.zeros(count, dtype=bool)


@dataclass(frozen=True, slots=True)
class LabelledRecording:
    """One target in one recording of N frames.

    Attributes:
        name: Unique in its data set.
        frames: The frames.
        boxes_xywh_px: Shape (N, 4) [px], 0-based; a NaN row is a frame without a true box.
        truth_file: File of the boxes, for messages.
        absent: Shape (N,); frames in which the data set flags the target as absent. All False without flags.
        expression: A referring expression of the target; empty if the data set has none.
        category: The target's class in words; empty if unknown.
        frame_size: Width and height that the boxes refer to [px]; None = those of the frames.
        pixel_origin: 1 if the data set counts pixels from 1, else 0.
        first_box_only: Only the first box is published; the data set's test server has the others.

    Raises:
        DataError: There is no frame, or boxes, flags and frames differ in number.
    """

    name: str
    frames: FrameSource
    boxes_xywh_px: NDArray[np.float64]
    truth_file: Path
    absent: NDArray[np.bool_] = field(default_factory=lambda: _no_flags(0))
    expression: str = ""
    category: str = ""
    frame_size: tuple[int, int] | None = None
    pixel_origin: int = 0
    first_box_only: bool = False

    def __post_init__(self) -> None:
        boxes = len(self.boxes_xywh_px)
        if len(self.absent) == 0:
            object.__setattr__(self, "absent", _no_flags(boxes))
        if boxes == 0 or len(self.absent) != boxes:
            raise DataError(f"{str(self.truth_file)!r} holds {boxes} boxes and {len(self.absent)} absence flags")
        if self.frames.count is not None and self.frames.count != boxes:
            raise DataError(
                f"{str(self.truth_file)!r} holds {boxes} boxes but {self.frames.name!r} {self.frames.count} frames; "
                "they must be equal: is a frame missing?"
            )
        shown = self._shown_boxes()
        if len(shown) and shown.max() <= 1 and (shown != shown.round()).any():
            raise DataError(
                f"{str(self.truth_file)!r} has boxes in fractions, the first is {shown[0].tolist()}; they must be in px"
            )

    def require_px(self, width: int, height: int) -> None:
        """Check that the boxes fit into frames of that size, so that they are x, y, w, h in pixels of these frames.

        Raises:
            DataError: Most boxes reach far outside.
        """
        shown = self._shown_boxes()
        ends = shown[:, :2] + shown[:, 2:]
        outside = (ends > 1.25 * np.asarray([width, height])).any(axis=1)
        outside |= (ends < 0).any(axis=1) | (shown[:, :2] > [width, height]).any(axis=1)
        if len(shown) and outside.mean() > _MOST_OUTSIDE:
            first = shown[np.argmax(outside)].tolist()
            raise DataError(
                f"most boxes of {self.name!r} in {str(self.truth_file)!r}, such as {first}, lie outside the frames of "
                f"{width}x{height} px; they must be x,y,w,h in px"
            )

    def _shown_boxes(self) -> NDArray[np.float64]:
        """Return the boxes that have an area, shape (M, 4)."""
        boxes = self.boxes_xywh_px
        with np.errstate(invalid="ignore"):
            return np.asarray(boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)])

    @property
    def frame_count(self) -> int:
        """Number of frames N."""
        return len(self.boxes_xywh_px)


def first_box_for_all(path: Path, count: int) -> tuple[NDArray[np.float64], bool]:
    """Read the boxes of a recording of which only the first may be published.

    Args:
        path: The annotation file.
        count: Number of frames.

    Returns:
        Boxes of shape (count, 4), NaN where unknown, and whether only the first is published.
    """
    boxes = read_boxes(path, negative_is_empty=True)
    if len(boxes) != 1 or count == 1:
        return boxes, False
    return np.concatenate([boxes, np.full((count - 1, 4), np.nan)]), True


def subfolders(folder: Path) -> list[Path]:
    """Return the subfolders of a data set's folder, sorted by name; hidden ones are left out.

    Raises:
        DataError: The folder is missing.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read data folder {str(folder)!r}: {error.strerror or error}; check --data") from error
