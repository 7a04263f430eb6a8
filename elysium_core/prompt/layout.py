"""The layout of prompts as token ids, for inference, training and evaluation.

A prompt has the text and the visual tokens of each frame, then a question, then its answer. Several questions about
one clip follow the same frames as *branches*: a branch attends to the frames and to itself, and its positions continue
where the frames end. So the model's output for a branch is the same as for the question alone, but the frames are
processed only once.

Shapes: L tokens of a row, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from elysium_core.prompt.conversation import build_prompt, follow_up, frame_pieces, question_piece
from elysium_core.prompt.tokenizer import TextTokenizer

VISUAL_SLOT = -1
"""Token id that stands for one visual token."""

PADDING_BRANCH = -1
"""Branch number of padding tokens at the end of a row."""


@dataclass(frozen=True, slots=True)
class AnswerWeights:
    """Weight of each token of an answer in the loss, >= 0.

    Attributes:
        digit: Digits of boxes.
        form: All other tokens of an answer that consists of boxes.
        text: Tokens of an answer in words.
    """

    digit: float = 1.0
    form: float = 1.0
    text: float = 1.0


@dataclass(frozen=True, slots=True)
class Round:
    """Indices of one question and its answer in a row: ``question <= answer < end``.

    Attributes:
        question: First token of the question.
        answer: First token of the answer.
        end: Index after the last token of the answer.
    """

    question: int
    answer: int
    end: int


@dataclass(slots=True)
class TokenRow:
    """Tokens of one clip with its questions; all five lists have the length L.

    Attributes:
        ids: Token ids; VISUAL_SLOT for a visual token.
        positions: Position of each token in its prompt.
        branch: 0 for the frames, 1.. for the questions.
        weight: Weight of each token as a label; 0 = not part of an answer.
        digit: Whether the token is a digit of an answered box.
        frames_end: Number of tokens before the first question.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    digit: list[bool] = field(default_factory=list)
    frames_end: int = 0

    def append(
        self, ids: Sequence[int], position: int, branch: int, weights: Sequence[float] = (), digits: Sequence[bool] = ()
    ) -> None:
        """Append tokens with positions from ``position`` on; without weights they are no labels."""
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.branch += [branch] * len(ids)
        self.weight += weights or [0.0] * len(ids)
        self.digit += digits or [False] * len(ids)


