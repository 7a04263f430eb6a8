"""Reading of boxes, flags and JSON lines from annotation files. Every error names file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import DataError

_MAX_SHOWN = 60

Skip = Callable[[DataError], None]
"""Called with the error of each entry of a data set that is left out."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def usable(items: Iterable[Item], make: Callable[[Item], Made], skip: Skip | None) -> Iterator[Made]:
    """Make something of each item, and leave out those of which nothing can be made.

    Args:
        items: The items.
        make: Makes something of one; raises DataError if it is damaged.
        skip: Told about each item that is left out; None = the first damaged one ends the reading.

    Raises:
        DataError: An item is damaged, and there is no ``skip``.
    """
    for item in items:
        try:
            made = make(item)
        except DataError as error:
            if skip is None:
                raise
            skip(error)
        else:
            yield made


def text_field(item: dict[str, Any], name: str, place: str) -> str:
    """Return a text of a JSON object; a number is taken as text, but null, a list or an object never is.

    Raises:
        DataError: It is missing, empty or of another kind.
    """
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        if name not in item:
            raise DataError(f"{place} lacks {name}")
        raise DataError(f"{place} has {_shown(json.dumps(value, default=str))} where the text {name!r} is needed")
    return str(value)


def read_text(path: Path) -> str:
    """Return a text file's content (UTF-8, with or without byte order mark).

    Raises:
        DataError: The file is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8 text (byte {error.start}); convert it first") from error


def read_boxes(path: Path, *, negative_is_empty: bool = False) -> NDArray[np.float64]:
    """Read one box ``x y w h`` a line, separated by commas, tabs, semicolons or blanks.

    Args:
        path: The file. Empty lines at its end are ignored.
        negative_is_empty: Read a negative size as 0 instead of refusing it. Some published
            sets write an absent target so (LaSOT's lion-5: ``1,1,-1,-1``).

    Returns:
        Shape (N, 4), as written; a row of NaN means that the target is absent.

    Raises:
        DataError: A line does not hold four numbers, is partly NaN, infinite, or has a
            negative size; or there is no line at all.
    """
    lines = read_text(path).rstrip().splitlines()
    if not lines:
        raise DataError(f"{str(path)!r} holds no boxes; it needs one line x,y,w,h for each frame")
    boxes = np.asarray([_box(line, path, number) for number, line in enumerate(lines, 1)], dtype=np.float64)
    negative = np.flatnonzero((boxes[:, 2:] < 0).any(axis=1))
    if len(negative) and not negative_is_empty:
        line = lines[negative[0]]
        raise DataError(
            f"{_place(path, int(negative[0]) + 1)} holds {_shown(line)}, a box of negative size; x,y,w,h is needed"
        )
    boxes[negative, 2:] = boxes[negative, 2:].clip(min=0)
    return boxes


def read_flags(path: Path, count: int) -> NDArray[np.int64]:
    """Read one whole number a frame, all on one line or one a line, separated like boxes.

    Args:
        path: The file.
        count: Number of frames: so many flags must be there.

    Returns:
        Shape (count,).

    Raises:
        DataError: A value is not a whole number, or there are too few or too many.
    """
    values = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        for word in _words(line):
            value = _number(word)
            if value is None or not math.isfinite(value) or value != int(value):
                raise DataError(f"{_place(path, number)} holds {_shown(word)} where a whole number is needed")
            values.append(int(value))
    if len(values) != count:
        raise DataError(f"{str(path)!r} holds {len(values)} flags for {count} frames; it needs one for each frame")
    return np.asarray(values, dtype=np.int64)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is missing or is not JSON.
    """
    return _parse_json(read_text(path), f"{str(path)!r}")


def iterate_json_objects(path: Path, skip: Skip | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream ``(line number, object)`` out of a file with one JSON object a line.

    The file is read line by line, so that a file of 3 GB needs little memory. A file that is
    one JSON list is accepted too, and numbered by item. Empty lines are skipped.

    Args:
        path: The file.
        skip: See :func:`usable`.

    Raises:
        DataError: The file is missing, or a line is not a JSON object.
    """

    def parse(numbered: tuple[int, str]) -> tuple[int, dict[str, Any]]:
        number, line = numbered
        return number, _object(_parse_json(line, _place(path, number)), _place(path, number))

    try:
        with path.open(encoding="utf-8-sig") as file:
            filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            first = next(filled, None)
            if first is not None and first[1].lstrip().startswith("["):
                yield from usable(enumerate(_json_list(path), 1), lambda pair: _list_item(*pair, path), skip)
            elif first is not None:
                yield from usable(chain([first], filled), parse, skip)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8 text; convert it first") from error


def _json_list(path: Path) -> list[Any]:
    content = read_json(path)
    # The file begins with a bracket, so there is nothing else that it could be.
    return list(content)


def _list_item(number: int, item: Any, path: Path) -> tuple[int, dict[str, Any]]:
    return number, _object(item, f"item {number} of {str(path)!r}")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place} is a JSON {type(value).__name__} where an object {{...}} is needed")
    return value


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not valid JSON ({error}); repair or delete it") from error


def _box(line: str, path: Path, number: int) -> list[float]:
    words = _words(line)
    values = [_number(word) for word in words]
    if len(values) != 4 or any(value is None for value in values):
        raise DataError(f"{_place(path, number)} holds {_shown(line)} where four numbers x,y,w,h are needed")
    box = [value for value in values if value is not None]
    if all(math.isnan(value) for value in box):
        return box
    if not all(math.isfinite(value) for value in box):
        raise DataError(f"{_place(path, number)} holds {_shown(line)}; a box is finite, or NaN in all four places")
    return box


def _words(line: str) -> list[str]:
    """Split at commas, semicolons, tabs and blanks; two commas in a row leave an empty word."""
    for separator in (",", ";"):
        if separator in line:
            words = [word.strip() for word in line.split(separator)]
            return words[:-1] if words[-1] == "" else words
    return line.split()


def _number(word: str) -> float | None:
    try:
        # Python would read the underscore of 1_0 as a thousands separator.
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _place(path: Path, number: int) -> str:
    return f"line {number} of {str(path)!r}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
