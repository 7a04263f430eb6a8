"""Further names for annotated photos: a teacher's boxes of things that the annotators did not look for.

The annotators' boxes stay. A teacher's sure box of a further name becomes an object, an unsure one a difficult object,
which training neither asks for nor takes for absent. A photo with a category, but without boxes, gets the teacher's box
of what is in its middle: the category says what it is, the teacher where. Photos of other categories get none, because
the teacher often takes what they show for something that it knows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysium_core.data.photos.annotation_lines import read_teacher_photos
from elysium_core.data.photos.photo_folders import read_photos
from elysium_core.data.photos.photo_records import PhotoObject, PhotoRecord
from elysium_core.data.photos.photo_report import PhotoReport
from elysium_core.errors import ConfigError, DataError
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path
from elysium_core.prompt.vocabulary import Vocabulary

_LEAST_SCORE, _SURE_FROM = 0.3, 0.5
# A teacher's box is of something that is annotated already, or of a thing that it calls by two names.
_SAME_THING_FROM = 0.5
_MIDDLE = Box(0.2, 0.2, 0.8, 0.8)
_IN_THE_MIDDLE_FROM = 0.2
_DIGITS = 4


@dataclass(slots=True)
class MergeReport:
    """What came of a merge.

    Attributes:
        added: Sure boxes by name.
        unsure: Number of boxes that became difficult objects.
        without_box: Photos of a wanted category in whose middle the teacher found nothing.
        photos: What was wrong with photos and lines.
    """

    added: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    without_box: int = 0
    photos: PhotoReport = field(default_factory=PhotoReport)


def merge_teacher(folder: Path, teacher: Path, names: Sequence[str], out: Path) -> MergeReport:
    """Write the annotations of a folder of photos with a teacher's boxes of further names, for ``data.teachers``.

    Args:
        folder: The photos, in any layout of :func:`elysium_core.data.photos.photo_folders.read_photos`.
        teacher: The teacher's boxes; its synonyms and plurals of the names count, as in expressions.
        names: The further names.
        out: The JSON-lines file to write.

    Raises:
        ConfigError: A name is one that the photos are annotated with.
        DataError: A file cannot be read or written, or ``out`` exists.
    """
    if out.exists():
        raise DataError(f"{str(out)!r} exists already; delete it, or name another file")
    report, vocabulary = MergeReport(), Vocabulary(names)
    boxes = {r.key: r.objects for r in read_teacher_photos(teacher, folder, report.photos, least_score=_LEAST_SCORE)}
    try:
        with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
            for record in read_photos(folder, report.photos):
                _refuse_annotated(record, vocabulary)
                objects = [*record.objects, *_further(record, boxes.get(record.key, ()), vocabulary, report)]
                line = {"image": record.key, "width": record.width, "height": record.height}
                file.write(json.dumps(line | {"boxes": [_entry(found) for found in objects]}) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
    return report


def _refuse_annotated(record: PhotoRecord, vocabulary: Vocabulary) -> None:
    for found in record.objects:
        if name := vocabulary.name_of(found.name):
            raise ConfigError(f"the name {name!r} is annotated in {record.key}; a teacher can only add further names")


def _further(
    record: PhotoRecord, boxes: Sequence[PhotoObject], vocabulary: Vocabulary, report: MergeReport
) -> Iterator[PhotoObject]:
    taken = [found.box for found in record.objects]
    category = vocabulary.name_of(record.category)
    if record.category and not category:
        return
    if category:
        middle = _in_the_middle(boxes)
        if middle is None:
            report.without_box += 1
            return
        taken.append(middle)
        report.added[category] += 1
        yield PhotoObject(category, middle)
    for found in sorted(boxes, key=lambda each: -each.score):
        name = vocabulary.name_of(found.name)
        if not name or any(found.box.iou(other) >= _SAME_THING_FROM for other in taken):
            continue
        taken.append(found.box)
        is_sure = found.score >= _SURE_FROM
        report.added[name] += is_sure
        report.unsure += not is_sure
        yield PhotoObject(name, found.box, difficult=not is_sure)


def _in_the_middle(boxes: Sequence[PhotoObject]) -> Box | None:
    """The surest box, of any name, that covers the middle of the photo."""
    central = [found for found in boxes if found.box.iou(_MIDDLE) >= _IN_THE_MIDDLE_FROM]
    return max(central, key=lambda found: found.score).box if central else None


def _entry(found: PhotoObject) -> dict[str, Any]:
    flags = {"difficult": int(found.difficult), "truncated": int(found.truncated)}
    return {"name": found.name, "box": [round(value, _DIGITS) for value in found.box], **flags}
