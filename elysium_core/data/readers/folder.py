"""Own recordings, in a layout that is easy to make by hand.

``<root>/<name>/`` holds ``frames/`` with pictures or one video file, ``gt.txt`` with one line
``x,y,w,h`` for each frame (pixels from 0; four times NaN means absent; what is outside the picture
is cut off), and optionally ``expression.txt`` with a referring expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import Skip, read_boxes, read_text, usable
from elysium_core.data.readers.frame_sources import (
    VIDEO_SUFFIXES,
    FrameSource,
    PictureFrames,
    VideoFrames,
    frame_sizes,
    list_pictures,
)
from elysium_core.data.readers.labelled_recording import LabelledRecording, subfolders
from elysium_core.errors import DataError


def read_folder(root: Path, split: str = "", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield every recording in a folder; ``root`` may also be a single recording.

    Args:
        root: The folder.
        split: There is only one.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        DataError: A recording lacks its frames, or boxes and frames differ in number.
    """
    del split
    folders = [root] if (root / "gt.txt").is_file() else [f for f in subfolders(root) if (f / "gt.txt").is_file()]
    if not folders:
        raise DataError(f"no subfolder of {str(root)!r} holds a gt.txt; see docs/evaluation.md for the layout")
    yield from usable(folders, _recording, skip)


def _recording(folder: Path) -> LabelledRecording:
    words = folder / "expression.txt"
    frames, boxes = _frames(folder), read_boxes(folder / "gt.txt")
    return LabelledRecording(
        name=folder.resolve().name,
        frames=frames,
        boxes_xywh_px=_inside(boxes, frames),
        truth_file=folder / "gt.txt",
        expression=" ".join(read_text(words).split()) if words.is_file() else "",
    )


def _inside(boxes: NDArray[np.float64], frames: FrameSource) -> NDArray[np.float64]:
    """Cut boxes (N, 4) at the edges of their frames; one fully outside is NaN, which means absent."""
    try:
        sizes = frame_sizes(frames)
    except DataError:
        return boxes  # the damaged frame is named when it is read
    if len(sizes) not in (1, len(boxes)):
        return boxes  # so is the wrong number of frames
    ends = np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes)
    starts = np.clip(boxes[:, :2], 0, sizes)
    cut = np.concatenate([starts, ends - starts], axis=1)
    reaches_out = ((starts != boxes[:, :2]) | ((boxes[:, :2] + boxes[:, 2:]) != ends)).any(axis=1)
    # Boxes that are inside stay as they are written, to the last digit.
    cut[~reaches_out] = boxes[~reaches_out]
    cut[reaches_out & (cut[:, 2:] <= 0).any(axis=1)] = np.nan
    return cut


def _frames(folder: Path) -> FrameSource:
    if (folder / "frames").is_dir():
        return PictureFrames(folder / "frames", list_pictures(folder / "frames"))
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if len(videos) != 1:
        raise DataError(
            f"{str(folder)!r} holds {len(videos)} video files and no folder 'frames'; it needs one video or that folder"
        )
    return VideoFrames(videos[0])
