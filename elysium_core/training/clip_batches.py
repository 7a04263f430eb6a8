"""The batches of a stage by step: what a step sees depends on seed, stage and step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from elysium_core.data.synthetic.assets import load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.batches import Batch, BatchBuilder
from elysium_core.training.config import Recipe


class ClipBatches(Dataset[Batch]):
    """Generated batches; ``batches[step]`` is always the same one.

    So a stage that was killed goes on with the clips it would have seen, whichever worker
    process draws them.

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
        # Built by the process that uses it: photos and sprites are not copied between processes.
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
        tokenizer = TextTokenizer.from_folder(self._tokenizer_folder)
        return BatchBuilder(generator, recipe.data, tokenizer, recipe.model.visual_tokens, recipe.model.patch_px)


def step_seed(recipe: Recipe, stage_name: str, step: int) -> int:
    """The seed of everything random in one step of one stage, 0..2**63 - 1."""
    number = list(recipe.stages).index(stage_name)
    sequence = np.random.SeedSequence([recipe.data.seed, number, step])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