class PromptLayout:
    """Converts the prompts of one model to token ids.

    Args:
        tokenizer: The model's tokenizer.
        system_text: System text of every conversation.
    """

    def __init__(self, tokenizer: TextTokenizer, system_text: str) -> None:
        self.tokenizer = tokenizer
        self._system_text = system_text

    def frame_texts(self, frame_count: int) -> list[list[int]]:
        """Ids of the text before each frame of a clip; a single frame has no label."""
        return [self.tokenizer.encode_piece(piece) for piece in frame_pieces(frame_count, self._system_text)]

    def frame_text(self, number: int) -> list[int]:
        """Ids of the text before frame ``number`` (from 1) of a clip of several frames."""
        return self.tokenizer.encode_piece(frame_pieces(max(2, number), self._system_text)[number - 1])

    def question(self, text: str, *, with_frames: bool = True) -> list[int]:
        """Ids of the first question after the frames; without frames, of the whole prompt."""
        if with_frames:
            return self.tokenizer.encode_piece(question_piece(text))
        return self.tokenizer.encode_prompt(build_prompt(text, 0, self._system_text))[0]

    def follow_up(self, text: str) -> list[int]:
        """Ids of a further question of the same conversation."""
        return self.tokenizer.encode_answer(follow_up(text))

    def answer(self, text: str) -> list[int]:
        """Ids of a whole answer, the end token included."""
        return [*self.tokenizer.encode_answer(text), self.tokenizer.eos_id]

    def conversation(
        self, question: str, history: Sequence[tuple[str, str]] = (), *, with_frames: bool = True
    ) -> list[int]:
        """Ids from the first question to the beginning of the answer to ``question``.

        Args:
            question: The newest question.
            history: Earlier questions and answers, oldest first.
            with_frames: Whether the prompt has frames before the questions.
        """
        questions = [*(asked for asked, _ in history), question]
        ids = self.question(questions[0], with_frames=with_frames)
        for (_, answer), following in zip(history, questions[1:], strict=True):
            ids = [*ids, *self.answer(answer), *self.follow_up(following)]
        return ids

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        """Indices of the digit tokens of each bracket of an answer, in the order of the opening brackets."""
        groups: list[list[int]] = []
        inside = False
        for place, token in enumerate(token_ids):
            text = self.tokenizer.token_text(token)
            if opened := text.count("["):
                groups += [[] for _ in range(opened)]
                inside = True
            elif inside and text.isdecimal():
                groups[-1].append(place)
            elif "]" in text:
                inside = False
        return groups

    def digit_mask(self, token_ids: Sequence[int]) -> list[bool]:
        """Whether each token of an answer is a digit of a box."""
        mask = [False] * len(token_ids)
        for group in self.box_digits(token_ids):
            for place in group:
                mask[place] = True
        return mask

    def frames_row(self, frame_count: int, visual_tokens: int) -> TokenRow:
        """A row with the frames of a clip and no questions.

        Args:
            frame_count: Frames, >= 0.
            visual_tokens: Visual tokens of a frame, K.
        """
        row = TokenRow()
        for text in self.frame_texts(frame_count) if frame_count else []:
            row.append([*text, *[VISUAL_SLOT] * visual_tokens], len(row.ids), 0)
        row.frames_end = len(row.ids)
        return row

    def append_dialogue(
        self,
        row: TokenRow,
        branch: int,
        rounds: Sequence[tuple[str, str]],
        weights: AnswerWeights,
        *,
        boxes: bool,
        max_tokens: int | None = None,
    ) -> list[Round]:
        """Append questions and answers about a clip as one branch.

        Args:
            row: A row with the frames; the tokens are appended to it.
            branch: Number of the branch, from 1.
            rounds: Questions and answers, oldest first.
            weights: Weights of the tokens of the answers.
            boxes: Whether the answers consist of boxes.
            max_tokens: Longest row; rounds that do not fit are left out. None = no limit.

        Returns:
            Indices of each appended round.
        """
        places: list[Round] = []
        position = row.frames_end
        for number, (asked, answered) in enumerate(rounds):
            question = self.follow_up(asked) if number else self.question(asked, with_frames=row.frames_end > 0)
            answer = self.answer(answered)
            begin, length = len(row.ids), len(question) + len(answer)
            if max_tokens is not None and begin + length > max_tokens:
                break
            row.append(question, position, branch)
            digits = self.digit_mask(answer)
            other = weights.form if boxes else weights.text
            row.append(
                answer, position + len(question), branch, [weights.digit if d else other for d in digits], digits
            )
            places.append(Round(begin, begin + len(question), begin + length))
            position += length
        return places


def row_tensors(rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """Convert rows to padded tensors.

    Returns:
        ``token_ids``, ``positions``, ``branch`` (PADDING_BRANCH after the end of a row),
        ``label_weight`` and ``is_digit``, each (B, L).
    """
    length = max(len(row.ids) for row in rows)
    return {
        "token_ids": _pad([row.ids for row in rows], length, 0, torch.int64),
        "positions": _pad([row.positions for row in rows], length, 0, torch.int64),
        "branch": _pad([row.branch for row in rows], length, PADDING_BRANCH, torch.int64),
        "label_weight": _pad([row.weight for row in rows], length, 0.0, torch.float32),
        "is_digit": _pad([row.digit for row in rows], length, False, torch.bool),
    }


def _pad(rows: Sequence[Sequence[float]], length: int, value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=dtype)
