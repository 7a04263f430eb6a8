"""Bags of ROS 2 as recordings, read by ``rosbags``: no ROS is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.errors import ElysiumError, ImageError, VideoError, packages_needed, printable
from elysium_core.frames import Frame
from elysium_core.io.image import resized
from elysium_core.io.image_message import decode_image_message
from elysium_core.io.message_types import message_types
from elysium_core.io.recording import DEFAULT_FPS, Recording

BAG_SUFFIXES = (".mcap", ".db3")
"""Endings of the files that hold the messages of a bag."""

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
# Depth images and video streams that image_transport packs into messages of type CompressedImage.
_OTHER_TRANSPORTS = ("compressedDepth", "theora", "zstd")
_METADATA, _METADATA_HEAD, _HEAD_BYTES = "metadata.yaml", b"rosbag2_bagfile_information", 4096
# Messages whose times give the frame rate, and the fastest one that is believed [Hz].
_RATE_SAMPLES = 30
_FASTEST_FPS = 1000.0
_MOST_NAMED = 12
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class BagFrame(Frame):
    """A frame with what a bag knows about its message.

    Attributes:
        header_ns: Stamp of the header [ns], 0 if it was never set; ``stamp_ns`` is then the time of recording.
        frame_id: Coordinate frame of the header.
        log_ns: Time at which the message was recorded [ns].
        size: Width and height of the image in the message [px].
    """

    header_ns: int = 0
    frame_id: str = ""
    log_ns: int = 0
    size: tuple[int, int] = (0, 0)


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag: a folder with bag files or with the ``metadata.yaml`` of a bag, or one file."""
    try:
        if not path.is_dir():
            return path.suffix.lower() in BAG_SUFFIXES and path.is_file()
        if _bag_files(path):
            return True
        with (path / _METADATA).open("rb") as file:
            return _METADATA_HEAD in file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return False


class BagRecording(Recording):
    """The images of one topic of a bag, in the order of recording; see :class:`Recording`.

    The stamp of a frame is that of its header. An image of another size than the first one is scaled to it.

    Args:
        path: A bag; see :func:`is_bag`.
        topic: The image topic, raw or compressed; "" for the only one.

    Attributes:
        topic: The image topic.

    Raises:
        VideoError: The bag is damaged or incomplete (``BAG_DAMAGED``), has no such topic, several and none is chosen,
            or one that holds no images (``BAG_TOPIC``), or none of its images can be read.
        BackendError: The package ``rosbags`` is not installed (``PACKAGE_MISSING``).
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        self.name = str(path)
        self.width = self.height = 0
        self._path = path
        _check_complete(path)
        self.files = _bag_files(path) if path.is_dir() else (path,)
        with self._opened() as reader:
            connection = _chosen(reader.connections, topic, self.name)
            self.topic: str = connection.topic
            self._type: str = connection.msgtype
            self.frame_count = sum(c.msgcount for c in self._connections(reader))
            self._info_topic = _info_topic(reader.connections, self.topic)
            self.fps = self._rate(reader)
            first = self._first_readable(reader)
        self.height, self.width = first.image.shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images from the first; one that cannot be decoded is skipped and counted."""
        self.read, self.skipped, self.is_cut = 0, 0, False
        with self._opened() as reader:
            messages = self._messages(reader)
            index = 0
            while (message := self._next(messages)) is not None:
                try:
                    frame = self._frame(message, index)
                except ImageError:
                    self.skipped += 1
                else:
                    self.read += 1
                    yield frame
                index += 1
        self.is_cut = self.is_cut or index < (self.frame_count or 0)

    def fingerprint(self) -> str:
        """Return digits that differ for different images: those of the files, and the topic."""
        return f"{super().fingerprint()} {self.topic}"

    def camera_info(self) -> Any | None:
        """Return the first ``sensor_msgs/CameraInfo`` of the camera, None if the bag has none.

        Raises:
            VideoError: The bag is damaged (``BAG_DAMAGED``).
        """
        if not self._info_topic:
            return None
        with self._opened() as reader:
            wanted = [c for c in reader.connections if c.topic == self._info_topic and c.msgtype == _CAMERA_INFO]
            for _, _, data in reader.messages(wanted):
                return message_types().read(data, _CAMERA_INFO)
        return None

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        with packages_needed():
            from rosbags.rosbag2 import Reader
        with self._damage():
            reader = Reader(self._path)
            reader.open()
        try:
            with self._damage():
                yield reader
        finally:
            reader.close()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (ElysiumError, GeneratorExit):
            raise
        except Exception as error:
            # rosbags checks little: damaged bags show as errors of struct, zstd, SQLite and of its own.
            reason = printable(str(error) or type(error).__name__, 160).rstrip(".")
            raise VideoError(
                f"the bag {self.name!r} cannot be read ({reason}); if it is cut off, repair it: {_repair(self.files)}",
                code="BAG_DAMAGED",
            ) from error

    def _messages(self, reader: Any) -> Iterator[tuple[Any, int, bytes]]:
        return iter(reader.messages(self._connections(reader)))

    def _connections(self, reader: Any) -> list[Any]:
        return [c for c in reader.connections if c.topic == self.topic and c.msgtype == self._type]

    def _next(self, messages: Iterator[tuple[Any, int, bytes]]) -> tuple[Any, int, bytes] | None:
        """Return the next message, None at the end, also if that comes early."""
        try:
            with self._damage():
                return next(messages, None)
        except VideoError:
            self.is_cut = True
            return None

    def _frame(self, message: tuple[Any, int, bytes], index: int) -> BagFrame:
        _, log_ns, data = message
        try:
            content = message_types().read(data, self._type)
        except Exception as error:  # a damaged message shows as any error of the generated reader
            raise ImageError(f"message {index} of {self.topic!r} is damaged", code="IMG_DECODE") from error
        image = decode_image_message(content)
        size = image.shape[1], image.shape[0]
        if self.width:
            image = resized(image, self.width, self.height)
        stamp = content.header.stamp
        header_ns = stamp.sec * _NS_PER_S + stamp.nanosec
        return BagFrame(
            image, header_ns if header_ns > 0 else log_ns, index, None, header_ns, content.header.frame_id, log_ns, size
        )

    def _first_readable(self, reader: Any) -> BagFrame:
        problem: ImageError | None = None
        for index, message in enumerate(self._messages(reader)):
            try:
                return self._frame(message, index)
            except ImageError as error:
                problem = problem or error
        if problem is None:
            raise VideoError(f"topic {self.topic!r} of the bag {self.name!r} holds no message", code="VIDEO_EMPTY")
        raise VideoError(f"no image of {self.topic!r} can be read; the first error: {problem}", code=problem.code)

    def _rate(self, reader: Any) -> float:
        times = [time for (_, time, _), _ in zip(self._messages(reader), range(_RATE_SAMPLES), strict=False)]
        elapsed_ns = times[-1] - times[0] if times else 0
        fps = (len(times) - 1) * _NS_PER_S / elapsed_ns if elapsed_ns > 0 else 0.0
        return fps if 0 < fps <= _FASTEST_FPS else DEFAULT_FPS


