"""Opening whatever holds frames: a video file, a folder of pictures, one picture, or a camera."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ImageError, VideoError
from elysium_core.frames import Frame
from elysium_core.io.image import IMAGE_SUFFIXES, read_image
from elysium_core.io.recording import DEFAULT_FPS, Recording
from elysium_core.io.streams import CameraRecording, FileRecording

__all__ = ["Recording", "open_video", "read_image"]

_DEVICE = re.compile(r"(?:/dev/video)?([0-9]{1,3})")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def open_video(source: str | PathLike[str] | int, *, fps: float = DEFAULT_FPS) -> Recording:
    """Open a source of frames and check that its first frame can be read.

    Args:
        source: A video file; a folder of pictures (read in natural order of their
            names: 2 before 10); a single picture; or a V4L2 camera as a number or
            ``/dev/videoN``. An existing file or folder wins over a camera number.
        fps: Rate of a folder of pictures, which states none [Hz].

    Raises:
        VideoError: The source is missing, empty, damaged, of an unknown format, or
            its frames are larger than :data:`~elysium_core.frames.MAX_PIXELS`.

    Example:
        >>> with open_video("kitchen.mp4") as recording:    # doctest: +SKIP
        ...     for frame in recording:
        ...         print(frame.index, frame.stamp_ns, frame.image.shape)
    """
    text = str(source)
    if not text:
        raise VideoError("the name of the video is empty; give a file, a folder of pictures or a camera number")
    path = Path(text)
    device = _DEVICE.fullmatch(text)
    if device and (text.startswith("/dev/") or not path.exists()):
        return CameraRecording(int(device.group(1)))
    if _ADDRESS.match(text):
        raise VideoError(f"{text[:200]!r} is a network address; only files, folders of pictures and cameras are read")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise VideoError(f"there is no video {text[:200]!r}; check the path", code="VIDEO_MISSING") from error
    if stat.S_ISDIR(mode):
        return PictureRecording(_pictures_in(path), name=text, fps=fps)
    if not stat.S_ISREG(mode):
        raise VideoError(f"{text!r} is neither a file nor a folder of pictures nor a camera")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PictureRecording([path], name=text, fps=fps)
    return FileRecording(path)


class PictureRecording(Recording):
    """Picture files as frames; see :class:`Recording`.

    Args:
        paths: The files, in order; at least one.
        name: Of the whole, for messages.
        fps: Frame rate that the stamps follow, > 0 [Hz].

    Raises:
        VideoError: ``paths`` is empty, ``fps`` is not positive, or no picture can be read.
    """

    def __init__(self, paths: list[Path], name: str, fps: float = DEFAULT_FPS) -> None:
        if not paths:
            raise VideoError(f"folder {name!r} holds no {', '.join(sorted(IMAGE_SUFFIXES))} files", code="VIDEO_EMPTY")
        if not 0 < fps < float("inf"):
            raise VideoError(f"a recording cannot run at {fps:g} frames a second; give a positive rate")
        self.name, self.fps, self.frame_count = name, fps, len(paths)
        self._paths = paths
        self.height, self.width = self._first_image().shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures; one that cannot be read is skipped and counted.

        Raises:
            VideoError: A picture has another size than the first.
        """
        self.skipped = 0
        for index, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except ImageError:
                self.skipped += 1
                continue
            if image.shape[:2] != (self.height, self.width):
                raise VideoError(
                    f"{path.name!r} in {self.name!r} has {image.shape[1]}x{image.shape[0]} px, the first picture has "
                    f"{self.width}x{self.height}; the frames of a recording must have one size"
                )
            yield Frame(image, stamp_ns=round(index * 1e9 / self.fps), index=index)

    def _first_image(self) -> NDArray[np.uint8]:
        problem: ImageError | None = None
        for path in self._paths:
            try:
                return read_image(path)
            except ImageError as error:
                problem = problem or error
        raise VideoError(f"no picture of {self.name!r} can be read; the first: {problem}", code="VIDEO_DECODE")


def _pictures_in(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``2.jpg`` before ``10.jpg``."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts]
