"""Guesses of an answer whose form is known and whose boxes have hardly moved.

The guess is text: the template with the last box in it. Around it may grow a small tree
of other digits, as far as they are likely enough to pay for themselves. Where the model
departs, the rest is guessed anew from what it said about the numbers behind that place:
it read them off the same frame, if behind a wrong digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from elysium_core.engine.draft_tree import DraftTree, DraftTrie
from elysium_core.families.base import BoxGrammar
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.tracking.box_tree import COORDINATES, NO_TREE, Residuals, TreeBudget, grow, number_tokens

_OPEN_NUMBER = re.compile(r"[0-9]+\Z")


@dataclass(frozen=True, slots=True, eq=False)
class _Drafted:
    """What was drafted last.

    Attributes:
        text: The guess.
        ids: Its tokens, the end token included.
        known: Number of them that had been written.
        trie: The tree of those behind.
    """

    text: str
    ids: Sequence[int]
    known: int
    trie: DraftTrie


class AnswerDraft:
    """Drafts the rest of an answer; callable as an engine's drafter.

    Args:
        tokenizer: Of the model.
        grammar: How the model writes boxes.
        given: The part of the answer that the model was given.
        guess: The whole answer as guessed, beginning with ``given``.
        residuals: How the last box of an answer differs from its guess as a rule; None = one guess, no tree.
        budget: Of the tree.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        grammar: BoxGrammar,
        given: str,
        guess: str,
        residuals: Residuals | None = None,
        budget: TreeBudget = NO_TREE,
    ) -> None:
        self._tokenizer, self._grammar = tokenizer, grammar
        self._numbers = number_tokens(tokenizer)
        self.guess = guess
        self._given_boxes = len(grammar.boxes(given))
        self.given_ids = self._shared_ids(given, guess)
        self._residuals, self._budget = residuals, budget
        self._last: _Drafted | None = None

    @property
    def expected_tokens(self) -> int:
        """Tokens of the whole guess that are still to be written, the end token included."""
        return len(self._tokenizer.encode_answer(self.guess)) - len(self.given_ids) + 1

    def __call__(self, written: Sequence[int], said: Sequence[int] = ()) -> DraftTree:
        """Guess what follows ``written``, the end token included; nothing when the form was left.

        See :class:`elysium_core.engine.draft_tree.Drafter`.
        """
        sofar = [*self.given_ids, *written]
        beginning = self._tokenizer.decode(sofar)
        heard = self._heard(self._last, said) if said and self._last is not None else None
        text = complete(self._recalled(heard or self._carried(beginning), beginning), beginning, self._grammar)
        ids = [] if text is None else self._tokenizer.encode_answer(text)
        # A guess whose tokens do not continue what was written would be rejected anyway.
        if text is None or ids[: len(sofar)] != sofar:
            self._last = None
            return DraftTree((), ())
        ids.append(self._tokenizer.eos_id)
        self._last = _Drafted(text, ids, len(sofar), DraftTrie())
        self._last.trie.add(ids[len(sofar) :])
        if not written and self._residuals is not None:
            grow(self._last.trie, ids, len(sofar), self._numbers, self._residuals, self._budget)
        return self._last.trie.tree()

    def _heard(self, last: _Drafted, said: Sequence[int]) -> str | None:
        """The last guess, with the numbers that the model said in its place; None where tokens hide the numbers."""
        fields, runs = self._grammar.numbers(last.text), self._numbers.runs(last.ids)
        if len(fields) != len(runs):
            return None
        behind = last.trie.shared(last.ids[last.known :])
        text, place = "", 0
        for turn, (field, (begin, _)) in enumerate(zip(fields, runs, strict=True)):
            value = last.text[field]
            if begin > last.known:
                coordinate = turn - (len(fields) - COORDINATES)
                value = self._spoken(last.trie, behind[begin - last.known - 1], said, int(value), coordinate) or value
            text += last.text[place : field.start] + value
            place = field.stop
        return text + last.text[place:]

    def _recalled(self, guess: str, beginning: str) -> str:
        """The guess, with what was answered before for the number that has just been begun."""
        digits = _OPEN_NUMBER.search(beginning)
        if self._residuals is None or digits is None:
            return guess
        fields = self._grammar.numbers(guess)
        turn = len(self._grammar.numbers(beginning)) - 1
        coordinate = turn - (len(fields) - COORDINATES)
        if not 0 <= coordinate < COORDINATES or guess[fields[turn]].startswith(digits.group(0)):
            return guess
        value = self._residuals.recall(coordinate, digits.group(0))
        return guess if value is None else guess[: fields[turn].start] + str(value) + guess[fields[turn].stop :]

    def _spoken(
        self, trie: DraftTrie, node: int | None, said: Sequence[int], wanted: int, coordinate: int
    ) -> str | None:
        """The number that the model said behind a node; where the tree ends, one answered before or near ``wanted``."""
        digits = ""
        while node is not None and len(digits) < len(str(self._grammar.levels)):
            digit = self._numbers.digit(said[node])
            if not digit:
                return digits or None
            digits += digit
            node = trie.child(node, said[node])
        if self._residuals is not None and len(digits) == 1 and coordinate >= 0:
            remembered = self._residuals.recall(coordinate, digits)
            if remembered is not None:
                return str(remembered)
        return _nearest(digits, wanted, self._grammar.levels)

    def _carried(self, beginning: str) -> str:
        """The guess with the newest box of the model's own in place of all later ones."""
        written = self._grammar.boxes(beginning)
        if len(written) <= self._given_boxes:
            return self.guess
        newest, text, place = beginning[written[-1]], "", 0
        for box in self._grammar.boxes(self.guess)[len(written) :]:
            text += self.guess[place : box.start] + newest
            place = box.stop
        return text + self.guess[place:]

    def _shared_ids(self, given: str, guess: str) -> list[int]:
        """Ids of ``given`` as they stand in the whole answer: a merge across its end is left to the model."""
        if not given:
            return []
        part, whole = self._tokenizer.encode_answer(given), self._tokenizer.encode_answer(guess)
        while part and whole[: len(part)] != part:
            part.pop()
        return part


def complete(guess: str, written: str, grammar: BoxGrammar) -> str | None:
    """Fit a guess to what has been written.

    Args:
        guess: An answer with numbers.
        written: The beginning of a text of the same form.
        grammar: How the model writes boxes.

    Returns:
        A text of that form that begins with ``written`` and is otherwise as near to the
        guess as can be; None when ``written`` has left the form. Numbers that are complete
        in ``written`` stay, whatever they are.

    Example:
        >>> complete("[23,45,46,72]", "[23,5", ElysiumGrammar())
        '[23,50,46,72]'
    """
    result, place = "", 0
    position = 0
    for field in grammar.numbers(guess):
        literal = guess[position : field.start]
        rest = written[place:]
        if not rest.startswith(literal):
            return result + guess[position:] if literal.startswith(rest) else None
        place += len(literal)
        result += literal
        rest = written[place:]
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        place += len(digits)
        closed = place < len(written)
        value = digits if closed else _nearest(digits, int(guess[field]), grammar.levels)
        if not value:
            return None
        result += value
        position = field.stop
    tail, rest = guess[position:], written[place:]
    return result + tail if tail.startswith(rest) else None


@lru_cache(maxsize=1 << 14)
def _nearest(digits: str, wanted: int, levels: int) -> str | None:
    """The number 0..levels that begins with ``digits`` and is nearest to ``wanted``."""
    numbers = [text for text in map(str, range(levels + 1)) if text.startswith(digits)]
    return min(numbers, key=lambda text: abs(int(text) - wanted), default=None)
