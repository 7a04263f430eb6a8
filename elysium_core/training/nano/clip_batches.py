"""Training batches of generated clips, questions about them, and the ground truth of every patch.

All questions about a clip follow its frames in one row of tokens (:mod:`elysium_core.prompt.layout`). A batch
depends only on the recipe's seed, the stage and the step.

Shapes: B clips, T frames each, N patches per frame, K visual tokens per frame, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from elysium_core.data.synthetic.assets import load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.prompt.layout import AnswerWeights, PromptLayout, TokenRow, row_tensors
from elysium_core.prompt.questions import REG, SOT, VIDEO_REG
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.nano.nano_recipe import Recipe, SyntheticDataConfig
from elysium_core.training.nano.turns import Turn, draw_turns
from elysium_core.training.seeds import batch_seed

_WEIGHTS = AnswerWeights(digit=1.0, form=0.1, text=1.0)
# A patch belongs to an object that covers at least this share of it.
_PATCH_SHARE = 0.15


@dataclass(slots=True)
class Batch:
    """The batch of one optimiser step.

    Attributes:
        images: (B * T, S, S, 3) uint8.
        patch_object: (B * T, N) object covering each patch, -1 for background.
        patch_name: (B * T, N) index of the object's name, the vocabulary's size for background.
        patch_color: (B * T, N) index of its colour word, ``len(COLORS)`` for none and for background.
        patch_box: (B * T, N, 4) its box in that frame, zeros for background.
        token_ids: (B, L); VISUAL_SLOT at the places of visual tokens.
        positions: (B, L).
        branch: (B, L); 0 the frames, 1.. the questions, -1 padding.
        label_weight: (B, L); weight of each token as a label, 0 = not an answer token.
        is_digit: (B, L); digits of answered boxes.
        pointers: (P, 5) rows of clip, token position, object, frame, kind: the object that
            the token must attend to. Kind 0: a box in an answer to words; 1: a box in an
            answer to a box; 2: the end of a box in a question.
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


_Pointer = tuple[int, int, int, int]
"""Token position, object, frame and kind; see :attr:`Batch.pointers`."""


