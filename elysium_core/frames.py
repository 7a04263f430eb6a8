"""Frames, clips, and the division of a recording into clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ImageError

MAX_PIXELS = 64_000_000
"""Largest image that is accepted [px]; checked before anything is allocated."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a video or camera, with its time.

    Attributes:
        image: RGB, uint8, shape (height, width, 3).
        stamp_ns: Time of capture [ns] in the source's clock, 0 if unknown.
        index: Number of the frame in its recording or stream, from 0.
        arrived_s: Time of arrival on a monotonic clock [s], used if there is no stamp. None if unknown.

    Raises:
        ImageError: The array is not RGB uint8 HWC, is empty, or is too large.
    """

    image: NDArray[np.uint8]
    stamp_ns: int = 0
    index: int = 0
    arrived_s: float | None = None

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ImageError(
                f"a frame needs an RGB uint8 array of shape (height, width, 3), not {found}{_remedy(image)}"
            )
        if image.size == 0:
            raise ImageError(f"a frame of {image.shape[1]}x{image.shape[0]} px has no pixels")
        if image.shape[0] * image.shape[1] > MAX_PIXELS:
            raise ImageError(
                f"a frame of {image.shape[1]}x{image.shape[0]} px is over the limit of {MAX_PIXELS} px; "
                "scale it down first",
                code="IMG_TOO_LARGE",
            )

    @property
    def width(self) -> int:
        """Width [px]."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Height [px]."""
        return int(self.image.shape[0])


def require_frame(value: object) -> None:
    """Refuse a bare image where the index and the time of a frame are needed.

    Raises:
        ImageError: The argument is no :class:`Frame`; the message says how to make one.
    """
    if not isinstance(value, Frame):
        raise ImageError(
            f"a tracker takes frames, not {type(value).__name__}; wrap each image: Frame(image, stamp_ns, index)"
            f"{_remedy(value)}"
        )


def is_address(text: str) -> bool:
    """Return whether a text is the address of something in a network, and no path."""
    scheme, separator, _ = text.partition(":")
    return bool(separator) and (text.startswith(f"{scheme}://") or scheme.lower() == "data") and scheme.isalnum()


def _remedy(value: object) -> str:
    """Return how to make an RGB array of something else that people have pictures in."""
    if isinstance(value, str) and is_address(value):
        return "; nothing is downloaded: save the picture, and read it with elysium_core.io.video.read_picture(path)"
    if isinstance(value, str | PathLike):
        return "; read the picture with elysium_core.io.video.read_picture(path)"
    if hasattr(value, "getbands"):  # a PIL image, without an import of PIL
        return "; convert the picture: np.array(picture.convert('RGB'))"
    return ""


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of one prompt, oldest first.

    Attributes:
        frames: At least one frame, all of the same size.

    Raises:
        ImageError: There is no frame, or the frames differ in size.
    """

    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise ImageError("a clip needs at least one frame")
        sizes = {(frame.width, frame.height) for frame in self.frames}
        if len(sizes) > 1:
            raise ImageError(f"the frames of a clip must have one size, not {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, position: int) -> Frame:
        return self.frames[position]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


@dataclass(frozen=True, slots=True)
class ClipWindow:
    """The division of a recording into overlapping clips (paper, section 4.3).

    Attributes:
        length: Frames of a clip, >= 2.
        overlap: Frames shared with the clip before, 1..length-1.
    """

    length: int = 8
    overlap: int = 1

    def __post_init__(self) -> None:
        if self.length < 2 or not 1 <= self.overlap < self.length:
            raise ValueError(
                f"a clip window needs length >= 2 and 1 <= overlap < length, not {self.length} and {self.overlap}"
            )

    def spans(self, frame_count: int) -> list[tuple[int, int]]:
        """Return ``(start, stop)`` of each clip of a recording; ``stop`` is exclusive.

        A last clip without new frames is left out.

        Args:
            frame_count: Frames in the recording, >= 0.
        """
        if frame_count <= 0:
            return []
        step = self.length - self.overlap
        starts = [s for s in range(0, frame_count, step) if s == 0 or s + self.overlap < frame_count]
        return [(s, min(s + self.length, frame_count)) for s in starts]
