"""Video files and cameras, decoded by FFmpeg (PyAV), and :func:`open_video` for every kind of source."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from elysium_core.errors import ConfigError, ElysiumError, ImageError, VideoError
from elysium_core.frames import Frame
from elysium_core.io.animation import open_pictures
from elysium_core.io.bag_recording import BagRecording, is_bag
from elysium_core.io.files import lfs_pointer
from elysium_core.io.image import IMAGE_SUFFIXES, read_image
from elysium_core.io.live_stream import StreamRecording, without_password
from elysium_core.io.recording import DEFAULT_FPS, PictureRecording, Recording, pictures_in
from elysium_core.io.video_stream import StampClock, StreamEnd, decode, frame_rate, main_stream, upright_rgb

# FFmpeg also renders text files as "video"; a mistyped file name should not become a film of its letters.
_NOT_VIDEO_FORMATS = frozenset({"tty"})
# The major device number of V4L2 on Linux.
_V4L2 = 81
# Brands of HEIF files with HEVC inside, and those that AVIF files may have, too.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})
_DEVICE = re.compile(r"(?:/dev/video)?([0-9]{1,3})")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def open_video(
    source: str | PathLike[str] | int, *, fps: float = DEFAULT_FPS, topic: str = "", allow_network: bool = False
) -> Recording:
    """Open a source of frames and check that its first frame can be read.

    Args:
        source: A video file; a folder of pictures (read in natural order of their
            names: 2 before 10); a single or animated picture; a bag of ROS 2 (a folder with
            ``metadata.yaml``, or one ``.mcap`` or ``.db3`` file); or a V4L2 camera as a number,
            ``/dev/videoN`` or a link to it, such as those in ``/dev/v4l/by-id``. An existing
            file or folder wins over a camera number. With ``allow_network`` also the
            ``rtsp://`` or ``http://`` address of a live stream, also with TLS.
        fps: Frame rate of pictures without times [Hz].
        topic: Image topic of a bag; "" for the only one.
        allow_network: Connect to an address. Leave it off for names that others have written, such as
            those in a data set.

    Raises:
        VideoError: The source is missing, empty, damaged, of an unknown format, or
            its frames are larger than :data:`~elysium_core.frames.MAX_PIXELS`.
        ConfigError: ``topic`` is given for what is no bag.
        BackendError: The package that reads bags is not installed (``PACKAGE_MISSING``).

    Example:
        >>> with open_video("kitchen.mp4") as recording:    # doctest: +SKIP
        ...     for frame in recording:
        ...         print(frame.index, frame.stamp_ns, frame.image.shape)
    """
    text = str(source)
    if not text:
        raise VideoError("the name of the video is empty; give a file, a folder of pictures or a camera number")
    path = Path(text)
    if is_bag(path):
        return BagRecording(path, topic)
    if topic:
        raise ConfigError(
            f"topic {topic!r} is given, but {text[:200]!r} is no bag: no folder with bag files, no .mcap or .db3"
        )
    device = _DEVICE.fullmatch(text)
    if device and (text.startswith("/dev/") or not path.exists()):
        return CameraRecording(Path(f"/dev/video{device.group(1)}"))
    if _ADDRESS.match(text):
        if allow_network:
            return StreamRecording(text)
        raise VideoError(
            f"{without_password(text)!r} is a network address; here only files, folders of pictures and cameras are "
            "read, and live streams with elysium track and elysium view (in Python: allow_network=True)"
        )
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise VideoError(f"there is no video {text[:200]!r}; check the path", code="VIDEO_MISSING") from error
    if stat.S_ISDIR(mode):
        return PictureRecording(pictures_in(path), name=text, fps=fps)
    if stat.S_ISCHR(mode) and os.major(path.stat().st_rdev) == _V4L2:
        return CameraRecording(path)
    if not stat.S_ISREG(mode):
        raise VideoError(f"{text!r} is neither a file nor a folder of pictures nor a camera")
    return _open_file(path, text, fps)


def _open_file(path: Path, text: str, fps: float) -> Recording:
    if lfs_pointer(path):
        raise VideoError(f"{text!r} is a Git LFS pointer, not the file itself; run git lfs pull", code="VIDEO_DECODE")
    _refuse_heic(path)
    try:
        pictures = open_pictures(path, fps)
    except VideoError:
        pictures = None
    if pictures is not None:
        return pictures
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PictureRecording([path], name=text, fps=fps)  # says what is wrong with the picture
    return FileRecording(path)


def _refuse_heic(path: Path) -> None:
    """Refuse HEIC: FFmpeg would give one tile of the picture, or its preview, as the whole."""
    with path.open("rb") as file:
        head = file.read(64)
    brand, others = head[8:12], {head[place : place + 4] for place in range(16, 64, 4)}
    is_heic = brand in _HEIC_BRANDS or (brand in _HEIF_BRANDS and b"avif" not in others)
    if head[4:8] == b"ftyp" and is_heic:
        raise VideoError(f"{str(path)!r} is a HEIC image, which is not read; convert it to JPEG first", "IMG_DECODE")


class FileRecording(Recording):
    """A video file; see :class:`Recording`.

    Frames are rotated upright according to the file's metadata. Stamps count from the first frame.

    Args:
        path: An existing file.

    Raises:
        VideoError: It is not a video, is damaged from the start, or its frames are too large.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self.files = (path,)
        if path.stat().st_size == 0:
            raise VideoError(f"{self.name!r} is an empty file (0 bytes)", code="VIDEO_EMPTY")
        with self._open() as container:
            stream = main_stream(container, self.name)
            first = next((frame for frame, _ in decode(container, stream) if frame is not None), None)
            if first is None:
                raise VideoError(f"{self.name!r} holds no frame that can be decoded", code="VIDEO_DECODE")
            self.fps = frame_rate(stream)
            self.frame_count = stream.frames or None
        self._coded_size = (first.width, first.height)
        self.height, self.width = upright_rgb(first, self._coded_size).shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first; one that cannot be decoded is skipped and counted."""
        self.read, self.skipped, self.damaged, self.is_cut = 0, 0, 0, False
        with self._open() as container:
            stream = main_stream(container, self.name)
            clock, end = StampClock(self.fps, container.format.name), StreamEnd(container, stream)
            for index, (decoded, is_damaged) in enumerate(decode(container, stream, end)):
                if decoded is None:
                    self.skipped += 1
                else:
                    self.damaged += is_damaged
                    self.read += 1
                    yield Frame(upright_rgb(decoded, self._coded_size), clock.stamp_ns(decoded, index), index)
            self.is_cut = end.is_early()

    def _open(self) -> InputContainer:
        try:
            # The whitelist keeps a playlist from reaching out to the network.
            container = av.open(f"file:{self._path}", options={"protocol_whitelist": "file", "pattern_type": "none"})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(
                f"{self.name!r} cannot be read as a video ({reason}); it is damaged or has an unknown format",
                code="VIDEO_DECODE",
            ) from error
        if container.format.name in _NOT_VIDEO_FORMATS:
            container.close()
            raise VideoError(f"{self.name!r} is a text file, not a video", code="VIDEO_DECODE")
        return container


class CameraRecording(Recording):
    """A V4L2 camera; see :class:`Recording`.

    Stamps come from the camera driver and its clock.

    Args:
        path: ``/dev/videoN``, or a link to it.

    Raises:
        VideoError: There is no such camera, it is busy, or it sends no frames.
    """

    is_live = True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if not Path(self.name).exists():
            raise VideoError(f"there is no camera {self.name}; list the cameras with: ls /dev/video*", "CAM_MISSING")
        try:
            self._container = av.open(os.path.realpath(path), format="v4l2")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoError(f"camera {self.name} cannot be opened: {reason}", code="CAM_OPEN") from error
        try:
            stream = main_stream(self._container, self.name)
            self.fps = frame_rate(stream)
            self.width, self.height = (stream.codec_context.width, stream.codec_context.height)
            self._decoded = enumerate(decode(self._container, stream))
            self._clock = StampClock(self.fps, from_zero=False)
        except ElysiumError:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the recording is closed; a second loop continues where the first one stopped.

        Raises:
            VideoError: The camera stopped sending.
        """
        for index, (decoded, is_damaged) in self._decoded:
            if decoded is None:
                self.skipped += 1
                continue
            self.damaged += is_damaged
            image = upright_rgb(decoded, (self.width, self.height))
            yield Frame(image, self._clock.stamp_ns(decoded, index), index)
        raise VideoError(f"camera {self.name} stopped sending frames; is it still plugged in?", code="CAM_TIMEOUT")

    def close(self) -> None:
        """Release the camera."""
        self._container.close()


def read_picture(path: str | PathLike[str], topic: str = "") -> NDArray[np.uint8]:
    """Read a picture of any kind that :func:`open_video` reads; of an animation or a bag, the first frame.

    Args:
        path: The picture.
        topic: Image topic of a bag; "" for the only one.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: The file is missing, damaged, too large, or not a picture.
    """
    path = Path(path)
    if topic or is_bag(path):
        with open_video(path, topic=topic) as bag:
            return next(iter(bag)).image
    try:
        return read_image(path)
    except ImageError as error:
        if error.code != "IMG_DECODE":
            raise
        try:
            _refuse_heic(path)
            recording = FileRecording(path) if _is_gif(path) else open_pictures(path)
        except VideoError as other:
            raise ImageError(str(other), code=error.code) from other
        if recording is None:
            raise
    return next(iter(recording)).image


def _is_gif(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GIF8"
