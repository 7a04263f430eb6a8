"""Own recordings, in a layout that is easy to make by hand.

``<root>/<name>/`` holds ``frames/`` with pictures or one video file, ``gt.txt`` with one line
``x,y,w,h`` for each frame (pixels from 0; four times NaN means absent), and optionally
``expression.txt`` with a referring expression.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elysium_core.data.readers.annotation_files import read_boxes, read_text
from elysium_core.data.readers.frame_sources import (
    VIDEO_SUFFIXES,
    FrameSource,
    PictureFrames,
    VideoFrames,
    list_pictures,
)
from elysium_core.data.readers.labelled_recording import LabelledRecording, subfolders
from elysium_core.errors import DataError


def read_folder(root: Path, split: str = "") -> Iterator[LabelledRecording]:
    """Yield every recording in a folder; ``root`` may also be a single recording.

    Raises:
        DataError: A recording lacks its frames, or boxes and frames differ in number.
    """
    del split
    folders = [root] if (root / "gt.txt").is_file() else [f for f in subfolders(root) if (f / "gt.txt").is_file()]
    if not folders:
        raise DataError(f"no subfolder of {str(root)!r} holds a gt.txt; see docs/evaluation.md for the layout")
    for folder in folders:
        words = folder / "expression.txt"
        yield LabelledRecording(
            name=folder.resolve().name,
            frames=_frames(folder),
            boxes_xywh_px=read_boxes(folder / "gt.txt"),
            truth_file=folder / "gt.txt",
            expression=" ".join(read_text(words).split()) if words.is_file() else "",
        )


def _frames(folder: Path) -> FrameSource:
    if (folder / "frames").is_dir():
        return PictureFrames(folder / "frames", list_pictures(folder / "frames"))
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if len(videos) != 1:
        raise DataError(
            f"{str(folder)!r} holds {len(videos)} video files and no folder 'frames'; it needs one video or that folder"
        )
    return VideoFrames(videos[0])
