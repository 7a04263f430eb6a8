"""Draft trees of the next box: branches of a draft for other likely boxes.

Which boxes are likely is learnt for each target while it is tracked (:class:`Residuals`), from the differences between
answered and guessed coordinates; older differences count less. There are two kinds of branches:

- An *opening* is another digit of one coordinate, but not its last one. If it is accepted, the same pass also predicts
  the next digit of that coordinate, which the next guess needs.
- A *box* is a complete other box. If it is accepted, the answer ends in the same pass.

A branch is added only if it is expected to save more than it costs. The tokenizer must encode each digit as one token,
as LLaMA's does; otherwise no branch is added.
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
# The character for a blank at the beginning of a token.
_BLANK = "\u2581"


class NumberTokens:
    """The digit tokens of a tokenizer.

    Args:
        tokenizer: The model's tokenizer.

    Attributes:
        ids: Token id of each digit; empty if the tokenizer does not encode each digit as one token.
        numerals: Ids of the tokens that are digits and nothing else; a blank may stand before them.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        found = [tokenizer.encode_answer(f"[1{digit}")[-1] for digit in _DIGITS]
        alone = [tokenizer.encode_answer(f"[{digit}")[-1] for digit in _DIGITS]
        each_is_one = found == alone and [tokenizer.token_text(token) for token in found] == list(_DIGITS)
        self.ids: dict[str, int] = dict(zip(_DIGITS, found, strict=True)) if each_is_one else {}
        self._digits = {token: digit for digit, token in self.ids.items()}
        texts = map(tokenizer.token_text, range(tokenizer.vocab_size))
        # A set, because every draft tests every number of an answer, for every frame of a camera.
        self.numerals = frozenset(token for token, text in enumerate(texts) if text.lstrip(_BLANK).isdecimal())

    def digit(self, token: int) -> str:
        """The digit that a token stands for; an empty string if the token is no digit."""
        return self._digits.get(token, "")


@lru_cache(maxsize=8)
def number_tokens(tokenizer: TextTokenizer) -> NumberTokens:
    """The digit tokens of a tokenizer, cached."""
    return NumberTokens(tokenizer)


COORDINATES = 4

# Initial counts by difference; larger differences are too rare to be drafted. On a grid of a hundred steps, at camera
# rate, about 7 of 10 coordinates do not change, and most others change by 1. On finer grids the same motion is spread
# over more steps.
_PRIOR = {0: 3.0, 1: 0.6, 2: 0.2, 3: 0.1, 4: 0.05}
_COARSE_LEVELS = 100
_FINE_PRIOR = {difference: 1.5 * 0.85**difference for difference in range(41)}
# Counts are multiplied by this with each new answer, so that about the last ten answers matter.
_FADING = 0.9
# Likeliest values of each coordinate that are combined to boxes.
_COMBINED = 3
# Number of newest answers whose values are kept for Residuals.recall.
_REMEMBERED = 16


