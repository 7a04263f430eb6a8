"""What an annotation says about a photo."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.errors import BoxError
from elysium_core.geometry import Box

_HELD_OUT_EVERY = 20
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class PhotoObject:
    """One object of a photo.

    Attributes:
        name: What it is, as the data set calls it.
        box: Where it is.
        difficult: The annotators call it hard to recognise.
        truncated: A part of it is outside the photo or hidden.
        score: 1 for an annotation; a detector's confidence 0..1 for one of its boxes.
    """

    name: str
    box: Box
    difficult: bool = False
    truncated: bool = False
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """A photo that has not been read yet.

    Attributes:
        path: Its file.
        key: Its path relative to the folder of the data set, with ``/``; decides whether it is held out.
        objects: Its annotated objects.
        category: What the whole photo shows; empty if unknown.
        width: Width that the annotation gives [px]; 0 = it gives none.
        height: Height that the annotation gives [px]; 0 = it gives none.
    """

    path: Path
    key: str
    objects: tuple[PhotoObject, ...] = ()
    category: str = ""
    width: int = 0
    height: int = 0


def is_held_out(key: str) -> bool:
    """Whether a photo is kept for validation: one in twenty, by its name alone, on every machine."""
    return zlib.crc32(key.encode("utf-8", "surrogateescape")) % _HELD_OUT_EVERY == 0


def inside_folder(folder: Path, name: Any) -> Path | None:
    """Return the path of a file that an annotation names, or None if the name is no path below the folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        return None
    return folder / relative


def clean_name(value: Any) -> str | None:
    """Return the name of an object with single blanks, or None if it is no usable name."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        return None
    name = " ".join(value.split())
    return name if name and name.isprintable() else None


def box_of_numbers(values: Any) -> Box | None:
    """Return the box of four numbers 0..1, or None if they are no box inside the picture."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4:
        return None
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return None
    try:
        return Box(*values)
    except (BoxError, OverflowError):
        return None
