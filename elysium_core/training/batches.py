"""Training batches: generated clips, the questions about them, and the truth of every patch.

All questions about a clip are packed behind its frames in one sequence. Each is a
*branch*: it attends to the frames and to itself, and its positions go on where the
frames end. A branch therefore sees exactly what it will see in inference, where it
stands alone, and the frames are encoded once for all of them.

Shapes: B clips, T frames each, N patches a frame, K visual tokens a frame, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR
from elysium_core.data.synthetic.expressions import choose, describe, description, references
from elysium_core.geometry import Box
from elysium_core.text.box_text import format_box, format_track
from elysium_core.text.conversation import frame_pieces, question_piece
from elysium_core.text.questions import REC, REG, RSOT, SOT, TRAINING, VIDEO_REG, fill
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.config import SyntheticDataConfig

VISUAL_SLOT = -1
NOTHING = -2
"""Target of a turn about something that is not in the picture."""

_VIDEO_REG_SHARE = 0.2
_FORMAT_WEIGHT = 0.1
# Of the questions about something that is not there.
_WRONG_COLOR_SHARE = 0.35
# A patch belongs to an object that covers at least this share of it.
_PATCH_SHARE = 0.15
_DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question about a clip and its answer.

    Attributes:
        task: Task name of :mod:`elysium_core.text.questions`.
        target: Index of the object in the clip, or NOTHING.
        question: Question text.
        answer: Answer text.
    """

    task: str
    target: int
    question: str
    answer: str


@dataclass(slots=True)
class Batch:
    """What one optimiser step sees.

    Attributes:
        images: (B * T, S, S, 3) uint8.
        patch_object: (B * T, N) object covering each patch, -1 for background.
        patch_name: (B * T, N) its name's index, the vocabulary's size for background.
        patch_color: (B * T, N) its colour word, ``len(COLORS)`` for none and for background.
        patch_box: (B * T, N, 4) its box in that frame, zeros for background.
        token_ids: (B, L); VISUAL_SLOT where a visual token stands.
        positions: (B, L).
        branch: (B, L); 0 the frames, 1.. the questions, -1 padding.
        label_weight: (B, L); weight of each token as a label, 0 = not an answer token.
        is_digit: (B, L); digits of answered boxes.
        pointers: (P, 5) rows of clip, token position, object, frame, kind: where the
            model has to look. Kind 0: a box answered to words; 1: a box answered to a
            box; 2: the end of a box in a question.
        frames: T.
    """

    images: Tensor
    patch_object: Tensor
    patch_name: Tensor
    patch_color: Tensor
    patch_box: Tensor
    token_ids: Tensor
    positions: Tensor
    branch: Tensor
    label_weight: Tensor
    is_digit: Tensor
    pointers: Tensor
    frames: int

    def to(self, device: torch.device) -> Batch:
        """Move every tensor to a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "frames"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


@dataclass(slots=True)
class _Sequence:
    """Tokens of one clip while they are being laid out."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    digit: list[bool] = field(default_factory=list)
    pointers: list[tuple[int, int, int, int]] = field(default_factory=list)

    def extend(
        self, ids: Sequence[int], start: int, branch: int, weights: Sequence[float], digits: Sequence[bool]
    ) -> None:
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.branch += [branch] * len(ids)
        self.weight += weights
        self.digit += digits


def draw_turns(
    rng: np.random.Generator, clip: SyntheticClip, data: SyntheticDataConfig, generator: ClipGenerator
) -> list[Turn]:
    """Ask about a clip, in random order and phrasing.

    Some questions have no true answer: the object is not in the picture, or not any
    more. Their answers are random boxes. What cannot be known can only be learnt as
    uncertain, so the digits' probabilities, and with them the score, come out low.
    """
    frames = len(clip.images)
    wanted: list[tuple[str, int]] = []
    for target in clip.targets + clip.vanishing:
        wanted += [(REC, target), (REG, target)] if frames == 1 else [(SOT, target), (RSOT, target)]
        if frames > 1 and rng.random() < _VIDEO_REG_SHARE:
            wanted.append((VIDEO_REG, target))
    # An object that no words tell apart can still be followed from a box, or named.
    callable_ = {n for n in range(len(clip.names)) if references(clip, n)}
    wanted = [(task, n) for task, n in wanted if n in callable_ or task not in (REC, RSOT)]
    order = rng.permutation(len(wanted))[: data.max_turns]
    turns = [_turn(rng, clip, wanted[i][0], wanted[i][1], data.plain_share) for i in order]
    for place in np.flatnonzero(rng.random(len(turns)) < data.absent_share):
        turns[place] = _absent_turn(rng, clip, generator)
    return turns


