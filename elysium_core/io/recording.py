"""What every source of frames offers: files, folders of pictures and cameras alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType

from elysium_core.frames import Frame

DEFAULT_FPS = 30.0
"""Frame rate assumed where a source states none, such as a folder of pictures [Hz]."""


class Recording(ABC):
    """Frames in order of time, all of one size.

    Use it as a context manager and iterate over it. A file or folder may be
    iterated several times, each time from its first frame; a camera goes on.

    Attributes:
        name: What was opened, for messages.
        width: Frame width [px].
        height: Frame height [px].
        fps: Nominal frame rate [Hz]; stamps are the truth.
        frame_count: Number of frames the source claims to hold, None if it does not say.
            Containers are often wrong by a few; only reading to the end tells.
        is_live: The source has no end (a camera).
        skipped: Frames that could not be decoded since the recording was opened.
    """

    name: str
    width: int
    height: int
    fps: float
    frame_count: int | None = None
    is_live: bool = False
    skipped: int = 0

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; ``index`` counts those that were skipped, too."""

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open between frames
        """Release the source. Calling it twice is fine."""

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
