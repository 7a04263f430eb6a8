"""Drafts of answers about boxes, for speculative decoding (:mod:`elysium_core.engine.engine`).

The form of an answer is known and boxes change little from frame to frame. So the first guess
is the answer template with the last box. A small tree of other likely digits may be added
(:mod:`elysium_core.tracking.box_tree`). When the model rejects a digit, the next guess uses
the numbers that the model predicted after that digit: they come from the same frame, although
a wrong digit stood before them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from elysium_core.engine.draft_tree import DraftTree, DraftTrie
from elysium_core.families.base import BoxGrammar
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.tracking.box_tree import COORDINATES, NO_TREE, Residuals, TreeBudget, grow, number_tokens

_OPEN_NUMBER = re.compile(r"[0-9]+\Z")


@dataclass(frozen=True, slots=True, eq=False)
class _LastDraft:
    """The last draft.

    Attributes:
        text: The guessed answer.
        ids: Its token ids, the end token included.
        known: Number of these tokens that had been written.
        trie: The tree of the tokens after those.
    """

    text: str
    ids: Sequence[int]
    known: int
    trie: DraftTrie


class AnswerDraft:
    """Drafts the rest of an answer (protocol: :class:`elysium_core.engine.draft_tree.Drafter`).

    Args:
        tokenizer: The model's tokenizer.
        grammar: The box grammar of the model.
        given: The given beginning of the answer.
        guess: The whole guessed answer, beginning with ``given``.
        residuals: Statistics of the last box of an answer, for branches; None = a single guess.
        budget: Limits of the tree.
        others: Other forms of the guess, for a model that writes answers in several forms. The first one that fits to
            the text written so far is used when the guess does not.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        grammar: BoxGrammar,
        given: str,
        guess: str,
        residuals: Residuals | None = None,
        budget: TreeBudget = NO_TREE,
        others: Sequence[str] = (),
    ) -> None:
        self._tokenizer, self._grammar = tokenizer, grammar
        self._others = tuple(others)
        self._numbers = number_tokens(tokenizer)
        self.guess = guess
        self._given_boxes = len(grammar.boxes(given))
        self.given_ids = self._shared_ids(given, guess)
        self._residuals, self._budget = residuals, budget
        self._last: _LastDraft | None = None

    @property
    def expected_tokens(self) -> int:
        """Tokens of the guess after the given beginning, the end token included."""
        return len(self._tokenizer.encode_answer(self.guess)) - len(self.given_ids) + 1

    def __call__(self, written: Sequence[int], said: Sequence[int] = ()) -> DraftTree:
        """Guess the rest of the answer; empty when the text written so far does not have the form of the guess.

        See :class:`elysium_core.engine.draft_tree.Drafter`.
        """
        sofar = [*self.given_ids, *written]
        beginning = self._tokenizer.decode(sofar)
        predicted = self._with_predictions(self._last, said) if said and self._last is not None else None
        guess = predicted or self._with_newest_box(beginning)
        fitting = self._fitting((self._with_earlier_answer(guess, beginning), *self._others), beginning, sofar)
        if fitting is None:
            self._last = None
            return DraftTree((), ())
        text, ids = fitting
        ids.append(self._tokenizer.eos_id)
        self._last = _LastDraft(text, ids, len(sofar), DraftTrie())
        self._last.trie.add(ids[len(sofar) :])
        if not written and self._residuals is not None:
            runs = [run for _, run in self._fields(text, ids) or ()]
            grow(self._last.trie, ids, len(sofar), runs, self._numbers, self._residuals, self._budget)
        return self._last.trie.tree()

    def _fitting(self, guesses: Sequence[str], beginning: str, sofar: list[int]) -> tuple[str, list[int]] | None:
        """The first guess that has the form of the text written so far, and its token ids."""
        for guess in guesses:
            text = complete(guess, beginning, self._grammar)
            ids = [] if text is None else self._tokenizer.encode_answer(text)
            # A guess whose tokens do not begin with the written ones would be rejected anyway.
            if text is not None and ids[: len(sofar)] == sofar:
                return text, ids
        return None

    def _fields(self, text: str, ids: Sequence[int]) -> list[tuple[slice, tuple[int, int]]] | None:
        """Places of the grammar's numbers in a text, and in its token ids; None if a token holds more than a number.

        Other digits, as in ``bbox_2d`` or in a label, do not matter, in whatever tokens they are.
        """
        places, fields = self._tokenizer.places(text), []
        for field in self._grammar.numbers(text):
            run = [token for token, (begin, end) in enumerate(places) if begin < field.stop and end > field.start]
            if not run or not self._numbers.numerals.issuperset(ids[run[0] : run[-1] + 1]):
                return None
            fields.append((field, (run[0], run[-1] + 1)))
        return fields

    def _with_predictions(self, last: _LastDraft, said: Sequence[int]) -> str | None:
        """The last guess with the numbers that the model predicted; None if tokens and numbers do not match."""
        fields = self._fields(last.text, last.ids)
        if fields is None:
            return None
        nodes = last.trie.shared(last.ids[last.known :])
        text, place = "", 0
        for turn, (field, (begin, _)) in enumerate(fields):
            value = last.text[field]
            if begin > last.known:
                coordinate = turn - (len(fields) - COORDINATES)
                node = nodes[begin - last.known - 1]
                value = self._predicted_number(last.trie, node, said, int(value), coordinate) or value
            text += last.text[place : field.start] + value
            place = field.stop
        return text + last.text[place:]

    def _with_earlier_answer(self, guess: str, beginning: str) -> str:
        """The guess with an earlier answer for the unfinished number at the end of ``beginning``, if one fits."""
        digits = _OPEN_NUMBER.search(beginning)
        if self._residuals is None or digits is None:
            return guess
        fields, written = self._grammar.numbers(guess), self._grammar.numbers(beginning)
        turn = len(written) - 1
        coordinate = turn - (len(fields) - COORDINATES)
        # The digits may be those of a label, and a guess without the form of an answer has no fields.
        if not 0 <= turn < len(fields) or written[turn].stop != len(beginning):
            return guess
        if not 0 <= coordinate < COORDINATES or guess[fields[turn]].startswith(digits.group(0)):
            return guess
        value = self._residuals.recall(coordinate, digits.group(0))
        return guess if value is None else guess[: fields[turn].start] + str(value) + guess[fields[turn].stop :]

    def _predicted_number(
        self, trie: DraftTrie, node: int | None, said: Sequence[int], wanted: int, coordinate: int
    ) -> str | None:
        """The number that the model predicted after a node.

        If the tree ends after some of its digits, it is an earlier answer with these digits, or the number with these
        digits that is nearest to ``wanted``. None if there is no such number.
        """
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

    def _with_newest_box(self, beginning: str) -> str:
        """The guess in which all boxes after the newest one that the model wrote are equal to it."""
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
    """Change a guess so that it begins with the text written so far.

    Args:
        guess: A guessed answer with numbers.
        written: The text written so far.
        grammar: The box grammar of the model.

    Returns:
        A text of the same form that begins with ``written`` and is otherwise as near to the
        guess as possible. None when ``written`` does not have the form of the guess. Complete
        numbers in ``written`` are kept unchanged.

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


def _nearest(digits: str, wanted: int, levels: int) -> str | None:
    """The number 0..levels that begins with ``digits`` and is nearest to ``wanted``; the smaller of two."""
    if not digits:
        return str(min(max(wanted, 0), levels))
    low, high = int(digits), int(digits)
    found = [low] if str(low) == digits and low <= levels else []
    while low and str(low).startswith(digits) and (low := 10 * low) <= levels:
        high = 10 * high + 9
        found.append(min(max(wanted, low), high, levels))
    return min(map(str, found), key=lambda text: abs(int(text) - wanted), default=None)
