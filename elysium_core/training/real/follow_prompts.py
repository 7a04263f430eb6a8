"""What a tracker asks about an anchor and a live crop, with the answer that is to be learnt.

The anchor crop is Frame 1 and the live crop Frame 2 of a clip. The question gives the object's box in the anchor crop;
so does the beginning of the answer, as a tracker gives it. What is learnt is the rest of the answer.

Shapes: B pairs, L tokens a row, P predicted tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache

import torch
from torch import Tensor

from elysium_core.errors import ModelFileError
from elysium_core.prompt.box_text import LEVELS
from elysium_core.prompt.layout import VISUAL_SLOT, PromptLayout
from elysium_core.prompt.questions import PUBLISHED, SOT, fill

NO_FIELD = -1
"""Field of a predicted token that is not part of a number."""
END = 10
"""In :func:`continuations`: the number ends."""


@dataclass(frozen=True, slots=True, eq=False)
class FollowRows:
    """Prompts and answers of a batch.

    Attributes:
        token_ids: (B, L) int64; VISUAL_SLOT where a visual token stands, 0 behind the end.
        row: (P,) int64, row of each predicted token.
        place: (P,) int64, place of the token before it, which predicts it.
        label: (P,) int64, the token.
        coordinate: (P,) int64, which of x1, y1, x2, y2 it is a part of; NO_FIELD for what stands around numbers.
        state: (P,) int64, what was written of the number before it, see :func:`continuations`.
        ender: (P,) int64, the token that ends the number; 0 around numbers.
        opening: (B,) int64, place of the bracket that opens the answered box.
    """

    token_ids: Tensor
    row: Tensor
    place: Tensor
    label: Tensor
    coordinate: Tensor
    state: Tensor
    ender: Tensor
    opening: Tensor

    def to(self, device: torch.device) -> FollowRows:
        """Move every tensor to a device."""
        return FollowRows(*(getattr(self, item.name).to(device) for item in fields(self)))


@dataclass(slots=True)
class _Predicted:
    """The predicted tokens of one row: place before, token, coordinate, state and ender of each."""

    tokens: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    opening: int = 0


class FollowPrompts:
    """Writes prompts for one model.

    Args:
        layout: Of the model.
        anchor_tokens: Visual tokens of an anchor crop, K1.
        live_tokens: Visual tokens of a live crop, K2.

    Raises:
        ModelFileError: The tokenizer does not write single digits.
    """

    def __init__(self, layout: PromptLayout, anchor_tokens: int, live_tokens: int) -> None:
        self._layout = layout
        first = [*layout.frame_text(1), *[VISUAL_SLOT] * anchor_tokens]
        second = layout.frame_text(2)
        self._frames = [*first, *second, *[VISUAL_SLOT] * live_tokens]
        self.live_places = torch.arange(len(first) + len(second), len(self._frames))
        """(K2,) places of the live crop's visual tokens in every row."""
        self.digits = torch.tensor([self._sign(str(digit)) for digit in range(10)])
        """(10,) ids of the digits."""
        self._comma, self._close = self._sign(","), self._sign("]")

    def _sign(self, text: str) -> int:
        """Id of a sign inside a box."""
        encode = self._layout.tokenizer.encode_answer
        before, ids = encode("[1"), encode(f"[1{text}")
        if ids[:-1] != before:
            raise ModelFileError(f"the tokenizer has no token of its own for {text!r} inside a box")
        return ids[-1]

    def question(self, anchor_box: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of the question about an anchor's box (four numbers 0..100), and of the given part of its answer."""
        question = fill(PUBLISHED[SOT], box=_box_text(anchor_box))
        given = self._layout.tokenizer.encode_answer(f"Frame 1: {_box_text(anchor_box)},")
        return self._layout.conversation(question), given

    def rows(self, anchor_boxes: Tensor, live_boxes: Tensor) -> FollowRows:
        """Write a batch.

        Args:
            anchor_boxes: (B, 4) int64 numbers 0..100.
            live_boxes: (B, 4) int64, likewise; any numbers where the object is absent.
        """
        written, found = [], []
        for anchor, live in zip(anchor_boxes.tolist(), live_boxes.tolist(), strict=True):
            question, given = self.question(anchor)
            answer = self._layout.answer(f"Frame 1: {_box_text(anchor)}, Frame 2: {_box_text(live)}.")
            if answer[: len(given)] != given:
                raise ModelFileError("the tokenizer joins the end of a given answer with what follows it")
            beginning = [*self._frames, *question]
            found.append(self._predicted(answer, len(given), len(beginning)))
            written.append([*beginning, *answer])
        longest = max(map(len, written))
        tokens = torch.tensor(
            [(row, *token) for row, predicted in enumerate(found) for token in predicted.tokens], dtype=torch.int64
        )
        row, place, label, coordinate, state, ender = tokens.unbind(1)
        return FollowRows(
            token_ids=torch.tensor([[*each, *[0] * (longest - len(each))] for each in written]),
            row=row,
            place=place,
            label=label,
            coordinate=coordinate,
            state=state,
            ender=ender,
            opening=torch.tensor([predicted.opening for predicted in found]),
        )

    def _predicted(self, answer: Sequence[int], first: int, begins: int) -> _Predicted:
        """What is to be predicted of an answer from its token ``first`` on; the answer begins at place ``begins``."""
        found, coordinate, state = _Predicted(), NO_FIELD, 0
        digits = self.digits.tolist()
        for place in range(first, len(answer)):
            token = answer[place]
            ender = 0 if coordinate == NO_FIELD else (self._close if coordinate == 3 else self._comma)
            found.tokens.append((begins + place - 1, token, coordinate, state, ender))
            if coordinate == NO_FIELD:
                if "[" in self._layout.tokenizer.token_text(token):
                    found.opening, coordinate, state = begins + place, 0, 0
            elif token in digits:
                state = _next_state(state, digits.index(token))
            else:
                coordinate, state = (coordinate + 1 if coordinate < 3 else NO_FIELD), 0
        return found


def _box_text(numbers: Sequence[int]) -> str:
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
