"""ElysiumTrack-1M and -val500: one JSON object a line, with frames in folders or in a zip archive.

A line holds ``id``, ``vid``, ``frames`` (paths), ``box`` (``[x1, y1, x2, y2]`` in 0..1,
one a frame), ``frame_size`` ``[w, h]``, ``object_class`` and ``object_description``. The
file has 3.4 GB and is read line by line.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import Skip, iterate_json_objects, usable
from elysium_core.data.readers.frame_sources import FrameSource, PictureFrames, ZipFrames, require_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import DataError
from elysium_core.io.image import Size

# Boxes may reach over the edge of the frame by this share of its side; in pixels they would reach much further.
_LARGEST_OVERHANG = 0.5


def read_elysiumtrack(root: Path, split: str = "val500", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield the targets of ``<root>/ElysiumTrack-<split>.json``, line by line.

    Args:
        root: The folder of the JSON file and of ``frames/`` or ``frames.zip``.
        split: ``val500``, ``1M``, or the name of another such file.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        DataError: The file, a field or a frame is missing or damaged.
    """
    path = root / f"ElysiumTrack-{split}.json"
    if not path.is_file():
        raise DataError(f"there is no {path.name!r} in {str(root)!r}; check --data and --split")
    seen: set[str] = set()

    def make(numbered: tuple[int, dict[str, Any]]) -> LabelledRecording:
        number, item = numbered
        name = _unique_name(item, number, seen)
        recording = recording_of_line(root, path, item, name, f"line {number} of {str(path)!r}")
        seen.add(name)
        return recording

    yield from usable(iterate_json_objects(path, skip), make, skip)


def _unique_name(item: dict[str, Any], number: int, seen: set[str]) -> str:
    # One video may have several targets; each has its own line.
    for key in ("id", "vid"):
        value = item.get(key)
        if isinstance(value, (str, int)) and str(value) and str(value) not in seen:
            return str(value)
    return f"line-{number}"


def recording_of_line(root: Path, path: Path, item: dict[str, Any], name: str, place: str) -> LabelledRecording:
    """Make a recording from one line.

    Args:
        root: The folder that the frames' paths are relative to.
        path: The file of the line.
        item: The content of the line.
        name: Name of the recording.
        place: The line, for messages.

    Raises:
        DataError: A field or a frame is missing or damaged.
    """
    frames = item.get("frames")
    boxes = item.get("box")
    if not isinstance(frames, list) or not isinstance(boxes, list) or not frames or len(frames) != len(boxes):
        raise DataError(f"{place} needs lists 'frames' and 'box' of one length, at least 1")
    size = _frame_size(item.get("frame_size"), place)
    return LabelledRecording(
        name=name,
        frames=_frames(root, _safe_paths(frames, place), size, place),
        boxes_xywh_px=_boxes(boxes, size, place),
        truth_file=path,
        expression=_words(item.get("object_description")) or _words(item.get("object_class")),
        category=_words(item.get("object_class")),
        frame_size=size,
    )


def frames_of_line(root: Path, item: dict[str, Any], place: str) -> FrameSource:
    """Return the frames of one line, which needs no boxes.

    Args:
        root: The folder that the frames' paths are relative to.
        item: The content of the line.
        place: The line, for messages.

    Raises:
        DataError: A field or a frame is missing or damaged.
    """
    frames = item.get("frames")
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{place} needs a list 'frames', at least 1")
    return _frames(root, _safe_paths(frames, place), _frame_size(item.get("frame_size"), place), place)


def _words(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _frame_size(value: object, place: str) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) and v >= 1 for v in value):
        return int(value[0]), int(value[1])
    raise DataError(f"{place} has frame_size {value!r}; it needs [width, height] in px")


def _boxes(rows: list[Any], size: tuple[int, int], place: str) -> NDArray[np.float64]:
    boxes = np.asarray([_box(row, place, index) for index, row in enumerate(rows)], dtype=np.float64)
    boxes *= np.asarray([*size, *size])
    boxes[:, 2:] -= boxes[:, :2]
    # A box without area means that the target is absent.
    boxes[(boxes[:, 2:] <= 0).any(axis=1)] = np.nan
    return boxes


def _box(row: Any, place: str, index: int) -> list[float]:
    numbers = row if isinstance(row, list) and all(isinstance(v, (int, float)) for v in row) else []
    if len(numbers) != 4 or not all(math.isfinite(v) for v in numbers):
        raise DataError(f"{place} has box {row!r} at frame {index}; it needs four finite numbers in 0..1")
    if min(numbers) < -_LARGEST_OVERHANG or max(numbers) > 1 + _LARGEST_OVERHANG:
        raise DataError(
            f"{place} has box {row!r} at frame {index}, which is not in fractions of the frame; divide x by its width "
            "and y by its height"
        )
    if numbers[2] < numbers[0] or numbers[3] < numbers[1]:
        raise DataError(f"{place} has the reversed box {row!r} at frame {index}; it needs x1 <= x2 and y1 <= y2")
    return [float(v) for v in numbers]


def _safe_paths(frames: list[Any], place: str) -> list[str]:
    for frame in frames:
        path = PurePosixPath(frame if isinstance(frame, str) else "")
        if not path.name or path.is_absolute() or ".." in path.parts:
            raise DataError(f"{place} names the frame {frame!r}; a path below the data folder is needed")
    return frames


def _frames(root: Path, names: list[str], size: Size, place: str) -> FrameSource:
    folders = {str(PurePosixPath(name).parent) for name in names}
    folder = folders.pop()
    if not folders and (root / folder).is_dir():
        return require_pictures(root / folder, [PurePosixPath(name).name for name in names], size)
    if (root / names[0]).is_file():
        return PictureFrames(root, names, size)
    for archive in sorted(root.glob("*.zip")):
        members = _members(archive)
        if names[0] in members:
            lacking = next((name for name in names if name not in members), None)
            if lacking is not None:
                raise DataError(f"{place} names {lacking!r}, which {str(archive)!r} does not hold")
            return ZipFrames(archive, names, size)
    raise DataError(
        f"{place} names {names[0]!r}, which is not in {str(root)!r}; "
        "unpack packaged_results/group_*.tar.gz there, or put frames.zip beside the JSON file"
    )


@lru_cache(maxsize=8)
def _members(archive: Path) -> frozenset[str]:
    try:
        with zipfile.ZipFile(archive) as file:
            return frozenset(file.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{str(archive)!r} cannot be read as a zip archive ({error}); copy it again") from error
