"""How far an answered box lies from the one that was guessed, as a rule.

One table a target, learnt while it is followed: counts of the differences of each
coordinate, of which old ones fade. Before anything is known, small differences are the
likely ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import nlargest

from elysium_core.text.box_text import LEVELS

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
    """Differences of answered coordinates from guessed ones, in steps of 1/LEVELS."""

    def __init__(self) -> None:
        self._seen: list[dict[int, float]] = [{} for _ in range(COORDINATES)]
        self._rest = [0.0] * COORDINATES
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_REMEMBERED)

    def learn(self, guess: Sequence[int], answer: Sequence[int]) -> None:
        """Take in an answer.

        Args:
            guess: The four coordinates that were guessed, 0..LEVELS.
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
            guess: What is guessed, 0..LEVELS.
        """
        seen = self._seen[coordinate]
        counts = {
            guess + difference: _PRIOR[abs(difference)] + seen.get(difference, 0.0)
            for difference in range(-_REACH, _REACH + 1)
        }
        total = sum(counts.values()) + self._rest[coordinate]
        return {value: count / total for value, count in counts.items() if 0 <= value <= LEVELS}

    def recall(self, coordinate: int, digits: str) -> int | None:
        """The newest answer for one coordinate that begins with ``digits``; None if there is none.

        A model that is of two minds goes back and forth between the same places.
        """
        values = (answer[coordinate] for answer in self._recent)
        return next((value for value in values if str(value).startswith(digits)), None)

    def boxes(self, guess: Sequence[int], least: float = 0.0) -> list[tuple[float, tuple[int, ...]]]:
        """Other boxes than the guessed one that an answer may have, likely ones first, with their chances.

        Args:
            guess: The four coordinates that are guessed, 0..LEVELS.
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