def _turn(rng: np.random.Generator, clip: SyntheticClip, task: str, target: int, plain_share: float) -> Turn:
    gone = clip.visible[target] <= 0
    boxes = [_random_box(rng) if gone[t] else Box(*map(float, box)) for t, box in enumerate(clip.boxes[target])]
    words = choose(rng, references(clip, target), plain_share).text if task in (REC, RSOT) else ""
    question = fill(_phrasing(rng, task), expression=words, box=format_box(boxes[0]))
    if task in (REG, VIDEO_REG):
        return Turn(task, target, question, description(clip, target))
    return Turn(task, target, question, format_box(boxes[0]) if task == REC else format_track(boxes))


def _absent_turn(rng: np.random.Generator, clip: SyntheticClip, generator: ClipGenerator) -> Turn:
    """A question about something that is nowhere in the clip."""
    frames = len(clip.images)
    task = REC if frames == 1 else RSOT
    question = fill(_phrasing(rng, task), expression=_absent_words(rng, clip, generator))
    boxes = [_random_box(rng) for _ in range(frames)]
    return Turn(task, NOTHING, question, format_box(boxes[0]) if task == REC else format_track(boxes))


def _absent_words(rng: np.random.Generator, clip: SyntheticClip, generator: ClipGenerator) -> str:
    """Another name; or, where colours are in play, a name that is there in a colour that it does not have."""
    if generator.config.dye_share and rng.random() < _WRONG_COLOR_SHARE:
        name = clip.names[int(rng.integers(len(clip.names)))]
        shown = {int(c) for n, c in zip(clip.names, clip.colors, strict=True) if n == name}
        others = sorted(set(generator.dyes(name)) - shown)
        if others:
            return describe(name, others[int(rng.integers(len(others)))])
    absent = [name for name in generator.vocabulary if name not in clip.names]
    name = absent[int(rng.integers(len(absent)))]
    dyes = generator.dyes(name)
    if not dyes or rng.random() >= generator.config.dye_share:
        return describe(name, NO_COLOR)
    return describe(name, dyes[int(rng.integers(len(dyes)))])


def _phrasing(rng: np.random.Generator, task: str) -> str:
    # The published phrasing is what inference asks, so it gets half of the practice.
    phrasings = TRAINING[task]
    return phrasings[0] if rng.random() < 0.5 else phrasings[int(rng.integers(len(phrasings)))]


def _random_box(rng: np.random.Generator) -> Box:
    """A box that tells nothing: any place, any size that objects have."""
    width, height = np.exp(rng.uniform(np.log(0.12), np.log(0.5), 2))
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return Box(x, y, x + width, y + height)


