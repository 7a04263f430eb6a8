"""Questions about whole frames as rows of tokens: all questions about a frame share its visual tokens.

Shapes: B frames, one row each; L tokens a row, K visual tokens of a frame, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from elysium_core.errors import ModelFileError
from elysium_core.prompt.layout import AnswerWeights, PromptLayout, row_tensors
from elysium_core.prompt.questions import PUBLISHED, REC, REG, fill
from elysium_core.training.real.frame_questions import ABSENT, FrameQuestion
from elysium_core.training.real.marked_rows import AnswerMarker, AnswerMarks, MarkedRows, box_text, numbers_of

FIND, NAME = 0, 1
"""Kinds of questions: where is it, and what is it."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameRows:
    """Rows of a batch of frames.

    Attributes:
        marked: The rows with their answers.
        positions: (B, L) int64.
        branch: (B, L) int64, see :func:`elysium_core.prompt.layout.row_tensors`.
        row: (A,) int64, row of each answer.
        kind: (A,) int64, FIND or NAME.
        target: (A,) int64, index of the object in its frame; ABSENT if it is not shown.
        name_place: (A,) int64, place of the asked name's last token; 0 where an object is to be named.
        name: (A,) int64, number of the name.
    """

    marked: MarkedRows
    positions: Tensor
    branch: Tensor
    row: Tensor
    kind: Tensor
    target: Tensor
    name_place: Tensor
    name: Tensor

    def to(self, device: torch.device) -> FrameRows:
        """Move every tensor to a device."""
        return FrameRows(*(getattr(self, item.name).to(device) for item in fields(self)))


class FramePrompts:
    """Writes questions about frames for one model.

    Args:
        layout: Of the model.
        visual_tokens: Visual tokens of a frame, K.
        names: The known names.

    Raises:
        ModelFileError: A name's last word is not one token.
    """

    def __init__(self, layout: PromptLayout, visual_tokens: int, names: Sequence[str]) -> None:
        self._layout, self._visual_tokens, self.names = layout, visual_tokens, tuple(names)
        self.marker = AnswerMarker(layout)
        """Marks the answers."""
        self.name_ids = torch.tensor([self._last_id(name) for name in self.names], dtype=torch.int64)
        """(V,) id of the last token of each name."""
        first = layout.frame_texts(1)[0]
        self.visual_places = torch.arange(len(first), len(first) + visual_tokens)
        """(K,) places of the visual tokens in every row."""

    def _last_id(self, name: str) -> int:
        ids, last = self._layout.tokenizer.encode_answer(f"the {name}"), name.rsplit(maxsplit=1)[-1]
        if self._layout.tokenizer.token_text(ids[-1]).strip("▁ ") != last:
            raise ModelFileError(f"the tokenizer has no token of its own for {last!r}; enlarge vocab_size")
        return ids[-1]

    def question(self, question: FrameQuestion) -> str:
        """A question as text."""
        if question.box is None:
            return fill(PUBLISHED[REC], expression=question.expression)
        return fill(PUBLISHED[REG], box=box_text(numbers_of(torch.from_numpy(question.box)).tolist()))

    def rows(self, asked: Sequence[Sequence[FrameQuestion]], boxes: Tensor) -> FrameRows:
        """Write a batch.

        Args:
            asked: Questions about each frame.
            boxes: (B, M, 4), the objects; a frame's questions are about these.
        """
        rows, marks, columns = [], AnswerMarks(), []
        for number, (questions, known) in enumerate(zip(asked, numbers_of(boxes).tolist(), strict=True)):
            row = self._layout.frames_row(1, self._visual_tokens)
            for branch, question in enumerate(questions, 1):
                answer = self._answer(question, known)
                dialogue = [(self.question(question), answer)]
                (place,) = self._layout.append_dialogue(row, branch, dialogue, AnswerWeights(), boxes=False)
                self.marker.mark(marks, number, place.answer, row.ids[place.answer : place.end])
                kind = FIND if question.box is None else NAME
                name_place = self._find_name(row.ids, place.question, place.answer, question) if kind == FIND else 0
                columns.append((number, kind, question.target, name_place, question.name))
            rows.append(row)
        tensors = row_tensors(rows)
        marked = marks.rows([row.ids for row in rows])
        return FrameRows(
            marked,
            tensors["positions"],
            tensors["branch"],
            *torch.tensor(columns, dtype=torch.int64).reshape(-1, 5).unbind(1),
        )

    def _answer(self, question: FrameQuestion, boxes: Sequence[Sequence[int]]) -> str:
        if question.box is not None:
            return self.names[question.name]
        if question.target != ABSENT:
            return box_text(boxes[question.target]) + "."
        # Where nothing is to be found, any box may stand: all numbers are equally likely in the wanted distribution.
        corners = np.sort(torch.randint(101, (2, 2)).numpy(), axis=0)
        return box_text([*corners[0].tolist(), *corners[1].tolist()]) + "."

    def _find_name(self, ids: Sequence[int], begin: int, end: int, question: FrameQuestion) -> int:
        wanted = int(self.name_ids[question.name])
        return max(place for place in range(begin, end) if ids[place] == wanted)
