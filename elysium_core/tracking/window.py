"""Windows of a stream: the few frames in the prompt, shared by several targets, with their boxes so far.

The first frame of a window is one in which the box of every target is known. Each live frame is
appended, and the questions about all targets are asked in one pass. Then the live frame is either
kept (*growing* window, up to ``clip_length`` frames) or dropped (*anchor* window: always the first
frame and the live one). The keys and values of kept frames are computed only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from elysium_core.engine.engine import EngineCounters, Request
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.prompt.questions import RSOT, SOT
from elysium_core.runtime import Runtime
from elysium_core.tracking.box_tree import NO_TREE, Residuals, TreeBudget
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.types import Grounding

_SPARE_TOKENS = 16


@dataclass(slots=True)
class _Member:
    """A target in a window: its expression, and its boxes in the frames of the window."""

    expression: str
    boxes: list[Box] = field(default_factory=list)


class Window:
    """Frames in the prompt of one engine, shared by several targets (members).

    Args:
        runtime: The model.
        opening: The first frame.
        boxes: Box of every member in the first frame, by target id.
        expressions: Expressions of the members that have one, by target id.
        max_frames: Largest number of frames, >= 2; 2 makes it an anchor window.
        counters: Counts passes and tokens.
        max_new_tokens: Longest answer about a frame [tokens].
    """

    def __init__(
        self,
        runtime: Runtime,
        opening: Seen,
        boxes: Mapping[str, Box],
        expressions: Mapping[str, str],
        max_frames: int,
        counters: EngineCounters,
        max_new_tokens: int = 256,
    ) -> None:
        self._runtime = runtime
        self._max_new_tokens = max_new_tokens
        self._engine = runtime.new_engine(counters)
        self._opening: Seen | None = opening
        self._steps = opening.steps
        self._members = {name: _Member(expressions.get(name, ""), [box]) for name, box in boxes.items()}
        self._max_frames = max_frames
        self.frames = 1

    @property
    def members(self) -> list[str]:
        """Target ids of the members."""
        return list(self._members)

    @property
    def full(self) -> bool:
        """Whether the window can take no further frame; always false for an anchor window."""
        return self._max_frames > 2 and self.frames >= self._max_frames

    def discard(self, target_id: str) -> None:
        """Remove a member."""
        self._members.pop(target_id, None)

    def look(
        self,
        live: Seen,
        guesses: Mapping[str, Box],
        residuals: Mapping[str, Residuals] = MappingProxyType({}),
        budget: TreeBudget = NO_TREE,
    ) -> dict[str, Grounding]:
        """Append a live frame and find every member in it.

        Args:
            live: The encoded frame.
            guesses: Guessed boxes by target id; by default the newest box. They affect only the
                speed, not the answers.
            residuals: Statistics of answers and guesses by target id; the answers are added to them.
            budget: Limits of the draft tree of each member that has residuals.

        Returns:
            One observation for each member.
        """
        number = self.frames + 1
        appended = self._runtime.family.appended(live, number)
        prefix = self._with_opening(appended)
        guessed = {name: guesses.get(name, member.boxes[-1]) for name, member in self._members.items()}
        requests = [
            self._request(member, self._draft(member, guessed[name], residuals.get(name), budget))
            for name, member in self._members.items()
        ]
        answers = self._engine.answer(requests, prefix)
        seen = {
            name: self._runtime.read(answer, number, self._steps, near=guessed[name]).at(number - 1)
            for name, answer in zip(self._members, answers, strict=True)
        }
        for name in residuals.keys() & seen.keys():
            if (box := seen[name].box) is not None:
                learn, quantize = residuals[name].learn, self._runtime.family.grammar.quantize
                learn(quantize(guessed[name], self._steps), quantize(box, self._steps))
        if self._max_frames == 2:
            self._engine.crop(self._engine.prefix_length - len(appended))
        else:
            self.frames = number
            self._keep(seen)
        return seen

    def _with_opening(self, appended: Tensor) -> Tensor:
        """Rows of the frames that are fed: the live frame, and before it the first frame if it was not fed yet."""
        if self._opening is None:
            return appended
        opening = self._runtime.family.appended(self._opening, 1)
        self._opening = None
        return torch.cat([opening, appended])

    def _draft(self, member: _Member, guess: Box, residuals: Residuals | None, budget: TreeBudget) -> AnswerDraft:
        grammar = self._runtime.family.grammar
        known = grammar.beginning(member.boxes, self._steps)
        answer = grammar.answer([*member.boxes, guess], self._steps, member.expression)
        others = grammar.other_forms(guess, self._steps, member.expression)
        return AnswerDraft(self._runtime.tokenizer, grammar, known, answer, residuals, budget, others)

    def _request(self, member: _Member, draft: AnswerDraft) -> Request:
        family = self._runtime.family
        if member.expression:
            question = family.question(RSOT, member.expression)
        else:
            question = family.question(SOT, box=family.grammar.write(member.boxes[0], self._steps))
        longest = min(draft.expected_tokens + _SPARE_TOKENS, self._max_new_tokens)
        return self._runtime.request(question, draft.given_ids, draft, longest)

    def _keep(self, seen: Mapping[str, Grounding]) -> None:
        """Store the answered boxes; a member without one is removed, because its next prompt would lack that box."""
        for name, observation in seen.items():
            if observation.box is None:
                self.discard(name)
            else:
                self._members[name].boxes.append(observation.box)