class Residuals:
    """Statistics of the differences between answered and guessed coordinates, in steps of the box text.

    Args:
        levels: Largest value of a coordinate.
    """

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._prior = _PRIOR if levels <= _COARSE_LEVELS else _FINE_PRIOR
        self._seen: list[dict[int, float]] = [{} for _ in range(COORDINATES)]
        self._rest = [0.0] * COORDINATES
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_REMEMBERED)

    def learn(self, guess: Sequence[int], answer: Sequence[int]) -> None:
        """Add an answer to the statistics.

        Args:
            guess: The four guessed coordinates, 0..levels.
            answer: The four answered coordinates, 0..levels.
        """
        self._recent.appendleft(tuple(answer))
        for coordinate, (guessed, answered) in enumerate(zip(guess, answer, strict=True)):
            seen = self._seen[coordinate]
            for difference in seen:
                seen[difference] *= _FADING
            self._rest[coordinate] *= _FADING
            if abs(answered - guessed) in self._prior:
                seen[answered - guessed] = seen.get(answered - guessed, 0.0) + 1
            else:
                self._rest[coordinate] += 1

    def chances(self, coordinate: int, guess: int) -> dict[int, float]:
        """Probable values of one coordinate and their probabilities, whose sum is at most 1.

        Args:
            coordinate: Index of the coordinate, 0..3.
            guess: Its guessed value, 0..levels.
        """
        seen = self._seen[coordinate]
        reach = len(self._prior) - 1
        counts = {
            guess + difference: self._prior[abs(difference)] + seen.get(difference, 0.0)
            for difference in range(-reach, reach + 1)
        }
        total = sum(counts.values()) + self._rest[coordinate]
        return {value: count / total for value, count in counts.items() if 0 <= value <= self._levels}

    def recall(self, coordinate: int, digits: str) -> int | None:
        """The newest answered value of one coordinate that begins with ``digits``; None if there is none.

        Useful when a model alternates between the same few boxes from frame to frame.
        """
        for answer in self._recent:
            if str(answer[coordinate]).startswith(digits):
                return answer[coordinate]
        return None

    def boxes(self, guess: Sequence[int], least: float = 0.0) -> list[tuple[float, tuple[int, ...]]]:
        """Probable boxes other than the guessed one, as (probability, box), the likeliest first.

        Args:
            guess: The four guessed coordinates, 0..levels.
            least: Boxes with a lower probability are left out. This keeps the list short, since it is made anew
                for every frame.
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
    """Limits of the size of a draft tree.

    Attributes:
        tokens: Largest number of tokens besides the guess itself.
        least_gain: Forward passes that a branch must be expected to save for each of its tokens.
    """

    tokens: int
    least_gain: float


NO_TREE = TreeBudget(0, 1.0)
"""No branches: the draft is a single guess."""

# Passes that a drafted token must be expected to save. On a CPU, a pass of a small model costs as much as about 60
# tokens. On a GPU, tokens cost next to nothing until a pass is limited by arithmetic, at about 200 tokens.
_LEAST_GAIN = {"cpu": 1 / 60, "cuda": 1 / 400}
# Default of TrackingConfig.draft_tokens by device. On a CPU, branches did not save time (docs/benchmarks.md).
_DRAFT_TOKENS = {"cuda": 32}


def tree_budget(device: str, tokens: int, targets: int) -> TreeBudget:
    """Limits of the draft tree of each target. The tokens are shared by all targets, because they share a pass.

    Args:
        device: Type of the device, ``cpu`` or ``cuda``.
        tokens: ``TrackingConfig.draft_tokens``; -1 = the default of the device.
        targets: Number of targets.
    """
    if tokens < 0:
        tokens = _DRAFT_TOKENS.get(device, 0)
    return TreeBudget(tokens // max(1, targets), _LEAST_GAIN.get(device, _LEAST_GAIN["cpu"]))


def grow(
    trie: DraftTrie,
    ids: Sequence[int],
    known: int,
    runs: Sequence[tuple[int, int]],
    numbers: NumberTokens,
    residuals: Residuals,
    budget: TreeBudget,
) -> None:
    """Add branches with other likely values of the last box to a guess.

    Args:
        trie: The tree, which holds the guess; branches are added to it.
        ids: Token ids of the whole guessed answer.
        known: Number of these tokens that have been written already.
        runs: Begin and end (exclusive) of each coordinate in ``ids``; the last four are the last box.
        numbers: Digit tokens of the tokenizer.
        residuals: Statistics from which the probabilities of other boxes are computed.
        budget: Limits of the branches.
    """
    runs = runs[-COORDINATES:]
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
    """Branches with another digit of one coordinate: (probability, answer up to that digit).

    Of a number with one or two digits this is the first one; of longer ones, any but the last.
    """
    for coordinate, (begin, _) in enumerate(runs):
        guessed, values = str(guess[coordinate]), residuals.chances(coordinate, guess[coordinate])
        for place in range(max(1, len(guessed) - 1)):
            chances: dict[str, float] = {}
            for value, chance in values.items():
                digits = str(value)
                if digits[:place] == guessed[:place] and len(digits) > place:
                    chances[digits[place]] = chances.get(digits[place], 0.0) + chance
            chances.pop(guessed[place], None)
            for digit, chance in chances.items():
                yield chance, [*ids[: begin + place], numbers.ids[digit]]


def _boxes(
    ids: Sequence[int],
    runs: Sequence[tuple[int, int]],
    guess: Sequence[int],
    numbers: NumberTokens,
    residuals: Residuals,
    least: float,
) -> Iterator[tuple[float, list[int]]]:
    """Branches with another last box: (probability, whole answer), likeliest first, without those below ``least``."""
    for chance, box in residuals.boxes(guess, least):
        answer: list[int] = []
        place = 0
        for value, (begin, end) in zip(box, runs, strict=True):
            answer += [*ids[place:begin], *(numbers.ids[digit] for digit in str(value))]
            place = end
        yield chance, [*answer, *ids[place:]]
