"""Guesses of an answer whose form is known and whose boxes have hardly moved.

The guess is text: the template with the last box in it. Where the model departs in a
digit, the rest is guessed anew with the nearest value that still fits; later frames
are guessed to repeat the box that was written last.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from elysium_core.text.box_text import LEVELS
from elysium_core.text.tokenizer import TextTokenizer

_FIELD = re.compile(r"[0-9]+")
_BOX = re.compile(r"\[[^\[\]]*\]")


class AnswerDraft:
    """Drafts the rest of an answer; callable as an engine's drafter.

    Args:
        tokenizer: Of the model.
        given: The part of the answer that the model was given.
        guess: The whole answer as guessed, beginning with ``given``.
    """

    def __init__(self, tokenizer: TextTokenizer, given: str, guess: str) -> None:
        self._tokenizer = tokenizer
        self.guess = guess
        self._given_boxes = len(_BOX.findall(given))
        self.given_ids = self._shared_ids(given, guess)

    def __call__(self, written: Sequence[int]) -> Sequence[int]:
        """Ids that should follow ``written``, the end token included; empty when the form was left."""
        sofar = [*self.given_ids, *written]
        beginning = self._tokenizer.decode(sofar)
        text = complete(self._carried(beginning), beginning)
        if text is None:
            return ()
        ids = self._tokenizer.encode_answer(text)
        # A guess whose tokens do not continue what was written would be rejected anyway.
        if ids[: len(sofar)] != sofar:
            return ()
        return [*ids[len(sofar) :], self._tokenizer.eos_id]

    def _carried(self, beginning: str) -> str:
        """The guess with the newest box of the model's own in place of all later ones."""
        boxes = _BOX.findall(beginning)
        if len(boxes) <= self._given_boxes:
            return self.guess
        number = itertools.count()
        return _BOX.sub(lambda box: box[0] if next(number) < len(boxes) else boxes[-1], self.guess)

    def _shared_ids(self, given: str, guess: str) -> list[int]:
        """Ids of ``given`` as they stand in the whole answer: a merge across its end is left to the model."""
        if not given:
            return []
        part, whole = self._tokenizer.encode_answer(given), self._tokenizer.encode_answer(guess)
        while part and whole[: len(part)] != part:
            part.pop()
        return part


def complete(guess: str, written: str) -> str | None:
    """Fit a guess to what has been written.

    Args:
        guess: Text with numbers 0..100.
        written: The beginning of a text of the same form.

    Returns:
        A text of that form that begins with ``written`` and is otherwise as near to the
        guess as can be; None when ``written`` has left the form. Numbers that are complete
        in ``written`` stay, whatever they are.

    Example:
        >>> complete("[23,45,46,72]", "[23,5")
        '[23,50,46,72]'
    """
    result, place = "", 0
    position = 0
    for field in _FIELD.finditer(guess):
        literal = guess[position : field.start()]
        rest = written[place:]
        if not rest.startswith(literal):
            return result + guess[position:] if literal.startswith(rest) else None
        place += len(literal)
        result += literal
        rest = written[place:]
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        place += len(digits)
        closed = place < len(written)
        value = digits if closed else _nearest(digits, int(field.group(0)))
        if not value:
            return None
        result += value
        position = field.end()
    tail, rest = guess[position:], written[place:]
    return result + tail if tail.startswith(rest) else None


def _nearest(digits: str, wanted: int) -> str | None:
    """The number 0..100 that begins with ``digits`` and is nearest to ``wanted``."""
    fitting = [str(value) for value in range(LEVELS + 1) if str(value).startswith(digits)]
    return min(fitting, key=lambda text: abs(int(text) - wanted), default=None)