class BatchBuilder:
    """Generates clips and lays them out as batches, within one process.

    Args:
        generator: Source of clips.
        data: Settings of the clips.
        layout: Prompt layout of the model.
        visual_tokens: K.
        patch_px: Patch side [px].
    """

    def __init__(
        self,
        generator: ClipGenerator,
        data: SyntheticDataConfig,
        layout: PromptLayout,
        visual_tokens: int,
        patch_px: int,
    ) -> None:
        self._generator, self._data, self._layout = generator, data, layout
        self._visual_tokens, self._patch_px = visual_tokens, patch_px
        self._open_bracket = layout.tokenizer.encode_answer("[")[0]
        self._close_bracket = layout.tokenizer.encode_answer("[1]")[-1]

    def draw(self, seed: int, batch_frames: int, frames: int = 0, objects: Sequence[int] = ()) -> Batch:
        """Draw one batch; the same seed gives the same batch.

        Args:
            seed: Seed of clips and questions.
            batch_frames: Frames of the batch, B * T.
            frames: T; 0 draws it from the data's mixture.
            objects: Numbers of objects per clip, equally frequent; empty draws from the data's mixture.
        """
        data = self._data
        self._generator.reseed(seed, 0)
        rng = np.random.default_rng([seed, 1])
        count = frames or int(rng.choice(data.frames, p=data.frame_weights))
        gap = data.gaps[data.frames.index(count)]
        clips: list[SyntheticClip] = []
        turns: list[list[Turn]] = []
        while len(clips) < max(1, batch_frames // count):
            shown = int(rng.choice(objects) if objects else rng.choice(data.objects, p=data.object_weights))
            clip = self._generator.draw_with_target(count, shown, gap)
            clips.append(clip)
            turns.append(draw_turns(rng, clip, data, self._generator))
        return self.build(clips, turns)

    def build(self, clips: Sequence[SyntheticClip], turns: Sequence[Sequence[Turn]]) -> Batch:
        """Lay out clips of one length with their turns."""
        frames = len(clips[0].images)
        rows, pointed = zip(*(self._row(frames, asked) for asked in turns), strict=True)
        patches = [self._patches(clip) for clip in clips]
        pointers = [(clip, *pointer) for clip, own in enumerate(pointed) for pointer in own]
        return Batch(
            images=torch.from_numpy(np.concatenate([clip.images for clip in clips])),
            patch_object=torch.from_numpy(np.concatenate([p[0] for p in patches])),
            patch_name=torch.from_numpy(np.concatenate([p[1] for p in patches])),
            patch_color=torch.from_numpy(np.concatenate([p[2] for p in patches])),
            patch_box=torch.from_numpy(np.concatenate([p[3] for p in patches])),
            **row_tensors(rows),
            pointers=torch.tensor(pointers, dtype=torch.int64).reshape(-1, 5),
            frames=frames,
        )

    def _row(self, frames: int, turns: Sequence[Turn]) -> tuple[TokenRow, list[_Pointer]]:
        """Return the tokens of one clip with its turns, and their pointers."""
        row = self._layout.frames_row(frames, self._visual_tokens)
        pointers = [pointer for branch, turn in enumerate(turns, 1) for pointer in self._append_turn(row, branch, turn)]
        return row, pointers

    def _append_turn(self, row: TokenRow, branch: int, turn: Turn) -> Iterator[_Pointer]:
        boxes = turn.task not in (REG, VIDEO_REG)
        (place,) = self._layout.append_dialogue(row, branch, [(turn.question, turn.answer)], _WEIGHTS, boxes=boxes)
        for at in range(place.question, place.answer):
            if row.ids[at] == self._close_bracket:
                yield at, turn.target, 0, 2
        if boxes:
            opened = [at for at in range(place.answer, place.end) if row.ids[at] == self._open_bracket]
            kind = 1 if turn.task == SOT else 0
            for frame, at in enumerate(opened):
                yield at, turn.target, frame, kind

    def _patches(
        self, clip: SyntheticClip
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return object, name and colour, (T, N) each, and box, (T, N, 4), of every patch."""
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


class ClipBatches(Dataset[Batch]):
    """Generated batches; ``batches[step]`` is always the same one.

    A stage that was killed therefore continues with the same clips, in any worker process.

    Args:
        recipe: The recipe.
        stage_name: One of its stages.
        tokenizer_folder: The run's tokenizer.
    """

    def __init__(self, recipe: Recipe, stage_name: str, tokenizer_folder: Path) -> None:
        self._recipe, self._stage_name = recipe, stage_name
        self._tokenizer_folder = tokenizer_folder
        self._builder: BatchBuilder | None = None

    def __getitem__(self, step: int) -> Batch:
        # Built in the process that uses it, so that photos and sprites are not copied between processes.
        self._builder = self._builder or self._make_builder()
        stage = self._recipe.stages[self._stage_name]
        seed = step_seed(self._recipe, self._stage_name, step)
        return self._builder.draw(seed, stage.batch_frames, stage.frames, stage.objects)

    def _make_builder(self) -> BatchBuilder:
        recipe = self._recipe
        data = recipe.data
        scene = SceneConfig(
            side_px=recipe.model.side_px,
            vanish_share=data.vanish_share,
            twin_share=data.twin_share,
            dye_share=data.dye_share,
        )
        photos = load_backgrounds("train", [Path(folder) for folder in recipe.data.photo_folders])
        generator = ClipGenerator(trainable_names()[: recipe.data.names], photos, recipe.data.seed, scene)
        layout = PromptLayout(TextTokenizer.from_folder(self._tokenizer_folder), recipe.model.system_text)
        return BatchBuilder(generator, recipe.data, layout, recipe.model.visual_tokens, recipe.model.patch_px)


def step_seed(recipe: Recipe, stage_name: str, step: int) -> int:
    """Return the seed of all random numbers in one step of one stage, 0..2**63 - 1."""
    return batch_seed(recipe.data.seed, list(recipe.stages).index(stage_name), step)
