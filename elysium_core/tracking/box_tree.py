"""Trees of guesses about the next box: likely other boxes as branches of a draft.

Which boxes are likely is learnt for each target while it is followed (:class:`Residuals`): counts of how far answered
coordinates lie from guessed ones, old ones fading. Two kinds of branch grow. An *opening* is another first digit of
one coordinate: it is confirmed only where all before it was right, but behind it the model says the second digit in
any case, which the next guess needs. A *box* is whole: the answer may end with it in the same pass. Both grow only as
far as they are expected to save more than they cost. Tokenizers must write each digit as one token, as LLaMA's does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nlargest
from itertools import chain

from elysium_core.engine.draft_tree import DraftTrie
from elysium_core.prompt.tokenizer import TextTokenizer

_DIGITS = "0123456789"
# Stands for a blank at the beginning of a token.
_BLANK = "\u2581"


class NumberTokens:
    """Digits of one tokenizer.

    Args:
        tokenizer: Of the model.

    Attributes:
        ids: Token of each digit inside a number; empty if the tokenizer has no such tokens.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        found = [tokenizer.encode_answer(f"[1{digit}")[-1] for digit in _DIGITS]
        alone = [tokenizer.encode_answer(f"[{digit}")[-1] for digit in _DIGITS]
        each_is_one = found == alone and [tokenizer.token_text(token) for token in found] == list(_DIGITS)
        self.ids: dict[str, int] = dict(zip(_DIGITS, found, strict=True)) if each_is_one else {}
        self._digits = {token: digit for digit, token in self.ids.items()}
        texts = map(tokenizer.token_text, range(tokenizer.vocab_size))
        # A draft asks for every token of an answer, at camera rate.
        self._numerals = frozenset(token for token, text in enumerate(texts) if text.lstrip(_BLANK).isdecimal())

    def digit(self, token: int) -> str:
        """The digit that a token stands for; empty if it is none."""
        return self._digits.get(token, "")

    def runs(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where the numbers of a text begin and end."""
        runs: list[tuple[int, int]] = []
        for index, token in enumerate(token_ids):
            if token not in self._numerals:
                continue
            if runs and runs[-1][1] == index:
                runs[-1] = runs[-1][0], index + 1
            else:
                runs.append((index, index + 1))
        return runs


@lru_cache(maxsize=8)
def number_tokens(tokenizer: TextTokenizer) -> NumberTokens:
    """The digits of a tokenizer, found once."""
    return NumberTokens(tokenizer)


COORDINATES = 4

# Differences larger than this are too rare to be drafted.
_REACH = 4
# Before anything was seen: at camera rate some seven of ten coordinates stay, and most others go one step.
_PRIOR = {0: 3.0, 1: 0.6, 2: 0.2, 3: 0.1, 4: 0.05}
# What was seen counts this much less with each further answer: some ten answers are remembered.
_FADING = 0.9
# Values of one coordinate that are combined with those of the others.
_COMBINED = 3
# Answers whose very values are remembered.
_REMEMBERED = 16


class Residuals:
    """Differences of answered coordinates from guessed ones, in steps of the box text.

    Args:
        levels: The largest number of a box.
    """

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._seen: list[dict[int, float]] = [{} for _ in range(COORDINATES)]
        self._rest = [0.0] * COORDINATES
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_REMEMBERED)

    def learn(self, guess: Sequence[int], answer: Sequence[int]) -> None:
        """Take in an answer.

        Args:
            guess: The four coordinates that were guessed, 0..levels.
            answer: Those that were answered.
        """
        self._recent.appendleft(tuple(answer))
        for coordinate, (guessed, answered) in enumerate(zip(guess, answer, strict=True)):
            seen = self._seen[coordinate]
            for difference in seen:
                seen[difference] *= _FADING
            self._rest[coordinate] *= _FADING
            if abs(answered - guessed) <= _REACH:
                seen[answered - guessed] = seen.get(answered - guessed, 0.0) + 1
            else:
                self._rest[coordinate] += 1

    def chances(self, coordinate: int, guess: int) -> dict[int, float]:
        """Values that an answer may have for one coordinate, and how likely they are; together less than 1.

        Args:
            coordinate: 0..3.
            guess: What is guessed, 0..levels.
        """
        seen = self._seen[coordinate]
        counts = {
            guess + difference: _PRIOR[abs(difference)] + seen.get(difference, 0.0)
            for difference in range(-_REACH, _REACH + 1)
        }
        total = sum(counts.values()) + self._rest[coordinate]
        return {value: count / total for value, count in counts.items() if 0 <= value <= self._levels}

    def recall(self, coordinate: int, digits: str) -> int | None:
        """The newest answer for one coordinate that begins with ``digits``; None if there is none.

        A model that is of two minds goes back and forth between the same places.
        """
        for answer in self._recent:
            if str(answer[coordinate]).startswith(digits):
                return answer[coordinate]
        return None

    def boxes(self, guess: Sequence[int], least: float = 0.0) -> list[tuple[float, tuple[int, ...]]]:
        """Other boxes than the guessed one that an answer may have, likely ones first, with their chances.

        Args:
            guess: The four coordinates that are guessed, 0..levels.
            least: Boxes less likely than this are left out; a camera asks for these at every frame.
        """
        boxes: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
        for coordinate, guessed in enumerate(guess):
            chances = ((chance, value) for value, chance in self.chances(coordinate, guessed).items())
            likely = nlargest(_COMBINED, chances)
            boxes = [
                (joint, (*values, value))
                for so_far, values in boxes
                for chance, value in likely
                if (joint := so_far * chance) >= least
            ]
        return sorted((box for box in boxes if box[1] != tuple(guess)), reverse=True)


@dataclass(frozen=True, slots=True)
class TreeBudget:
    """How far a tree of guesses may grow.

    Attributes:
        tokens: Most tokens besides the guess itself.
        least_gain: Passes that a token must be expected to save to be worth its cost.
    """

    tokens: int
    least_gain: float


NO_TREE = TreeBudget(0, 1.0)
"""One guess alone."""


def grow(
    trie: DraftTrie,
    ids: Sequence[int],
    known: int,
    numbers: NumberTokens,
    residuals: Residuals,
    budget: TreeBudget,
) -> None:
    """Add to a guess what else the last box of the answer may well be.

    Args:
        trie: Holds the guess; grows.
        ids: Tokens of the whole guessed answer.
        known: Number of them that stand before the tree.
        numbers: Digits of the tokenizer.
        residuals: What other boxes are likely.
        budget: Of the branches.
    """
    runs = numbers.runs(ids)[-COORDINATES:]
    if not budget.tokens or not numbers.ids or len(runs) < COORDINATES or runs[0][0] < known:
        return
    guess = [int("".join(map(numbers.digit, ids[begin:end])) or 0) for begin, end in runs]
    most = len(trie) + budget.tokens
    branches = sorted(_openings(ids, runs, guess, numbers, residuals), key=lambda branch: -branch[0])
    for gain, branch in chain(branches, _boxes(ids, runs, guess, numbers, residuals, budget.least_gain)):
        new = branch[known:]
        cost = len(new) - len(trie.shared(new))
        if cost and len(trie) + cost <= most and gain >= cost * budget.least_gain:
            trie.add(new)


def _openings(
    ids: Sequence[int],
    runs: Sequence[tuple[int, int]],
    guess: Sequence[int],
    numbers: NumberTokens,
    residuals: Residuals,
) -> Iterator[tuple[float, list[int]]]:
    """Chances of other first digits, with the answer up to them."""
    for coordinate, (begin, _) in enumerate(runs):
        chances: dict[str, float] = {}
        for value, chance in residuals.chances(coordinate, guess[coordinate]).items():
            first = str(value)[0]
            chances[first] = chances.get(first, 0.0) + chance
        del chances[str(guess[coordinate])[0]]
        for first, chance in chances.items():
            yield chance, [*ids[:begin], numbers.ids[first]]


def _boxes(
    ids: Sequence[int],
    runs: Sequence[tuple[int, int]],
    guess: Sequence[int],
    numbers: NumberTokens,
    residuals: Residuals,
    least: float,
) -> Iterator[tuple[float, list[int]]]:
    """Chances of other boxes, with the whole answer; likely ones first, those under ``least`` left out."""
    for chance, box in residuals.boxes(guess, least):
        answer: list[int] = []
        place = 0
        for value, (begin, end) in zip(box, runs, strict=True):
            answer += [*ids[place:begin], *(numbers.ids[digit] for digit in str(value))]
            place = end
        yield chance, [*answer, *ids[place:]]
