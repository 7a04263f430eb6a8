"""Recordings: frames in order of time, from a video file, a camera or a folder of pictures."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ImageError, VideoError
from elysium_core.frames import Frame
from elysium_core.io.image import IMAGE_SUFFIXES, read_image

# One number with text around it; a minus only at the start, because elsewhere it separates.
_NUMBERED = re.compile(r"([^0-9]*?)((?:(?<![^\s])-)?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?)([^0-9]*)", re.ASCII)

DEFAULT_FPS = 30.0
"""Frame rate of a source that states none, such as a folder of pictures [Hz]."""

_SAMPLED_FILES, _SAMPLES, _SAMPLE_BYTES = 64, 16, 1 << 14


class Recording(ABC):
    """Frames in order of time, all of one size.

    Use it as a context manager and iterate over it. Every iteration over a file or a
    folder starts at its first frame; an iteration over a camera continues.

    Attributes:
        name: The source, for messages.
        width: Frame width [px].
        height: Frame height [px].
        fps: Nominal frame rate [Hz]. Only the stamps of the frames are exact.
        frame_count: Number of frames according to the source, None if it states none.
            Video containers are often wrong by a few frames.
        is_live: The source has no end (a camera).
        read: Frames read so far.
        skipped: Frames that could not be decoded so far.
        damaged: Frames that were decoded from damaged data so far, with wrong parts.
        is_cut: The source ended before the end that it states; known when it was read to its end.
        files: The files that it is read from; none for a camera.
    """

    name: str
    width: int
    height: int
    fps: float
    frame_count: int | None = None
    is_live: bool = False
    read: int = 0
    skipped: int = 0
    damaged: int = 0
    is_cut: bool = False
    files: Sequence[Path] = ()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a skipped frame leaves a gap in ``index``."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a code and a sentence for each thing that was wrong with the frames read so far."""
        if self.skipped:
            yield "FRAMES_SKIPPED", f"{self.skipped} frames could not be decoded and were skipped"
        if self.damaged:
            yield (
                "FRAMES_DAMAGED",
                f"{self.damaged} frames were decoded from damaged data; parts of them are wrong",
            )
        if self.is_cut:
            stated = f" of {self.frame_count}" if self.frame_count else ""
            yield (
                "VIDEO_CUT",
                f"{self.name!r} is cut off: only {self.read}{stated} frames were read; fetch the file again",
            )

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ for different sources, wherever they are stored.

        Sizes of all files are compared, and samples of the content of a few; names only of a folder's pictures.

        Raises:
            OSError: A file is gone.
        """
        digest = hashlib.sha256()
        names = [path.name for path in self.files] if len(self.files) > 1 else []
        digest.update(repr((names, [path.stat().st_size for path in self.files])).encode())
        step = max(1, len(self.files) // _SAMPLED_FILES)
        for path in self.files[::step]:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                for start in range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES)):
                    file.seek(start)
                    digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()[:16]

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open between frames
        """Release the source. Calling it twice is fine."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PictureRecording(Recording):
    """Picture files as frames; see :class:`Recording`.

    Args:
        paths: The files, in order; at least one.
        name: Name of the recording, for messages.
        fps: Frame rate of the stamps, > 0 [Hz].

    Raises:
        VideoError: ``paths`` is empty, ``fps`` is not positive, or no picture can be read.
    """

    def __init__(self, paths: list[Path], name: str, fps: float = DEFAULT_FPS) -> None:
        if not paths:
            raise VideoError(f"folder {name!r} holds no {', '.join(sorted(IMAGE_SUFFIXES))} files", code="VIDEO_EMPTY")
        if not 0 < fps < float("inf"):
            raise VideoError(f"a recording cannot run at {fps:g} frames a second; give a positive rate")
        self.name, self.fps, self.frame_count = name, fps, len(paths)
        self.files = paths
        self.height, self.width = _first_readable(paths, name).shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures; one that cannot be read is skipped and counted.

        Raises:
            VideoError: A picture has another size than the first.
        """
        self.skipped = 0
        for index, path in enumerate(self.files):
            try:
                image = read_image(path)
            except ImageError:
                self.skipped += 1
                continue
            if image.shape[:2] != (self.height, self.width):
                raise VideoError(
                    f"{path.name!r} in {self.name!r} has {image.shape[1]}x{image.shape[0]} px, the first picture has "
                    f"{self.width}x{self.height} px; the frames of a recording must have one size"
                )
            yield Frame(image, stamp_ns=round(index * 1e9 / self.fps), index=index)


def _first_readable(paths: list[Path], name: str) -> NDArray[np.uint8]:
    problem: ImageError | None = None
    for path in paths:
        try:
            return read_image(path)
        except ImageError as error:
            problem = problem or error
    raise VideoError(f"no picture of {name!r} can be read; the first error: {problem}", code="VIDEO_DECODE")


def pictures_in(folder: Path) -> list[Path]:
    """List the picture files of a folder in the order of the numbers in their names; hidden files are left out.

    Raises:
        OSError: The folder cannot be read.
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    by_name = {path.name: path for path in paths}
    return [by_name[name] for name in in_order(by_name)]


def in_order(names: Iterable[str]) -> list[str]:
    """Sort file names by the number in them, which may be a time: ``1.1.png``, ``1.15.png``, ``1.2.png``.

    Names that do not have just one number each, with the same text around it, and names that count with a point
    (``1.9.png``, ``1.10.png`` beside ``1.1.png``), are sorted by :func:`natural_key`.
    """
    names = list(names)
    found = [_NUMBERED.fullmatch(Path(name).stem.lower()) for name in names]
    parts = [match.groups() for match in found if match]
    around = {(before, after) for before, _, after in parts}
    values = [Decimal(number) for _, number, _ in parts]
    is_time = any("." in number or "e" in number or number.startswith("-") for _, number, _ in parts)
    if len(parts) == len(names) and len(around) == 1 and len(set(values)) == len(names) and is_time:
        return [name for _, name in sorted(zip(values, names, strict=True))]
    return sorted(names, key=natural_key)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``2.jpg`` before ``10.jpg``."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts]
