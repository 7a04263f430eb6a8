"""Flickr30k Entities and Visual Genome: phrases and their boxes, in the forms in which they are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from elysium_core.data.readers.annotated_media import AnnotatedMedia, JsonItems, wrong_form, xywh_px
from elysium_core.data.readers.annotation_files import read_text
from elysium_core.data.readers.frame_sources import PictureFrames, frame_sizes
from elysium_core.errors import BoxError, DataError
from elysium_core.geometry import Box

FLICKR_FORM = "a folder of Annotations/<id>.xml and Sentences/<id>.txt, with <split>.txt of ids (Flickr30k Entities)"
VISUAL_GENOME_FORM = "a JSON list of pictures with id and a list 'regions' (Visual Genome's region_descriptions.json)"
# [/EN#283585/people A group of people]: the id of the entity, its types, the phrase.
_PHRASE = re.compile(r"\[/EN#([0-9]+)/\S+ ([^\]]+)\]")
_NOT_SHOWN = "0"
_GENOME_FOLDERS = ("VG_100K", "VG_100K_2", "", "images")


class Flickr30kEntities:
    """Flickr30k Entities: phrases of captions, linked to boxes. A phrase with several boxes is left out.

    Args:
        path: The folder of ``Annotations`` and ``Sentences``.
        media: Folder of the pictures, ``<id>.jpg``.
        split: Name of the list of ids; without that file, all sentence files are read.

    Raises:
        DataError: The folder has another form.
    """

    def __init__(self, path: Path, media: Path, split: str) -> None:
        if not (path / "Annotations").is_dir() or not (path / "Sentences").is_dir():
            raise wrong_form(path, FLICKR_FORM)
        listed = path / f"{split}.txt"
        if listed.is_file():
            self._ids = read_text(listed).split()
        else:
            self._ids = sorted(file.stem for file in (path / "Sentences").glob("*.txt"))
        self._path, self._media = path, media

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._ids)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one picture; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        name = self._ids[index]
        file = self._path / "Annotations" / f"{name}.xml"
        boxes = _entity_boxes(file)
        phrases = _PHRASE.findall(read_text(self._path / "Sentences" / f"{name}.txt"))
        named = {
            (words.strip(), entity)
            for entity, words in phrases
            if entity != _NOT_SHOWN and len(boxes.get(entity, ())) == 1
        }
        if not named:
            raise DataError(f"{str(file)!r} has no phrase with exactly one box")
        if not (self._media / f"{name}.jpg").is_file():
            raise DataError(f"{str(file)!r} belongs to {str(self._media / name)!r}.jpg, which is missing")
        objects = tuple((words, boxes[entity][0]) for words, entity in sorted(named))
        return AnnotatedMedia(str(file), PictureFrames(self._media, [f"{name}.jpg"]), objects=objects)


def _entity_boxes(file: Path) -> dict[str, list[Box]]:
    """Return the boxes of each entity in one annotation file."""
    try:
        # Python's parser refuses entities that expand without end since expat 2.4.1.
        root = ElementTree.fromstring(read_text(file))  # noqa: S314
        size = [int(root.findtext(f"size/{side}", "0")) for side in ("width", "height")]
        found: dict[str, list[Box]] = {}
        for thing in root.iter("object"):
            edges = thing.find("bndbox")
            if edges is None:  # the whole scene, or not shown
                continue
            x1, y1, x2, y2 = (float(edges.findtext(key, "nan")) for key in ("xmin", "ymin", "xmax", "ymax"))
            for entity in thing.findall("name"):
                # Pixels are counted from 1, and the last one belongs to the box.
                box = Box.from_px(x1 - 1, y1 - 1, x2, y2, size[0], size[1], clip=True)
                found.setdefault(str(entity.text), []).append(box)
    except (ElementTree.ParseError, ValueError, BoxError) as error:
        raise DataError(f"{str(file)!r} cannot be used ({error}); expected {FLICKR_FORM}") from error
    return found


class VisualGenome:
    """Visual Genome's region descriptions: sentences and their boxes.

    Args:
        path: ``region_descriptions.json``, or its folder.
        media: Folder of ``VG_100K`` and ``VG_100K_2``, or of the pictures.

    Raises:
        DataError: The file is missing or has another form.
    """

    def __init__(self, path: Path, media: Path) -> None:
        file = path / "region_descriptions.json" if path.is_dir() else path
        if not file.is_file():
            raise wrong_form(path, VISUAL_GENOME_FORM)
        self._items, self._media = JsonItems(file, VISUAL_GENOME_FORM), media
        if not isinstance(self._items[0].get("regions"), list):
            raise wrong_form(file, VISUAL_GENOME_FORM)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._items)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one picture; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        place, item = self._items.place(index), self._items[index]
        number = item.get("id", item.get("image_id"))
        name = f"{number}.jpg"
        folder = next((self._media / part for part in _GENOME_FOLDERS if (self._media / part / name).is_file()), None)
        if folder is None:
            raise DataError(
                f"{place} needs the picture {name!r}, which is not in {str(self._media)!r}; unpack it there"
            )
        picture = PictureFrames(folder, [name])
        width, height = (int(side) for side in frame_sizes(picture)[0])
        regions = [_region(region, width, height) for region in item["regions"]]
        objects = tuple(region for region in regions if region is not None)
        if not objects:
            raise DataError(f"{place} has no region with a phrase and a box inside its picture")
        return AnnotatedMedia(place, picture, objects=objects)


def _region(region: Any, width: int, height: int) -> tuple[str, Box] | None:
    """Return phrase and box of one region; None if it has no phrase or lies outside its picture, as some do."""
    try:
        words = " ".join(region["phrase"].split()).rstrip(".")
        box = Box.from_xywh_px(*xywh_px(region), width, height)
    except (KeyError, TypeError, ValueError, AttributeError, BoxError):
        return None
    return (words, box) if words else None
