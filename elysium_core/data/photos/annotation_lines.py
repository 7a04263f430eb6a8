"""Photos annotated in a JSON-lines file: ``annotations.jsonl``, or the boxes of a teacher.

A line of ``annotations.jsonl``: ``{"image": "images/1.jpg", "objects": [{"name": "dog", "box": [x1, y1, x2, y2],
"difficult": 0, "truncated": 0}]}``. A line of a teacher's file: ``{"image": "1.jpg", "width": 640, "height": 480,
"boxes": [{"name": "dog", "box": [x1, y1, x2, y2], "score": 0.9}]}``. Boxes are fractions 0..1 of the picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elysium_core.data.photos.photo_records import (
    PhotoObject,
    PhotoRecord,
    box_of_numbers,
    clean_name,
    inside_folder,
)
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.errors import DataError

ANNOTATIONS_NAME = "annotations.jsonl"
_LONGEST_LINE = 4 << 20
_MOST_SIDE_PX = 1 << 20


def read_annotated_photos(folder: Path, report: PhotoReport) -> Iterator[PhotoRecord]:
    """Stream the photos of ``annotations.jsonl``, in the order of its lines.

    Args:
        folder: The folder of the file and its pictures.
        report: Where damaged lines, boxes outside and missing pictures are counted.

    Raises:
        DataError: The file cannot be read, or none of its pictures is there.
    """
    yield from _photos(folder / ANNOTATIONS_NAME, folder, "objects", report)


def read_teacher_photos(
    path: Path, folder: Path, report: PhotoReport, least_score: float = 0.5
) -> Iterator[PhotoRecord]:
    """Stream the photos of a folder with a teacher's boxes.

    Args:
        path: The JSON-lines file.
        folder: The folder that its pictures are named relative to.
        report: Where damaged lines, boxes outside and missing pictures are counted.
        least_score: Boxes with a lower score are left out, 0..1.

    Raises:
        DataError: The file cannot be read, or it is about other pictures.
    """
    for record in _photos(path, folder, "boxes", report):
        sure = tuple(found for found in record.objects if found.score >= least_score)
        yield PhotoRecord(record.path, record.key, sure, "", record.width, record.height)


def iterate_lines(path: Path, report: PhotoReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream ``(place, object)`` of a file with one JSON object a line; damaged lines are counted and skipped.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                if not line.strip():
                    continue
                place = f"line {number} of {str(path)!r}"
                value = _parsed(line)
                if isinstance(value, dict):
                    yield place, value
                else:
                    report.skip(Skipped.BAD_ENTRY, place)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _photos(path: Path, folder: Path, field: str, report: PhotoReport) -> Iterator[PhotoRecord]:
    lines, found = 0, 0
    for place, item in iterate_lines(path, report):
        lines += 1
        picture = inside_folder(folder, item.get("image"))
        entries = item.get(field, [])
        if picture is None or not isinstance(entries, list):
            report.skip(Skipped.BAD_ENTRY, place)
        elif not picture.is_file():
            report.skip(Skipped.MISSING, str(picture))
        else:
            found += 1
            objects = tuple(_objects(entries, place, report))
            key = picture.relative_to(folder).as_posix()
            yield PhotoRecord(picture, key, objects, "", _side(item.get("width")), _side(item.get("height")))
    if not found:
        raise DataError(
            f"none of the {lines} pictures that {str(path)!r} names is below {str(folder)!r}; "
            "give the folder that its lines are about"
        )


def _objects(entries: list[Any], place: str, report: PhotoReport) -> Iterator[PhotoObject]:
    for number, entry in enumerate(entries, 1):
        own_place = f"object {number} in {place}"
        name = clean_name(entry.get("name")) if isinstance(entry, dict) else None
        score = _score(entry.get("score", 1.0)) if isinstance(entry, dict) else None
        if name is None or score is None:
            report.skip(Skipped.BAD_ENTRY, own_place)
            continue
        box = box_of_numbers(entry.get("box"))
        if box is None:
            report.skip(Skipped.BAD_BOX, own_place)
            continue
        yield PhotoObject(name, box, bool(entry.get("difficult")), bool(entry.get("truncated")), score)


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= 1 else None


def _side(value: Any) -> int:
    """A side of the picture, 0 if it is not given."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_SIDE_PX:
        return 0
    return value
