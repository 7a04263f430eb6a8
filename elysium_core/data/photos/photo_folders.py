"""Opening of photo folders: VOC as published, ``annotations.jsonl``, or pictures alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elysium_core.data import synthetic
from elysium_core.data.photos.annotation_lines import (
    ANNOTATIONS_NAME,
    read_annotated_photos,
    read_teacher_photos,
)
from elysium_core.data.photos.photo_records import PhotoRecord
from elysium_core.data.photos.photo_report import PhotoReport
from elysium_core.data.photos.voc_xml import ANNOTATIONS_FOLDER, PICTURES_NAME, read_voc_photos
from elysium_core.errors import DataError
from elysium_core.io.image import IMAGE_SUFFIXES
from elysium_core.io.recording import natural_key

PACKAGED_PHOTOS = Path(synthetic.__file__).parent / "assets" / "backgrounds"
"""Photos that ship with the package."""

# Caltech-101 calls its pictures of nothing in particular so.
_NO_CATEGORY = "background"
_EXPECTED = (
    f"a photo folder holds {PICTURES_NAME}/ and {ANNOTATIONS_FOLDER}/ (PASCAL VOC), or {ANNOTATIONS_NAME}, or pictures "
    "with or without a subfolder for each category (Caltech-101); docs/data.md says where such sets are published"
)


def read_photos(folder: Path, report: PhotoReport, teacher: Path | None = None) -> Iterator[PhotoRecord]:
    """Stream the photos of a folder in any of the known layouts.

    Args:
        folder: VOC (also the folder above ``VOC2007`` and ``VOC2012``), a folder with ``annotations.jsonl``,
            or any folder of pictures.
        report: Where everything that is left out is counted.
        teacher: JSON lines with a teacher's boxes; they are used in place of the folder's own annotations.

    Raises:
        DataError: The folder is missing or holds no pictures; or the teacher's file is about other pictures.
    """
    if not folder.is_dir():
        raise DataError(f"there is no photo folder {str(folder)!r}; {_EXPECTED}")
    if teacher is not None:
        return read_teacher_photos(teacher, folder, report)
    if (folder / ANNOTATIONS_NAME).is_file():
        return read_annotated_photos(folder, report)
    years = [year for year in (folder, *sorted(folder.glob("VOC*"))) if _is_voc(year)]
    if years:
        return (record for year in years for record in read_voc_photos(year, report))
    return read_picture_folder(folder)


def read_picture_folder(folder: Path) -> Iterator[PhotoRecord]:
    """Stream all pictures below a folder, without boxes; the name of a subfolder is the category of its pictures.

    Raises:
        DataError: There is no picture.
    """
    found = False
    for path in sorted(folder.rglob("*"), key=lambda path: natural_key(path.relative_to(folder).as_posix())):
        parts = path.relative_to(folder).parts
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in parts) and path.is_file():
            found = True
            yield PhotoRecord(path, "/".join(parts), category=_category(parts[:-1]))
    if not found:
        raise DataError(f"{str(folder)!r} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}); {_EXPECTED}")


def _category(parents: tuple[str, ...]) -> str:
    if not parents or parents[-1].lower().startswith(_NO_CATEGORY):
        return ""
    return parents[-1].replace("_", " ")


def _is_voc(folder: Path) -> bool:
    return (folder / PICTURES_NAME).is_dir() and (folder / ANNOTATIONS_FOLDER).is_dir()
