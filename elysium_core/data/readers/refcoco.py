"""RefCOCO, RefCOCO+ and RefCOCOg: one sentence and one box in one COCO image.

Two forms are read: JSON lines ``{image, sent, bbox, width, height, split}`` with ``bbox`` =
x1, y1, x2, y2 in px (``<root>/<name>.jsonl``), and the published one,
``<root>/<name>/refs(unc).p`` (``refs(umd).p`` for RefCOCOg) beside ``instances.json``. The
published form is a pickle: it is read only if it holds nothing but plain values.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from elysium_core.data.readers.annotation_files import Skip, iterate_json_objects, read_json, text_field, usable
from elysium_core.errors import ConfigError, DataError


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that refuses classes and functions, so that no code can run."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, texts and numbers, written by Python 2 or 3.

    Raises:
        DataError: The file is missing or damaged, or holds anything but plain values.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    # A damaged pickle can raise nearly anything; the error always names the file.
    except Exception as error:
        raise DataError(f"{str(path)!r} is not a pickle of plain values ({error}); it was not loaded") from error


SPLITS = {
    "refcoco": ("val", "testA", "testB", "train"),
    "refcoco+": ("val", "testA", "testB", "train"),
    "refcocog": ("val", "test", "train"),
}
_REF_FILES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
_IMAGE_FOLDERS = ("train2014", "images/train2014", "images/mscoco/images/train2014", "images", ".")


@dataclass(frozen=True, slots=True)
class GroundingSample:
    """One referring expression in one image.

    Attributes:
        sample_id: Unique in its data set.
        image: File name of the image.
        expression: The referring expression.
        box_xyxy_px: True box [px].
        width: Image width [px].
        height: Image height [px].
        split: Split, such as ``testA``.
    """

    sample_id: str
    image: str
    expression: str
    box_xyxy_px: tuple[float, float, float, float]
    width: int
    height: int
    split: str


def read_refcoco(root: Path, name: str, split: str, skip: Skip | None = None) -> Iterator[GroundingSample]:
    """Yield the expressions of one split.

    Args:
        root: The folder of ``<name>.jsonl`` or ``<name>/``.
        name: ``refcoco``, ``refcoco+`` or ``refcocog``.
        split: See :data:`SPLITS`.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        ConfigError: There is no such data set or split.
        DataError: The files are missing or damaged.
    """
    if name not in SPLITS:
        raise ConfigError(f"{name!r} is not one of {', '.join(SPLITS)}")
    if split not in SPLITS[name]:
        raise ConfigError(f"{name} has no split {split!r}; choose one of {', '.join(SPLITS[name])}")
    lines = root / f"{name}.jsonl"
    refs = root / name / _REF_FILES[name]
    if lines.is_file():
        samples: Iterable[GroundingSample] = _from_lines(lines, skip)
    elif refs.is_file():
        samples = _from_refs(refs, root / name / "instances.json", skip)
    else:
        raise DataError(f"{str(root)!r} holds neither {name}.jsonl nor {name}/{_REF_FILES[name]}; check --data")
    return (sample for sample in samples if sample.split == split)


def find_image(root: Path, image: str) -> Path:
    """Return the path of an image, which may be in any of the usual folders.

    Raises:
        DataError: It is in none of them.
    """
    for folder in _IMAGE_FOLDERS:
        path = root / folder / image
        if path.is_file():
            return path
    raise DataError(f"image {image!r} is in none of {', '.join(_IMAGE_FOLDERS)} under {str(root)!r}; unpack COCO there")


def _from_lines(path: Path, skip: Skip | None) -> Iterator[GroundingSample]:
    def make(numbered: tuple[int, dict[str, Any]]) -> GroundingSample:
        number, item = numbered
        return sample_of_line(item, number, f"line {number} of {str(path)!r}")

    yield from usable(iterate_json_objects(path, skip), make, skip)


def sample_of_line(item: dict[str, Any], number: int, place: str) -> GroundingSample:
    """Make a sample from one line of the JSON lines form.

    Args:
        item: The content of the line.
        number: Its number, from 1.
        place: The line, for messages.

    Raises:
        DataError: A field is missing or wrong.
    """
    try:
        box, width, height = item["bbox"], int(item["width"]), int(item["height"])
        image, words, split = (text_field(item, name, place) for name in ("image", "sent", "split"))
        sample = GroundingSample(str(number), image, words, _box(box), width, height, split)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place} lacks or misspells a field ({error!r})") from error
    _require_inside(sample, place)
    return sample


def _from_refs(refs_path: Path, instances_path: Path, skip: Skip | None) -> Iterator[GroundingSample]:
    boxes, images = _instances(instances_path)

    def make(numbered: tuple[int, Any]) -> list[GroundingSample]:
        number, ref = numbered
        place = f"entry {number} of {str(refs_path)!r}"
        try:
            x, y, w, h = boxes[ref["ann_id"]]
            image = images[ref["image_id"]]
            samples = [
                GroundingSample(
                    sample_id=f"{ref['ref_id']}-{sentence['sent_id']}",
                    # The entry's own file_name has an extra suffix.
                    image=text_field(image, "file_name", place),
                    expression=text_field(sentence, "sent", place),
                    box_xyxy_px=_box([x, y, x + w, y + h]),
                    width=int(image["width"]),
                    height=int(image["height"]),
                    split=text_field(ref, "split", place),
                )
                for sentence in ref["sentences"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{place} does not fit {str(instances_path)!r} ({error!r})") from error
        for sample in samples[:1]:
            _require_inside(sample, place)
        return samples

    entries = enumerate(read_plain_pickle(refs_path))
    yield from chain.from_iterable(usable(entries, make, skip))


def _instances(path: Path) -> tuple[dict[Any, list[float]], dict[Any, dict[str, Any]]]:
    content = read_json(path)
    try:
        boxes = {entry["id"]: entry["bbox"] for entry in content["annotations"]}
        images = {entry["id"]: entry for entry in content["images"]}
    except (KeyError, TypeError) as error:
        raise DataError(f"{str(path)!r} is not a COCO instances file ({error!r})") from error
    return boxes, images


def _box(values: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in values)
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)) or x2 <= x1 or y2 <= y1:
        raise ValueError(f"box {values!r} is not x1 < x2, y1 < y2")
    return x1, y1, x2, y2


def _require_inside(sample: GroundingSample, place: str) -> None:
    # Some boxes of the annotators reach over the edge by a pixel or two; boxes in other units reach much further.
    x1, y1, x2, y2 = sample.box_xyxy_px
    if x2 <= 1 and y2 <= 1 and (x2, y2) != (1, 1):
        raise DataError(f"{place} has bbox {list(sample.box_xyxy_px)} in fractions; it must be x1,y1,x2,y2 in px")
    if x1 < -2 or y1 < -2 or x2 > sample.width + 2 or y2 > sample.height + 2:
        raise DataError(
            f"{place} has bbox {list(sample.box_xyxy_px)}, outside its {sample.width}x{sample.height} px image; "
            "it must be x1,y1,x2,y2 in px"
        )
