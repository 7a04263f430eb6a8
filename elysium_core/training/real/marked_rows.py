"""Prompts with their answers as rows of tokens, in which each number of a box is marked.

Shapes: B rows, L tokens a row, A answers, P predicted tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from elysium_core.errors import ModelFileError
from elysium_core.prompt.box_text import LEVELS
from elysium_core.prompt.layout import PromptLayout

NO_FIELD = -1
"""Field of a predicted token that is not part of a number."""
END = 10
"""In :func:`continuations`: the number ends."""

# Numbers near the true one are nearly right: standard deviation of the wanted distribution, in steps.
_BLUR = 0.7
_LEAST_WEIGHT = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class MarkedRows:
    """Rows of a batch.

    Attributes:
        token_ids: (B, L) int64; VISUAL_SLOT where a visual token stands, 0 behind the end.
        row: (P,) int64, row of each predicted token.
        place: (P,) int64, place of the token before it, which predicts it.
        label: (P,) int64, the token.
        coordinate: (P,) int64, which of x1, y1, x2, y2 it is a part of; NO_FIELD for what stands around numbers.
        state: (P,) int64, what was written of the number before it, see :func:`continuations`.
        ender: (P,) int64, the token that ends the number; 0 around numbers.
        answer: (P,) int64, its answer.
        opening: (A,) int64, place of the bracket that opens each answer's box; 0 in an answer without a box.
    """

    token_ids: Tensor
    row: Tensor
    place: Tensor
    label: Tensor
    coordinate: Tensor
    state: Tensor
    ender: Tensor
    answer: Tensor
    opening: Tensor

    def to(self, device: torch.device) -> MarkedRows:
        """Move every tensor to a device."""
        return MarkedRows(*(getattr(self, item.name).to(device) for item in fields(self)))

    @property
    def in_number(self) -> Tensor:
        """(P,) bool, whether a predicted token is part of a number or ends one."""
        return self.coordinate != NO_FIELD


@dataclass(slots=True)
class AnswerMarks:
    """Collects the predicted tokens of several answers."""

    tokens: list[tuple[int, ...]] = field(default_factory=list)
    openings: list[int] = field(default_factory=list)

    def rows(self, token_ids: Sequence[Sequence[int]]) -> MarkedRows:
        """The collected answers, which lie in these rows."""
        longest = max(map(len, token_ids))
        columns = torch.tensor(self.tokens, dtype=torch.int64).reshape(-1, 7).unbind(1)
        padded = torch.tensor([[*each, *[0] * (longest - len(each))] for each in token_ids])
        row, place, label, coordinate, state, ender, answer = columns
        openings = torch.tensor(self.openings, dtype=torch.int64)
        return MarkedRows(padded, row, place, label, coordinate, state, ender, answer, openings)


class AnswerMarker:
    """Marks answers of one model.

    Args:
        layout: Of the model.

    Raises:
        ModelFileError: The tokenizer does not write single digits.
    """

    def __init__(self, layout: PromptLayout) -> None:
        self._layout = layout
        self._digits = [self._sign(str(digit)) for digit in range(10)]
        self.digits = torch.tensor(self._digits)
        """(10,) ids of the digits."""
        self._comma, self._close = self._sign(","), self._sign("]")

    def _sign(self, text: str) -> int:
        """Id of a sign inside a box."""
        encode = self._layout.tokenizer.encode_answer
        before, ids = encode("[1"), encode(f"[1{text}")
        if ids[:-1] != before:
            raise ModelFileError(f"the tokenizer has no token of its own for {text!r} inside a box")
        return ids[-1]

    def mark(self, marks: AnswerMarks, row: int, begins: int, answer: Sequence[int], first: int = 0) -> None:
        """Mark an answer.

        Args:
            marks: Where it is added.
            row: Its row.
            begins: Place of its first token in the row.
            answer: Its ids.
            first: Number of its tokens that are given.
        """
        coordinate, state, opening, number = NO_FIELD, 0, 0, len(marks.openings)
        for place in range(first, len(answer)):
            token = answer[place]
            ender = 0 if coordinate == NO_FIELD else (self._close if coordinate == 3 else self._comma)
            marks.tokens.append((row, begins + place - 1, token, coordinate, state, ender, number))
            if coordinate == NO_FIELD:
                if "[" in self._layout.tokenizer.token_text(token):
                    opening, coordinate, state = begins + place, 0, 0
            elif token in self._digits:
                state = _next_state(state, self._digits.index(token))
            else:
                coordinate, state = (coordinate + 1 if coordinate < 3 else NO_FIELD), 0
        marks.openings.append(opening)

    def wanted(self, rows: MarkedRows, boxes: Tensor, is_present: Tensor, vocabulary: int) -> Tensor:
        """The wanted distribution (P, V) of each predicted token.

        Numbers near the true one are nearly right. Where the object is absent, no number is likelier than another: what
        cannot be known lowers the score.

        Args:
            rows: The rows.
            boxes: (A, 4), true boxes of the answers; any where the object is absent.
            is_present: (A,) bool.
            vocabulary: V.
        """
        device, inside = boxes.device, rows.in_number
        answer = rows.answer[inside]
        truth = boxes[answer, rows.coordinate[inside]] * LEVELS
        numbers = torch.arange(LEVELS + 1.0, device=device)
        weight = torch.exp(-0.5 * ((numbers - truth[:, None]) / _BLUR) ** 2) + _LEAST_WEIGHT
        weight = torch.where(is_present[answer][:, None], weight, 1.0)
        shares = torch.einsum("pcn,pn->pc", continuations().to(device)[rows.state[inside]], weight)
        shares = shares / shares.sum(-1, keepdim=True)
        number = torch.zeros(len(shares), vocabulary, device=device)
        number[:, self.digits.to(device)] = shares[:, :10]
        number.scatter_(1, rows.ender[inside][:, None], shares[:, 10:])
        wanted = F.one_hot(rows.label, vocabulary).float()
        wanted[inside] = number
        return wanted


def box_text(numbers: Sequence[int]) -> str:
    """Four numbers as the text of a box."""
    return "[" + ",".join(map(str, numbers)) + "]"


def numbers_of(boxes: Tensor) -> Tensor:
    """The numbers 0..100 (..., 4) int64 that stand for boxes (..., 4)."""
    return (boxes * LEVELS).round().clamp(0, LEVELS).long()


def _next_state(state: int, digit: int) -> int:
    return 1 + (digit if state == 0 else 10 * (state - 1) + digit)


@cache
def continuations() -> Tensor:
    """How numbers go on: (102, 11, 101), 1 where a state, a digit or END, and a number go together.

    State 0: nothing is written; state 1 + n: the digits of n are.
    """
    table = torch.zeros(LEVELS + 2, END + 1, LEVELS + 1)
    for number in range(LEVELS + 1):
        state = 0
        for digit in map(int, str(number)):
            table[state, digit, number] = 1
            state = _next_state(state, digit)
        table[state, END, number] = 1
    return table
