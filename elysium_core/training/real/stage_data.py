"""What a stage of ``kind: real`` trains on, and what it is measured on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.data.photos.cutout_cache import CutoutCache
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.frame_views import FrameViews
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.errors import DataError
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.encoders import build_vision_encoder
from elysium_core.training.pretrained_encoder import load_encoder
from elysium_core.training.real.feature_pool import BLOCK, FeatureBatches, Features, FreshFeatures, PooledFeatures
from elysium_core.training.real.frame_features import EncodedFrames, FrameFeatures
from elysium_core.training.real.frame_readings import FrameReadingSource
from elysium_core.training.real.pair_features import EncodedPairs, PairFeatures
from elysium_core.training.real.readings import ReadingBatches
from elysium_core.training.real.real_model import vision_settings
from elysium_core.training.real.real_recipe import FRAME_KINDS, FRAMES_FOLDER, PAIRS_FOLDER, RealRecipe
from elysium_core.training.real.real_stages import StepBatch
from elysium_core.training.seeds import batch_seed

# Number of a batch that no training reaches.
_HELD_OUT = 1 << 40
# Settings of the data that do not change what is drawn.
_NOT_DRAWN = frozenset({"pool", "frame_pool", "held_out", "held_out_frames"})


@dataclass(frozen=True)
class StepBatches(Dataset[Any]):
    """Batches of a stage by number.

    Attributes:
        pairs: Batches of pairs; None in stages that see whole frames alone.
        frames: Batches of whole frames; None if the model knows no names.
    """

    pairs: Dataset[Any] | None
    frames: Dataset[Any] | None

    def __getitem__(self, number: int) -> StepBatch:
        pairs, frames = (None if part is None else part[number] for part in (self.pairs, self.frames))
        return StepBatch(pairs, frames)


class StageData:
    """The data of one stage. Photos are opened when they are first needed.

    Args:
        recipe: The recipe.
        name: The stage.
        run_folder: Of the whole run; stages with the same photos, encoder and seed share their pools there.
    """

    def __init__(self, recipe: RealRecipe, name: str, run_folder: Path) -> None:
        self._recipe, self._stage, self._run_folder = recipe, recipe.stages[name], run_folder
        self._number = list(recipe.stages).index(name)
        self._seed = batch_seed(recipe.data.seed, self._number)

    @property
    def photo_counts(self) -> NDArray[np.int64]:
        """(V,) number of photos, of those trained on, that show each known name.

        Raises:
            DataError: A name is in no photo.
        """
        return self._training_views.counts

    def batches(self) -> StepBatches:
        """Readings, or pairs and whole photos that are trained on.

        Raises:
            DataError: There are no photos, or a known name is in none of them.
        """
        stage, model, data = self._stage, self._recipe.model, self._recipe.data
        frames: Dataset[Any] | None = None
        if stage.kind == "read":
            if model.words:
                frames = FreshFeatures(self._frame_readings, stage.frame_batch, self._seed)
            return StepBatches(ReadingBatches(model.crop.live_cells, stage.batch, self._seed), frames)
        if model.words:
            views = EncodedFrames(self._training_views, self._encoder)
            frames = self._drawn(views, FrameFeatures, FRAMES_FOLDER, data.frame_pool, "frame_batch")
        if stage.kind in FRAME_KINDS:
            return StepBatches(None, frames)
        pairs = EncodedPairs(self._generator(held_out=False), self._encoder)
        return StepBatches(self._drawn(pairs, PairFeatures, PAIRS_FOLDER, data.pool, "batch"), frames)

    def held_out(self) -> StepBatch:
        """Pairs and frames of held-out photos, the same in every stage; of kind read, readings never trained on.

        Raises:
            DataError: No photo is held out, or none of these shows a known name.
        """
        data, model = self._recipe.data, self._recipe.model
        frames: Features | None = None
        if self._stage.kind == "read":
            if model.words:
                frames = self._frame_readings.features(data.seed, _HELD_OUT, data.held_out_frames)
            return StepBatch(ReadingBatches(model.crop.live_cells, data.held_out, data.seed)[_HELD_OUT], frames)
        pairs = EncodedPairs(self._generator(held_out=True), self._encoder)
        if model.words:
            views = FrameViews(self._photos.part(held_out=True), model.words, model.frame_px)
            frames = EncodedFrames(views, self._encoder).photos(data.held_out_frames)
        return StepBatch(pairs.features(data.seed, 0, data.held_out, keep_pixels=True), frames)

    def _drawn(
        self, source: FeatureBatches[Any], kind: type[Features], folder: str, pool: int, batch_key: str
    ) -> Dataset[Any]:
        """Batches of a pool, or drawn anew if there is to be none."""
        batch = getattr(self._stage, batch_key)
        if not pool:
            return FreshFeatures(source, batch, self._seed)
        before = [stage for stage in list(self._recipe.stages.values())[: self._number] if stage.kind != "read"]
        return PooledFeatures(
            source,
            kind,
            self._run_folder / folder / self._pool_name(folder),
            blocks=max(1, pool // BLOCK),
            pool_seed=self._recipe.data.seed,
            batch=batch,
            seed=self._seed,
            first=sum(stage.steps * getattr(stage, batch_key) for stage in before) // BLOCK,
        )

    def _pool_name(self, folder: str) -> str:
        """Other data or another encoder have another folder."""
        model = self._recipe.model
        settings = self._recipe.data.model_dump(mode="json", exclude=set(_NOT_DRAWN))
        names = ("contrast", "live_px", "anchor_px") if folder == PAIRS_FOLDER else ("contrast", "frame_px", "words")
        settings |= {key: getattr(model, key) for key in names}
        settings["encoder"] = hash_file(Path(model.encoder_weights))
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def _frame_readings(self) -> FrameReadingSource:
        model = self._recipe.model
        return FrameReadingSource(vision_settings(model).grid, len(model.words))

    @cached_property
    def _encoder(self) -> EfficientNetEncoder:
        # A copy of its own on the CPU: worker processes must not hold the model that is trained.
        encoder = build_vision_encoder(vision_settings(self._recipe.model))
        if not isinstance(encoder, EfficientNetEncoder):
            raise TypeError(f"the vision encoder is a {type(encoder).__name__}")
        load_encoder(encoder, Path(self._recipe.model.encoder_weights))
        return encoder.eval().requires_grad_(requires_grad=False)

    @cached_property
    def _photos(self) -> PhotoSet:
        data = self._recipe.data
        teachers = [Path(path) if path else None for path in data.teachers]
        return PhotoSet.open([Path(path) for path in data.photos], teachers)

    def _generator(self, *, held_out: bool) -> PairGenerator:
        data = self._recipe.data
        library = CutoutLibrary(CutoutCache(Path(data.cutouts)) if data.cutouts else None).part(held_out=held_out)
        return PairGenerator(self._photos.part(held_out=held_out), library, data.pair_settings(self._recipe.model))

    @cached_property
    def _training_views(self) -> FrameViews:
        model = self._recipe.model
        views = FrameViews(self._photos.part(held_out=False), model.words, model.frame_px)
        if unseen := [word for word, count in zip(model.words, views.counts, strict=True) if not count]:
            raise DataError(
                f"model.words: no photo of data.photos has an annotated {', '.join(unseen)}; spell the names as the "
                "annotations do, or leave them out"
            )
        return views
