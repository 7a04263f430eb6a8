"""What the readers of published training sets return: pictures or a video, with questions or named boxes."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from json.decoder import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import read_text
from elysium_core.data.readers.frame_sources import FrameSource
from elysium_core.errors import DataError
from elysium_core.geometry import Box

_BLANKS = " \t\r\n"


@dataclass(frozen=True, slots=True)
class AnnotatedMedia:
    """One item of a published training set.

    Attributes:
        place: File and item, for messages.
        frames: The picture or the video.
        rounds: Questions and answers of one conversation, in order.
        objects: Words and box of each named object.
    """

    place: str
    frames: FrameSource
    rounds: tuple[tuple[str, str], ...] = ()
    objects: tuple[tuple[str, Box], ...] = ()


class MediaSet(Protocol):
    """A published training set with random access; nothing but an index is held in memory where the set is large."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one item.

        Raises:
            DataError: It cannot be used; the message names file and item.
        """
        ...


def wrong_form(path: Path, expected: str) -> DataError:
    """Return the error for a file or folder that is not in the published form.

    Args:
        path: The file or folder.
        expected: The published form, to follow "expected".
    """
    return DataError(f"{str(path)!r} does not have the published form; expected {expected}")


def xywh_px(item: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, width and height [px] of an object with these fields.

    Raises:
        KeyError: One is missing.
        TypeError: One is no number.
        ValueError: One is no number.
    """
    return float(item["x"]), float(item["y"]), float(item["width"]), float(item["height"])


class JsonItems:
    """The items of one large JSON list, or the members of one large JSON object, each parsed when it is asked for.

    The file is looked through once; only the place of each item stays in memory.

    Args:
        path: The file.
        expected: The published form, for messages.

    Raises:
        DataError: The file is missing, is no JSON, or is neither a list nor an object.
    """

    def __init__(self, path: Path, expected: str) -> None:
        self.path, self._expected = path, expected
        try:
            spans = _spans(read_text(path), _mark_bytes(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{str(path)!r} is not valid JSON ({error}); expected {expected}") from error
        if not spans:
            raise wrong_form(path, expected)
        self._spans: NDArray[np.int64] = np.asarray(spans, np.int64)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._spans)

    def place(self, index: int) -> str:
        """Return file and item, for messages."""
        return f"item {index + 1} of {str(self.path)!r}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Parse one item.

        Raises:
            DataError: It is not a JSON object.
        """
        start, end = (int(value) for value in self._spans[index])
        with self.path.open("rb") as file:
            file.seek(start)
            value = json.loads(file.read(end - start))
        if not isinstance(value, dict):
            raise DataError(f"{self.place(index)} is a JSON {type(value).__name__}; expected {self._expected}")
        return value


def _spans(text: str, byte: int) -> list[tuple[int, int]]:
    """Return the first byte, and the one behind the last, of each item of a JSON list or value of a JSON object.

    Args:
        text: The text.
        byte: Place of its first character in the file.
    """
    decoder, at = JSONDecoder(), _skip(text, 0)
    opening = text[at : at + 1]
    closing = {"[": "]", "{": "}"}.get(opening)
    if closing is None:
        return []
    spans, at, counted = [], _skip(text, at + 1), 0
    while text[at : at + 1] != closing:
        if opening == "{":
            if text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting a name", text, at)
            _, at = decoder.raw_decode(text, at)
            at = _expect(text, at, ":")
        _, end = decoder.raw_decode(text, at)
        # Characters are not bytes where the text is not ASCII.
        byte, counted = byte + len(text[counted:at].encode()), at
        start = byte
        byte, counted = byte + len(text[counted:end].encode()), end
        spans.append((start, byte))
        at = _skip(text, end)
        if text[at : at + 1] != closing:
            at = _expect(text, at, ",")
    return spans


def _mark_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return len(codecs.BOM_UTF8) if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _expect(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise JSONDecodeError(f"Expecting {sign!r}", text, at)
    return _skip(text, at + 1)
