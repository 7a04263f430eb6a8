"""Sources of frames: picture files, a zip archive of them, or a video."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import DataError, ImageError, VideoError
from elysium_core.frames import MAX_PIXELS, Frame
from elysium_core.io.image import Size, decode_image, image_size, read_image
from elysium_core.io.recording import DEFAULT_FPS, pictures_in
from elysium_core.io.video import open_video

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".m4v", ".gif"})
"""Endings of the files that count as videos."""

# As many bytes as the largest picture has without compression, with 16 bits and four channels.
_LARGEST_MEMBER_BYTES = 8 * MAX_PIXELS


class FrameSource(Protocol):
    """Frames in order of time; every iteration starts at the first one, index 0."""

    @property
    def name(self) -> str:
        """The folder or file, for messages."""
        ...

    @property
    def count(self) -> int | None:
        """Number of frames; None for a video, whose number of frames is known only after decoding."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            DataError: A frame is missing or damaged; the message names its file.
        """
        ...


@dataclass(frozen=True, slots=True)
class PictureFrames:
    """Picture files of one folder, in the given order.

    Attributes:
        folder: Their folder.
        names: Their paths relative to ``folder``, in order of time.
        annotated: Width and height that the annotations are of [px]; see :func:`elysium_core.io.image.read_image`.
    """

    folder: Path
    names: Sequence[str]
    annotated: Size | None = None

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.names)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures, with stamps of a nominal frame rate."""
        for index, name in enumerate(self.names):
            try:
                yield Frame(read_image(self.folder / name, self.annotated), _stamp_ns(index), index)
            except ImageError as error:
                raise DataError(f"frame {index} of {self.name!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class ZipFrames:
    """Pictures inside a zip archive, read without unpacking it.

    Attributes:
        archive: The zip file.
        names: Members, in order of time.
        annotated: As for :class:`PictureFrames`.
    """

    archive: Path
    names: Sequence[str]
    annotated: Size | None = None

    @property
    def name(self) -> str:
        """The archive."""
        return str(self.archive)

    @property
    def count(self) -> int:
        """Number of members."""
        return len(self.names)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures, with stamps of a nominal frame rate."""
        with zipfile.ZipFile(self.archive) as archive:
            for index, name in enumerate(self.names):
                place = f"{name!r} in {str(self.archive)!r}"
                try:
                    yield Frame(decode_image(_member(archive, name), place, self.annotated), _stamp_ns(index), index)
                except ImageError as error:
                    raise DataError(f"frame {index}: {error}") from error
                except (KeyError, OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
                    raise DataError(f"cannot read {place}: {error}") from error


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """A video file, decoded to its end.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def count(self) -> None:
        """Unknown: containers are often wrong by a few frames."""
        return None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; one that cannot be decoded leaves a gap in the indices."""
        with open_video(self.path) as recording:
            yield from recording


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > _LARGEST_MEMBER_BYTES:
        raise ValueError(f"it has {size} bytes unpacked, over the limit of {_LARGEST_MEMBER_BYTES}")
    return archive.read(name)


def list_pictures(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder, in natural order: 2 before 10.

    Raises:
        DataError: The folder is missing or holds no picture.
    """
    try:
        names = [path.name for path in pictures_in(folder)]
    except OSError as error:
        raise DataError(f"cannot read frame folder {str(folder)!r}: {error.strerror or error}") from error
    if not names:
        raise DataError(f"frame folder {str(folder)!r} holds no picture; unpack the data set's frames there")
    return names


def frame_sizes(source: FrameSource) -> NDArray[np.float64]:
    """Return widths and heights of frames [px], without decoding pictures: shape (N, 2), or (1, 2) if all are equal.

    Raises:
        DataError: A frame is missing or damaged.
    """
    try:
        if isinstance(source, PictureFrames):
            sizes = [image_size(source.folder / name, source.annotated) for name in source.names]
            return np.asarray(sizes[:1] if len(set(sizes)) == 1 else sizes, np.float64)
        if isinstance(source, VideoFrames):
            with open_video(source.path) as recording:
                return np.asarray([[recording.width, recording.height]], np.float64)
    except (ImageError, VideoError) as error:
        raise DataError(f"{source.name!r}: {error}") from error
    first = next(iter(source))
    return np.asarray([[first.width, first.height]], np.float64)


def require_pictures(folder: Path, names: Sequence[str], annotated: Size | None = None) -> PictureFrames:
    """Return the pictures that an annotation of that size names, after checking that all of them exist.

    Raises:
        DataError: The folder or a picture is missing.
    """
    present = set(list_pictures(folder))
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} frames are missing in {str(folder)!r}, the first is {missing[0]!r}; "
            "unpack the data set's frames there"
        )
    return PictureFrames(folder, names, annotated)


def _stamp_ns(index: int) -> int:
    return round(index * 1e9 / DEFAULT_FPS)
