"""Other boxes than the guessed one, as branches of a draft, as far as they pay for themselves.

Two kinds of branch grow. An *opening* is one digit: another first digit of a coordinate.
It is confirmed only where all before it was right, but behind it the model tells the
second digit in any case, which the next guess needs. A *box* is whole: the answer may end
with it in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from elysium_core.inference.draft_tree import DraftTrie
from elysium_core.tracking.number_tokens import NumberTokens
from elysium_core.tracking.residuals import COORDINATES, Residuals


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
