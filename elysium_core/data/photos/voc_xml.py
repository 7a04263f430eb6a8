"""PASCAL VOC as it is published: ``JPEGImages/*.jpg`` and ``Annotations/*.xml``.

Boxes of VOC count pixels from 1 and include both ends: the box ``1, 1, 500, 375`` is a whole picture of 500 x 375 px.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from elysium_core.data.photos.photo_records import PhotoObject, PhotoRecord, clean_name, inside_folder
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.errors import BoxError, DataError
from elysium_core.geometry import Box

PICTURES_NAME = "JPEGImages"
ANNOTATIONS_FOLDER = "Annotations"
_MOST_BYTES = 1 << 20
_MOST_OBJECTS = 1000
_MOST_SIDE_PX = 1 << 20
# The annotators' boxes reach over the edge by a pixel at most.
_EDGE_PX = 1.5


def read_voc_photos(folder: Path, report: PhotoReport) -> Iterator[PhotoRecord]:
    """Stream the photos of one VOC folder, in order of their annotations' names.

    Args:
        folder: ``VOC2007``, ``VOC2012``: the folder of ``JPEGImages`` and ``Annotations``.
        report: Where damaged annotations, boxes outside and missing pictures are counted.

    Raises:
        DataError: No annotation has a picture.
    """
    found = False
    paths = sorted(path for path in (folder / ANNOTATIONS_FOLDER).glob("*.xml") if path.name[0] != ".")
    for path in paths:
        annotation = _annotation(path)
        if annotation is None:
            report.skip(Skipped.BAD_ENTRY, str(path))
            continue
        # The file name inside is wrong in some published annotations; the pair is made by the file's own name.
        picture = folder / PICTURES_NAME / f"{path.stem}.jpg"
        if not picture.is_file():
            named = inside_folder(folder / PICTURES_NAME, annotation.filename)
            if named is None or not named.is_file():
                report.skip(Skipped.MISSING, str(picture))
                continue
            picture = named
        found = True
        objects = tuple(_objects(annotation, path, report))
        key = picture.relative_to(folder).as_posix()
        yield PhotoRecord(picture, key, objects, "", annotation.width, annotation.height)
    if not found:
        raise DataError(
            f"{str(folder)!r} has {len(paths)} files {ANNOTATIONS_FOLDER}/*.xml, and none of them has its picture in "
            f"{PICTURES_NAME}; unpack both from the same archive"
        )


@dataclass(slots=True)
class _Annotation:
    """The fields of an annotation, as texts and whole numbers."""

    filename: str = ""
    width: int = 0
    height: int = 0
    objects: list[dict[str, str]] = field(default_factory=list)


def _annotation(path: Path) -> _Annotation | None:
    """Read one file; None if it is too large, damaged, or no annotation."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return _Parser().parse(path.read_bytes())
    except (OSError, ValueError, expat.ExpatError):
        return None


class _Parser:
    """Collects the texts of the few elements that matter; nothing is built for the rest.

    Annotations have no document type. One that has is refused, so that no entity is ever expanded.
    """

    def __init__(self) -> None:
        self._result = _Annotation()
        self._path: list[str] = []
        self._text: list[str] = []
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data

    def parse(self, content: bytes) -> _Annotation:
        """Parse a whole file.

        Raises:
            ValueError: It is no annotation.
            expat.ExpatError: It is not well-formed.
        """
        self._parser.Parse(content, True)
        return self._result

    def _refuse(self, *_declaration: object) -> None:
        raise ValueError("an annotation has no document type")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text = []
        if self._path[0] != "annotation":
            raise ValueError(f"the root is {name!r}, not 'annotation'")
        if self._path == ["annotation", "object"]:
            if len(self._result.objects) == _MOST_OBJECTS:
                raise ValueError("too many objects")
            self._result.objects.append({})

    def _data(self, text: str) -> None:
        self._text.append(text)

    def _end(self, _name: str) -> None:
        text, place = "".join(self._text).strip(), "/".join(self._path[1:])
        self._path.pop()
        self._text = []
        if place == "filename":
            self._result.filename = text
        elif place == "size/width":
            self._result.width = _side(text)
        elif place == "size/height":
            self._result.height = _side(text)
        elif place.startswith("object/") and self._result.objects:
            # Parts of a person are at object/part/... and are not read.
            self._result.objects[-1][place.removeprefix("object/")] = text


def _side(text: str) -> int:
    value = int(text)
    if not 0 < value <= _MOST_SIDE_PX:
        raise ValueError(f"a picture has no side of {value} px")
    return value


def _objects(annotation: _Annotation, path: Path, report: PhotoReport) -> Iterator[PhotoObject]:
    for number, entry in enumerate(annotation.objects, 1):
        place = f"object {number} of {str(path)!r}"
        name = clean_name(entry.get("name"))
        if name is None:
            report.skip(Skipped.BAD_ENTRY, place)
            continue
        box = _box(entry, annotation.width, annotation.height)
        if box is None:
            report.skip(Skipped.BAD_BOX, place)
            continue
        yield PhotoObject(name, box, entry.get("difficult") == "1", entry.get("truncated") == "1")


def _box(entry: dict[str, str], width: int, height: int) -> Box | None:
    try:
        x1, y1, x2, y2 = (float(entry[f"bndbox/{side}"]) for side in ("xmin", "ymin", "xmax", "ymax"))
    except (KeyError, ValueError):
        return None
    x1, y1 = x1 - 1, y1 - 1
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        return None
    if x1 < -_EDGE_PX or y1 < -_EDGE_PX or x2 > width + _EDGE_PX or y2 > height + _EDGE_PX:
        return None
    try:
        return Box.from_px(x1, y1, x2, y2, width, height, clip=True)
    except BoxError:
        return None
