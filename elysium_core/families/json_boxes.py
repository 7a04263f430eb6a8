"""The box format of Qwen-VL and of models like it: JSON, such as ``[{"bbox_2d": [1, 2, 3, 4], "label": "mug"}]``.

Reading is strict. The answer is one JSON object or a list of objects, bare or in a code fence; around a fence there may
be words, but no brackets. Each object has one key ``bbox_2d`` with four whole numbers. An empty list means that the
object is absent. Anything else gives no box, and the reason is counted. Several boxes are several objects that the
words fit: all valid ones are candidates, also when the answer is cut off or damaged behind them, and the first counts
unless the reader chooses another. A box is always about the last frame of the prompt, because that is what the
questions ask for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from elysium_core.errors import BoxError
from elysium_core.families.base import Steps
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import ParsedAnswer

_KEY = "bbox_2d"
_OPENED = re.compile(rf'"{_KEY}"[ \t\r\n]*:[ \t\r\n]*(\[([^\[\]{{}}"]*)(\]?))')
_NUMBER = re.compile(r"[0-9]+")
_FENCE = re.compile(r"([^\[\]{}`]*)```(?:json)?[ \t]*\n?(.*?)(?:```([^\[\]{}`]*))?\Z", re.DOTALL)
_BLANK = " \t\r\n"
_COUNTS = (2, 3, 4)
_FENCED, _LISTED, _BARE = "```json\n[\n\t{}\n]\n```", "[\n\t{}\n]", "[{}]"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object of an answer: its value, or the problem with it, and where it ends in the text."""

    value: dict[str, Any] | None
    problem: str
    start: int
    end: int


class JsonBoxGrammar:
    """Boxes as JSON (protocol: :class:`elysium_core.families.base.BoxGrammar`).

    The steps of an image say what a coordinate counts: 1000 steps over each side, or pixels of the resized image.

    Args:
        levels: Largest coordinate that the model may write in any image.
    """

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def quantize(self, box: Box, steps: Steps) -> tuple[int, ...]:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return tuple(round(value * step) for value, step in zip(box, (*steps, *steps), strict=True))

    def write(self, box: Box, steps: Steps) -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return "[" + ", ".join(map(str, self.quantize(box, steps))) + "]"

    def answer(self, boxes: Sequence[Box], steps: Steps, words: str = "") -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`; only the last frame has a box."""
        return _FENCED.replace("{}", self._entry(boxes[-1], steps, words))

    def other_forms(self, box: Box, steps: Steps, words: str = "") -> list[str]:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        entry = self._entry(box, steps, words)
        forms = ["```json\n[]\n```", *(form.replace("{}", entry) for form in (_LISTED, _BARE)), entry, "[]"]
        # When the model goes on behind the first box, there are more objects.
        return forms + [_FENCED.replace("{}", ",\n\t".join([entry] * count)) for count in _COUNTS]

    def beginning(self, boxes: Sequence[Box], steps: Steps) -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`; earlier frames have no part in an answer."""
        return ""

    def numbers(self, text: str) -> list[slice]:
        """See :class:`elysium_core.families.base.BoxGrammar`; digits of labels and of the key are no numbers."""
        return [
            slice(*number.span())
            for opened in _OPENED.finditer(text)
            for number in _NUMBER.finditer(text, *opened.span(2))
        ]

    def boxes(self, text: str) -> list[slice]:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return [slice(*opened.span(1)) for opened in _OPENED.finditer(text) if opened[3]]

    def digit_tokens(self, pieces: Sequence[str]) -> list[list[int]]:
        """Indices of the tokens with digits of each box of an answer, in the order of the boxes.

        Args:
            pieces: What each token adds to the text (:meth:`elysium_core.prompt.tokenizer.TextTokenizer.pieces`).
        """
        ends = list(accumulate(map(len, pieces)))
        return [
            [
                token
                for token, (piece, end) in enumerate(zip(pieces, ends, strict=True))
                if end - len(piece) < box.stop and end > box.start and _NUMBER.search(piece)
            ]
            for box in self.boxes("".join(pieces))
        ]

    def read(self, text: str, frame_count: int, steps: Steps) -> ParsedAnswer:
        """See :class:`elysium_core.families.base.BoxGrammar`; all frames but the last have no box."""
        places = [place.start for place in self.boxes(text)]
        problems: Counter[str] = Counter()
        found: list[tuple[Box, int]] = []
        for entry in _entries(text):
            if entry.value is None:
                problems[entry.problem] += 1
                continue
            inside = [number for number, place in enumerate(places) if entry.start <= place < entry.end]
            values = _four_integers(entry.value.get(_KEY))
            if len(inside) != 1 or values is None:
                problems["malformed"] += 1
            elif (box := _to_box(values, steps, problems)) is not None:
                found.append((box, inside[0]))
        problems["missing"] += frame_count - bool(found)
        problems["repeated"] += max(0, len(found) - 1)
        first, group = found[0] if found else (None, None)
        before = (None,) * (frame_count - 1)
        return ParsedAnswer((*before, first), (*before, group), +problems, tuple(found))

    def _entry(self, box: Box, steps: Steps, words: str) -> str:
        label = f', "label": {json.dumps(words, ensure_ascii=False)}' if words else ""
        return f'{{"{_KEY}": {self.write(box, steps)}{label}}}'


def _entries(text: str) -> Iterator[_Entry]:
    """The objects of an answer; the last one has a problem if the answer is damaged or cut off there."""
    fence = _FENCE.match(text)
    place, end = fence.span(2) if fence else (0, len(text))
    place = _skip(text, place, end)
    if place == end:
        return
    listed = text[place] == "["
    place = _skip(text, place + listed, end)
    while not (listed and text[place:end].startswith("]")):
        entry = _decode(text[:end], place)
        yield entry
        place = _skip(text, entry.end, end)
        if entry.value is None or (listed and place == end):
            return
        if not listed:
            break
        if text[place] == ",":
            place = _skip(text, place + 1, end)
        elif text[place] != "]":
            break
    rest = text[place + listed : end].strip(_BLANK)
    if rest:
        yield _Entry(None, "malformed", place, end)


def _skip(text: str, place: int, end: int) -> int:
    """The place of the next character that is not blank."""
    while place < end and text[place] in _BLANK:
        place += 1
    return place


def _decode(text: str, place: int) -> _Entry:
    """Read the JSON object that begins at ``place``."""
    if not text.startswith("{", place):
        return _Entry(None, "malformed" if place < len(text) else "unclosed", place, len(text))
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        cut = isinstance(error, json.JSONDecodeError) and (error.pos >= len(text) or "Unterminated" in error.msg)
        return _Entry(None, "unclosed" if cut else "malformed", place, len(text))
    return _Entry(value, "", place, end)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values.

    Raises:
        ValueError: A key occurs twice, so that it has no one value.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse)


def _four_integers(values: object) -> list[int] | None:
    # Python counts bool as int.
    good = isinstance(values, list) and len(values) == 4 and all(type(value) is int for value in values)
    return values if good and isinstance(values, list) else None


def _to_box(values: Sequence[int], steps: Steps, problems: Counter[str]) -> Box | None:
    if any(not 0 <= value <= step for value, step in zip(values, (*steps, *steps), strict=True)):
        problems["range"] += 1
        return None
    try:
        return Box(*(value / step for value, step in zip(values, (*steps, *steps), strict=True)))
    except BoxError:
        problems["empty"] += 1
        return None
