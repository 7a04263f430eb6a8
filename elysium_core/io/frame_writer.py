"""What every writer of pictures-in-order offers, whatever the format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.files import temporary_beside

T = TypeVar("T")


class FrameWriter(ABC):
    """Writes frames to a file that appears only when it is whole.

    Use it as a context manager: leaving the block normally finishes the file,
    leaving it by an exception throws away what was written.

    Args:
        path: The file to write; missing parent folders are made.

    Attributes:
        path: As given.
        max_width: Frames wider than this are scaled down [px]; None = never.

    Raises:
        VideoError: The folder cannot be written.
    """

    max_width: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = temporary_beside(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Take the next frame; its ``stamp_ns`` says when it is shown.

        Raises:
            VideoError: The file cannot be written.
        """

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left into the temporary file; frames were written before."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """No frame has been written."""

    def scale_for(self, width: int) -> float:
        """Return how much a frame of ``width`` will be scaled, 0..1.

        Letters drawn at that scale stay readable; letters drawn before do not.
        """
        return min(1.0, self.max_width / width) if self.max_width else 1.0

    def close(self) -> None:
        """Finish the file. Without a single frame there is no file.

        Raises:
            VideoError: The file cannot be written.
        """
        try:
            if not self.is_empty:
                self._finish()
                self._temporary.replace(self.path)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Throw away what was written; a finished file stays."""
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _failure(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or error
        return VideoError(f"cannot write {str(self.path)!r}: {reason}", code="VIDEO_WRITE")


class EvenSample(Generic[T]):
    """Keeps a bounded number of things from a stream of unknown length, evenly spread.

    Args:
        limit: Most things kept, >= 2.

    Attributes:
        kept: What is kept, in order; the first thing always is.
    """

    def __init__(self, limit: int) -> None:
        self.kept: list[T] = []
        self._limit = limit
        self._stride = 1
        self._seen = 0

    def wants_next(self) -> bool:
        """Say whether the next thing would be kept, so that it need not be made otherwise."""
        return self._seen % self._stride == 0

    def add(self, thing: T) -> None:
        """Offer the next thing."""
        if self.wants_next():
            if len(self.kept) == self._limit:
                self.kept = self.kept[::2]
                self._stride *= 2
            if self.wants_next():
                self.kept.append(thing)
        self._seen += 1

    def skip(self) -> None:
        """Pass over a thing that :meth:`wants_next` did not want."""
        self._seen += 1
