"""Picture files with one frame or many, decoded by Pillow: animated WebP, PNG and AVIF, TIFF, JPEG 2000."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from elysium_core.errors import VideoError
from elysium_core.frames import MAX_PIXELS, Frame
from elysium_core.io.image import as_rgb
from elysium_core.io.recording import DEFAULT_FPS, Recording

# GIF is left to FFmpeg. Of a JPEG, further pictures are previews or other views of the same moment.
_FORMATS = ("PNG", "WEBP", "AVIF", "TIFF", "JPEG2000", "JPEG", "BMP", "PPM")
_ONE_FRAME = ("JPEG", "MPO")
_PROBLEMS = (OSError, SyntaxError, ValueError, OverflowError, EOFError, Image.DecompressionBombError)


def open_pictures(path: Path, fps: float = DEFAULT_FPS) -> PictureFile | None:
    """Open a picture file; None if Pillow does not know its format.

    Args:
        path: An existing file.
        fps: Frame rate of a file without times [Hz].

    Raises:
        VideoError: The picture is damaged or too large.
    """
    try:
        with Image.open(path, formats=_FORMATS):
            pass
    except UnidentifiedImageError:
        return None
    except _PROBLEMS as error:
        raise _unreadable(path, error) from error
    return PictureFile(path, fps)


class PictureFile(Recording):
    """The frames of one picture file; see :class:`Recording`.

    Args:
        path: An existing file of a format that Pillow knows.
        fps: Frame rate if the file states no times [Hz].

    Raises:
        VideoError: No frame can be read, or the frames are too large.
    """

    def __init__(self, path: Path, fps: float = DEFAULT_FPS) -> None:
        self.name, self.files, self._path = str(path), (path,), path
        self._period_ns = round(1e9 / fps)
        try:
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise VideoError(
                        f"the frames of {self.name!r} have {picture.width}x{picture.height} px, over the limit of "
                        f"{MAX_PIXELS} px",
                        code="IMG_TOO_LARGE",
                    )
                self._first, self.frame_count = _frame_range(picture)
        except _PROBLEMS as error:
            raise _unreadable(path, error) from error
        frames = self._frames()
        first, second = next(frames, None), next(frames, None)
        if first is None:
            raise VideoError(f"{self.name!r} holds no frame that can be decoded", code="VIDEO_DECODE")
        self.width, self.height = first.width, first.height
        self.fps = fps if second is None else 1e9 / max(second.stamp_ns - first.stamp_ns, 1)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; those behind a damaged one cannot be decoded, and ``is_cut`` is set."""
        self.is_cut, self.read = False, 0
        for frame in self._frames():
            self.read += 1
            yield frame
        self.is_cut = self.read != self.frame_count

    def _frames(self) -> Iterator[Frame]:
        stamp_ns = 0
        try:
            with Image.open(self._path, formats=_FORMATS) as picture:
                for index in range(self.frame_count or 0):
                    picture.seek(self._first + index)
                    picture.load()
                    yield Frame(as_rgb(ImageOps.exif_transpose(picture)), stamp_ns, index)
                    # A duration of 0 means "as fast as possible", which players do not do either.
                    duration_ms = picture.info.get("duration") or 0
                    stamp_ns += round(duration_ms * 1e6) if duration_ms > 0 else self._period_ns
        except _PROBLEMS:
            return


def _frame_range(picture: Image.Image) -> tuple[int, int]:
    """Return the first frame and the number of frames of the animation in a file.

    Pages of a TIFF are frames if all have one size; else the others are smaller copies of the first.
    """
    total = 1 if picture.format in _ONE_FRAME else getattr(picture, "n_frames", 1)
    if picture.format == "TIFF" and total > 1:
        sizes = set()
        for index in range(total):
            picture.seek(index)
            sizes.add(picture.size)
        return (0, total) if len(sizes) == 1 else (0, 1)
    # The still picture that a PNG shows where animation is not known is not a part of the animation.
    still = bool(getattr(picture, "default_image", False)) and total > 1
    return (1, total - 1) if still else (0, total)


def _unreadable(path: Path, error: Exception) -> VideoError:
    if isinstance(error, VideoError):
        return error
    return VideoError(f"image {str(path)!r} cannot be read: {error}", code="VIDEO_DECODE")
