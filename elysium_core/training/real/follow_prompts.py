"""What a tracker asks about an anchor and a live crop, with the answer that is to be learnt.

The anchor crop is Frame 1 and the live crop Frame 2 of a clip. The question gives the object's box in the anchor crop;
so does the beginning of the answer, as a tracker gives it. What is learnt is the rest of the answer.

Shapes: B pairs, one row and one answer each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elysium_core.errors import ModelFileError
from elysium_core.prompt.layout import VISUAL_SLOT, PromptLayout
from elysium_core.prompt.questions import PUBLISHED, SOT, fill
from elysium_core.training.real.marked_rows import AnswerMarker, AnswerMarks, MarkedRows, box_text


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
        self.marker = AnswerMarker(layout)
        """Marks the answers."""
        first = [*layout.frame_text(1), *[VISUAL_SLOT] * anchor_tokens]
        second = layout.frame_text(2)
        self._frames = [*first, *second, *[VISUAL_SLOT] * live_tokens]
        self.live_places = torch.arange(len(first) + len(second), len(self._frames))
        """(K2,) places of the live crop's visual tokens in every row."""

    def question(self, anchor_box: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of the question about an anchor's box (four numbers 0..100), and of the given part of its answer."""
        question = fill(PUBLISHED[SOT], box=box_text(anchor_box))
        given = self._layout.tokenizer.encode_answer(f"Frame 1: {box_text(anchor_box)},")
        return self._layout.conversation(question), given

    def rows(self, anchor_boxes: Tensor, live_boxes: Tensor) -> MarkedRows:
        """Write a batch.

        Args:
            anchor_boxes: (B, 4) int64 numbers 0..100.
            live_boxes: (B, 4) int64, likewise; any numbers where the object is absent.
        """
        written, marks = [], AnswerMarks()
        for row, (anchor, live) in enumerate(zip(anchor_boxes.tolist(), live_boxes.tolist(), strict=True)):
            question, given = self.question(anchor)
            answer = self._layout.answer(f"Frame 1: {box_text(anchor)}, Frame 2: {box_text(live)}.")
            if answer[: len(given)] != given:
                raise ModelFileError("the tokenizer joins the end of a given answer with what follows it")
            beginning = [*self._frames, *question]
            self.marker.mark(marks, row, len(beginning), answer, first=len(given))
            written.append([*beginning, *answer])
        return marks.rows(written)