def _bag_files(folder: Path) -> list[Path]:
    # With compression of whole files: name.db3.zstd.
    return sorted(path for path in folder.iterdir() if path.name.removesuffix(".zstd").lower().endswith(BAG_SUFFIXES))


def _check_complete(path: Path) -> None:
    if not path.is_dir() or (path / _METADATA).is_file():
        return
    raise VideoError(
        f"the bag {str(path)!r} has no {_METADATA}, as after a recording that was killed; make one with: "
        f"ros2 bag reindex {path}, or give one of its files: {_bag_files(path)[0]}",
        code="BAG_DAMAGED",
    )


def _repair(files: Sequence[Path]) -> str:
    if any(path.suffix.lower() == ".mcap" for path in files):
        return f"mcap recover {files[0]} -o recovered.mcap"
    return "ros2 bag reindex"


def _is_image(connection: Any) -> bool:
    return connection.msgtype in IMAGE_TYPES and connection.topic.rpartition("/")[2] not in _OTHER_TRANSPORTS


def _chosen(connections: Sequence[Any], topic: str, bag: str) -> Any:
    """Return the connection of the wanted topic, or of the only image topic.

    Raises:
        VideoError: See :class:`BagRecording`.
    """
    images = [connection for connection in connections if _is_image(connection)]
    shown = _names(images)
    if not topic:
        if len({connection.topic for connection in images}) == 1:
            return images[0]
        if not images:
            others = ", ".join(sorted({connection.msgtype for connection in connections})[:_MOST_NAMED]) or "nothing"
            raise VideoError(f"the bag {bag!r} has no image topic; it holds {others}", code="BAG_TOPIC")
        raise VideoError(f"the bag {bag!r} has several image topics; choose one of {shown}", code="BAG_TOPIC")
    found = [connection for connection in connections if connection.topic == "/" + topic.lstrip("/")]
    found = found or [connection for connection in connections if connection.topic == topic]
    if not found:
        raise VideoError(
            f"the bag {bag!r} has no topic {printable(topic, 120)!r}; its image topics are {shown or 'none'}",
            code="BAG_TOPIC",
        )
    if found[0].msgtype not in IMAGE_TYPES:
        raise VideoError(
            f"topic {topic!r} of the bag {bag!r} has the type {found[0].msgtype}, which is no image; its image topics "
            f"are {shown or 'none'}",
            code="BAG_TOPIC",
        )
    return found[0]


def _names(images: Sequence[Any]) -> str:
    names = [f"{connection.topic} ({connection.msgcount} images)" for connection in images]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _info_topic(connections: Sequence[Any], topic: str) -> str:
    """Return the topic of the calibration, by the names that camera drivers use; "" if the bag has none."""
    with_info = {connection.topic for connection in connections if connection.msgtype == _CAMERA_INFO}
    base = topic.removesuffix("/compressed")
    for name in (f"{base.rpartition('/')[0]}/camera_info", f"{base}/camera_info"):
        if name in with_info:
            return name
    return ""
