"""Several objects in one recording, in the layout of MOT17.

``<root>/<sequence>/`` holds ``img1/`` with pictures, ``seqinfo.ini`` and ``gt/gt.txt`` with lines
``frame,id,left,top,width,height,flag,class,visibility``: frames from 1, pixels from 1 (class and visibility may be
missing). Class 1 is a person that counts. Persons on vehicles (2), static persons (7), distractors (8) and
reflections (12) are neither wanted nor wrong, and so is a line with flag 0 of a class that counts.

Sequences with other things name their classes in ``seqinfo.ini``: a section ``[Classes]`` with lines ``1=dog``.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import Skip, read_text, usable
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import subfolders
from elysium_core.errors import DataError

CLASSES: dict[int, str] = {1: "person"}
"""Classes of MOT17 that count, and what they are called."""
IGNORED_CLASSES = (2, 7, 8, 12)
"""Classes of MOT17 that a tracker may follow or not."""

_LEAST_FIELDS, _ALL_FIELDS = 7, 9


@dataclass(frozen=True, slots=True)
class CrowdRecording:
    """A recording with the true boxes of all its objects. M boxes.

    Attributes:
        name: Name of its folder.
        frames: The frames.
        names: What each class that counts is called, by its number.
        frame: (M,) int64, number of the frame, from 0.
        object_id: (M,) int64, number of the object.
        class_id: (M,) int64, its class.
        boxes_xywh_px: (M, 4) [px], from 0; may reach outside.
        counts: (M,) whether the box has to be found; the others are neither wanted nor wrong.
    """

    name: str
    frames: PictureFrames
    names: dict[int, str]
    frame: NDArray[np.int64]
    object_id: NDArray[np.int64]
    class_id: NDArray[np.int64]
    boxes_xywh_px: NDArray[np.float64]
    counts: NDArray[np.bool_]


def read_mot(root: Path, skip: Skip | None = None) -> Iterator[CrowdRecording]:
    """Yield every sequence in a folder; ``root`` may also be a single sequence.

    Args:
        root: The folder, such as ``MOT17/train``.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        DataError: There is no sequence with ``gt/gt.txt``, or a sequence is damaged.
    """
    folders = [root] if _is_annotated(root) else [folder for folder in subfolders(root) if _is_annotated(folder)]
    if not folders:
        raise DataError(
            f"no subfolder of {str(root)!r} holds a gt/gt.txt; give the folder of MOT17's training sequences"
        )
    yield from usable(folders, _sequence, skip)


def _is_annotated(folder: Path) -> bool:
    return (folder / "gt" / "gt.txt").is_file()


def _sequence(folder: Path) -> CrowdRecording:
    info = _info(folder / "seqinfo.ini")
    pictures = folder / info.get("Sequence", "imDir", fallback="img1")
    names = _class_names(info, folder / "seqinfo.ini")
    lines = _lines(folder / "gt" / "gt.txt")
    count = len(listed := list_pictures(pictures))
    frame, classes = lines[:, 0].astype(np.int64) - 1, lines[:, 7].astype(np.int64)
    if len(frame) and (frame.min() < 0 or frame.max() >= count):
        raise DataError(
            f"{folder / 'gt' / 'gt.txt'}: frames 1..{count} are there, not {frame.min() + 1}..{frame.max() + 1}"
        )
    used = np.isin(classes, [*names, *IGNORED_CLASSES])
    boxes = lines[:, 2:6].copy()
    boxes[:, :2] -= 1
    counts = np.isin(classes, list(names)) & (lines[:, 6] != 0)
    return CrowdRecording(
        folder.resolve().name,
        PictureFrames(pictures, listed),
        names,
        frame[used],
        lines[used, 1].astype(np.int64),
        classes[used],
        boxes[used],
        counts[used],
    )


def _info(path: Path) -> configparser.ConfigParser:
    info = configparser.ConfigParser()
    info.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        info.read_string(read_text(path))
    except configparser.Error as error:
        raise DataError(f"{str(path)!r} is no seqinfo.ini: {' '.join(str(error).split())}") from error
    return info


def _class_names(info: configparser.ConfigParser, path: Path) -> dict[int, str]:
    if not info.has_section("Classes"):
        return CLASSES
    try:
        return {int(number): name.strip() for number, name in info.items("Classes")}
    except ValueError as error:
        raise DataError(f"{str(path)!r}: the section [Classes] needs lines such as 1=dog ({error})") from error


def _lines(path: Path) -> NDArray[np.float64]:
    """The lines of gt.txt as (M, 9); a missing class is 1, a missing visibility 1."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split(",")][:_ALL_FIELDS]
        except ValueError as error:
            raise DataError(f"{path}:{number}: {line[:80]!r} is not numbers with commas") from error
        if len(row) < _LEAST_FIELDS or not np.isfinite(row).all() or min(row[4:6]) <= 0:
            raise DataError(
                f"{path}:{number}: {line[:80]!r} is not frame,id,left,top,width,height,flag,class,visibility"
            )
        rows.append([*row, *[1.0] * (_ALL_FIELDS - len(row))])
    return np.array(rows, np.float64).reshape(-1, _ALL_FIELDS)
