"""Frames of curated videos on disk, and small pictures of decisions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.files import temporary_beside
from elysium_core.io.image import resized

FRAME_FOLDER = "frames"
ATTEMPT_FOLDER = ".attempts"
"""Holds a file for each video that a worker of Ray is at, as long as its number of attempts."""

_QUALITY, _SAMPLE_QUALITY, _SAMPLE_HEIGHT_PX = 92, 80, 120
_BOX_COLOR = (0, 255, 0)


class FrameFolder:
    """``frames/<vid>/000000.jpg`` ... of one video: written while a tracker reads, whole or not there.

    Args:
        out: The output folder.
        vid: Id of the video.

    Attributes:
        final: The folder where the frames are after :meth:`publish`.
        names: Their paths below the output folder, as lines of ElysiumTrack name them.
    """

    def __init__(self, out: Path, vid: str) -> None:
        self.final = out / FRAME_FOLDER / vid
        self.names: list[str] = []
        self._draft = temporary_beside(self.final)

    def keep(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames, and write each on the way.

        Raises:
            VideoError: A frame cannot be written as JPEG.
            OSError: The folder cannot be written.
        """
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir(parents=True)
        self.names.clear()
        for frame in frames:
            name = f"{len(self.names):06d}.jpg"
            (self._draft / name).write_bytes(encode_jpeg(frame.image, _QUALITY))
            self.names.append(f"{FRAME_FOLDER}/{self.final.name}/{name}")
            yield frame

    def publish(self) -> None:
        """Put the frames in their place; those of an earlier attempt are replaced."""
        shutil.rmtree(self.final, ignore_errors=True)
        os.replace(self._draft, self.final)

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)


def remove_drafts(out: Path) -> None:
    """Remove what a killed run has left unfinished; no other run may be writing into the folder."""
    shutil.rmtree(out / ATTEMPT_FOLDER, ignore_errors=True)
    for draft in (out / FRAME_FOLDER).glob(".*.partial*"):
        shutil.rmtree(draft, ignore_errors=True)


def sample_picture(shown: Sequence[Frame], boxes: Sequence[Box | None], height_px: int = _SAMPLE_HEIGHT_PX) -> bytes:
    """Return the shown frames side by side, each with its box if it has one, as a JPEG of this height."""
    tiles = []
    for number, frame in enumerate(shown):
        width = max(1, round(frame.width * height_px / frame.height))
        tile = np.array(resized(frame.image, width, height_px))
        box = boxes[number] if number < len(boxes) else None
        if box is not None:
            x1, y1, x2, y2 = (round(value) for value in box.to_px(width, height_px))
            cv2.rectangle(tile, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), _BOX_COLOR, 2)
        tiles.append(tile)
    return encode_jpeg(np.hstack(tiles), _SAMPLE_QUALITY)


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Encode an RGB uint8 picture (H, W, 3) as JPEG.

    Raises:
        VideoError: OpenCV cannot encode it.
    """
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise VideoError(f"a frame of shape {image.shape} cannot be written as JPEG; scale the video down first")
    return data.tobytes()
