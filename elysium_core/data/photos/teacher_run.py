"""Labelling a folder of photos with a detector: one JSON line a photo, continued after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elysium_core.data.photos.photo_folders import read_picture_folder
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.data.photos.teacher_detectors import TeacherDetector
from elysium_core.errors import DataError, ImageError
from elysium_core.io.files import publish
from elysium_core.io.image import read_image

_DIGITS = 4


def label_photos(detector: TeacherDetector, folder: Path, out: Path, report: PhotoReport) -> Iterator[tuple[int, int]]:
    """Write a teacher's boxes of all pictures below a folder.

    Lines are written to ``<out>.partial`` as they are made. The file gets its name when it is complete, so that an
    unfinished one is never trained on; the same call continues it.

    Args:
        detector: The teacher.
        folder: The pictures.
        out: The JSON-lines file, see :mod:`elysium_core.data.photos.annotation_lines`.
        report: Where unreadable pictures are counted.

    Yields:
        Number of pictures done, and of all pictures.

    Raises:
        DataError: ``out`` exists already, an unfinished file is of another teacher, or it cannot be written.
    """
    if out.exists():
        raise DataError(f"{str(out)!r} exists already; delete it, or name another file")
    if not folder.is_dir():
        raise DataError(f"there is no photo folder {str(folder)!r}")
    photos = list(read_picture_folder(folder))
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        done = _continue(partial, detector.name)
        with partial.open("a", encoding="utf-8") as file:
            for number, photo in enumerate(photos, 1):
                if photo.key not in done:
                    line = _line(detector, photo.path, photo.key, report)
                    if line is not None:
                        file.write(json.dumps(line) + "\n")
                        file.flush()
                yield number, len(photos)
        publish(partial, out)
    except OSError as error:
        raise DataError(f"cannot write {str(out)!r}: {error.strerror or error}") from error


def _line(detector: TeacherDetector, path: Path, key: str, report: PhotoReport) -> dict[str, Any] | None:
    try:
        image = read_image(path)
    except ImageError:
        report.skip(Skipped.UNREADABLE, str(path))
        return None
    boxes = [
        {"name": found.name, "box": [round(v, _DIGITS) for v in found.box], "score": round(found.score, _DIGITS)}
        for found in detector.detect(image)
    ]
    height, width = image.shape[:2]
    return {"image": key, "width": width, "height": height, "teacher": detector.name, "boxes": boxes}


def _continue(partial: Path, teacher: str) -> set[str]:
    """Cut off a line that was not finished; returns the pictures that are done."""
    if not partial.is_file():
        return set()
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(partial, len(whole))
    done = set()
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            key, other = entry["image"], entry["teacher"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} of {str(partial)!r} is damaged; delete the file") from error
        if other != teacher:
            raise DataError(f"{str(partial)!r} was begun with the teacher {other!r}, not {teacher!r}; delete it")
        done.add(str(key))
    return done
