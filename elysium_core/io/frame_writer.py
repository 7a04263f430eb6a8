"""What all writers of rendered frames share: a file appears only when it is complete."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import av

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.complete_file import CompleteFile
from elysium_core.io.files import draft_of, publish

LONGEST_SIDE_PX = 8192
"""Longest side of a picture; few players show more, and no encoder takes much more."""


class FrameWriter(CompleteFile):
    """Writes frames to a file that appears only when it is complete.

    Use it as a context manager: leaving the block normally completes the file,
    leaving it by an exception discards it.

    Args:
        path: The file to write; missing parent folders are made.

    Attributes:
        path: The file to write.
        max_width: Frames wider than this are scaled down [px]; None = never.

    Raises:
        VideoError: The folder cannot be written.
    """

    max_width: int | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._temporary = draft_of(path)
            self._temporary.touch()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Add the next frame, to be shown at its ``stamp_ns``.

        Raises:
            VideoError: The file cannot be written.
        """

    @abstractmethod
    def _finish(self) -> None:
        """Write the rest of the temporary file; at least one frame was added before."""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """No frame has been written."""

    def scale_for(self, width: int) -> float:
        """Return the scale, 0..1, at which a frame of ``width`` px is written.

        Labels should be drawn after scaling by it, so that they stay readable.
        """
        return min(1.0, self.max_width / width) if self.max_width else 1.0

    def close(self) -> None:
        """Complete the file. Without a single frame no file is written.

        Raises:
            VideoError: The file cannot be written.
        """
        try:
            if not self.is_empty:
                self._finish()
                publish(self._temporary, self.path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Discard the temporary file; a completed file stays."""
        self._temporary.unlink(missing_ok=True)

    def _failure(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or error
        return VideoError(f"cannot write {str(self.path)!r}: {reason}", code="VIDEO_WRITE")