class BatchBuilder:
    """Draws clips and lays them out as batches; used by one process.

    Args:
        generator: Source of clips.
        data: What to draw.
        tokenizer: The model's tokenizer.
        visual_tokens: K.
        patch_px: Patch side [px].
    """

    def __init__(
        self,
        generator: ClipGenerator,
        data: SyntheticDataConfig,
        tokenizer: TextTokenizer,
        visual_tokens: int,
        patch_px: int,
    ) -> None:
        self._generator, self._data, self._tokenizer = generator, data, tokenizer
        self._visual_tokens, self._patch_px = visual_tokens, patch_px
        self._open_bracket = tokenizer.encode_answer("[")[0]
        self._close_bracket = tokenizer.encode_answer("[1]")[-1]

    def draw(self, seed: int, batch_frames: int, frames: int = 0) -> Batch:
        """Draw one batch; the same seed gives the same batch.

        Args:
            seed: Decides clips and questions.
            batch_frames: Frames of the batch, B * T.
            frames: T; 0 draws it from the data's mixture.
        """
        data = self._data
        self._generator.reseed(seed, 0)
        rng = np.random.default_rng([seed, 1])
        count = frames or int(rng.choice(data.frames, p=data.frame_weights))
        gap = data.gaps[data.frames.index(count)]
        clips: list[SyntheticClip] = []
        turns: list[list[Turn]] = []
        while len(clips) < max(1, batch_frames // count):
            objects = int(rng.choice(data.objects, p=data.object_weights))
            clip = self._generator.draw_with_target(count, objects, gap)
            clips.append(clip)
            turns.append(draw_turns(rng, clip, data, self._generator))
        return self.build(clips, turns)

    def build(self, clips: Sequence[SyntheticClip], turns: Sequence[Sequence[Turn]]) -> Batch:
        """Lay out clips of one length with their turns."""
        frames = len(clips[0].images)
        rows = [self._sequence(frames, asked) for asked in turns]
        length = max(len(row.ids) for row in rows)
        patches = [self._patches(clip) for clip in clips]
        pointers = [(b, *pointer) for b, row in enumerate(rows) for pointer in row.pointers]
        return Batch(
            images=torch.from_numpy(np.concatenate([clip.images for clip in clips])),
            patch_object=torch.from_numpy(np.concatenate([p[0] for p in patches])),
            patch_name=torch.from_numpy(np.concatenate([p[1] for p in patches])),
            patch_color=torch.from_numpy(np.concatenate([p[2] for p in patches])),
            patch_box=torch.from_numpy(np.concatenate([p[3] for p in patches])),
            token_ids=_pad([row.ids for row in rows], length, 0, torch.int64),
            positions=_pad([row.positions for row in rows], length, 0, torch.int64),
            branch=_pad([row.branch for row in rows], length, -1, torch.int64),
            label_weight=_pad([row.weight for row in rows], length, 0.0, torch.float32),
            is_digit=_pad([row.digit for row in rows], length, False, torch.bool),
            pointers=torch.tensor(pointers, dtype=torch.int64).reshape(-1, 5),
            frames=frames,
        )

    def _sequence(self, frames: int, turns: Sequence[Turn]) -> _Sequence:
        row = _Sequence()
        for piece in frame_pieces(frames, ""):
            for ids in (self._tokenizer.encode_piece(piece), [VISUAL_SLOT] * self._visual_tokens):
                row.extend(ids, len(row.ids), 0, [0.0] * len(ids), [False] * len(ids))
        prefix = len(row.ids)
        for branch, turn in enumerate(turns, 1):
            self._append_turn(row, prefix, branch, turn)
        return row

    def _append_turn(self, row: _Sequence, prefix: int, branch: int, turn: Turn) -> None:
        question = self._tokenizer.encode_piece(question_piece(turn.question))
        answer = [*self._tokenizer.encode_answer(turn.answer), self._tokenizer.eos_id]
        offset = len(row.ids)
        row.pointers += [
            (offset + i, turn.target, 0, 2) for i, token in enumerate(question) if token == self._close_bracket
        ]
        boxes_answered = turn.task not in (REG, VIDEO_REG)
        if boxes_answered:
            kind = 1 if turn.task == SOT else 0
            places = [offset + len(question) + i for i, token in enumerate(answer) if token == self._open_bracket]
            row.pointers += [(place, turn.target, frame, kind) for frame, place in enumerate(places)]
        inside = _inside_brackets(answer, self._open_bracket, self._close_bracket)
        digits = [inside[i] and self._tokenizer.token_text(token) in _DIGITS for i, token in enumerate(answer)]
        weights = [1.0 if digit or not boxes_answered else _FORMAT_WEIGHT for digit in digits]
        row.extend(question, prefix, branch, [0.0] * len(question), [False] * len(question))
        row.extend(answer, prefix + len(question), branch, weights, digits)

    def _patches(
        self, clip: SyntheticClip
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Object, name, colour and box of every patch: (T, N) thrice, (T, N, 4)."""
        frames, side = clip.owner.shape[:2]
        patch = self._patch_px
        grid = side // patch
        cells = clip.owner.reshape(frames, grid, patch, grid, patch)
        counts = np.stack([(cells == n).sum(axis=(2, 4)) for n in range(len(clip.names))], axis=-1)
        counts = counts.reshape(frames, grid * grid, -1)
        covered = counts.max(axis=-1) >= _PATCH_SHARE * patch * patch
        owner = np.where(covered, counts.argmax(axis=-1), -1).astype(np.int64)
        name = np.where(covered, clip.name_index[owner], len(self._generator.vocabulary)).astype(np.int64)
        colors = np.where(clip.colors == NO_COLOR, len(COLORS), clip.colors)
        color = np.where(covered, colors[owner], len(COLORS)).astype(np.int64)
        boxes = clip.boxes.transpose(1, 0, 2)[np.arange(frames)[:, None], owner]
        return owner, name, color, np.where(covered[..., None], boxes, 0).astype(np.float32)


def _inside_brackets(tokens: Sequence[int], opener: int, closer: int) -> list[bool]:
    inside, flags = False, []
    for token in tokens:
        if token == closer:
            inside = False
        flags.append(inside)
        if token == opener:
            inside = True
    return flags


def _pad(rows: Sequence[Sequence[float]], length: int, value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=dtype)
