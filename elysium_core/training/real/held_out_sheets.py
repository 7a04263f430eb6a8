"""Sheets of held-out pairs and frames with what a model says about them.

A sheet is RGB uint8 (H, W, 3).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.training.real.feature_pool import Features
from elysium_core.training.real.frame_features import FrameFeatures
from elysium_core.training.real.pair_answers import answer_pairs, answer_sheet
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.training.real.real_recipe import WHOLE_KINDS
from elysium_core.training.real.real_stages import RealTrainingModel, StepBatch, best_boxes
from elysium_core.training.real.word_answers import answer_names, name_sheet
from elysium_core.training.real.word_parts import WordParts
from elysium_core.training.sample_answers import training_runtime

_PICTURED = 24
# In sheets, answers with a lower score are grey.
_SURE_FROM = 0.3

_F = TypeVar("_F", bound=Features)


def held_out_sheets(model: RealTrainingModel, batch: StepBatch) -> dict[str, NDArray[np.uint8]]:
    """Sheets of the first held-out pairs and frames: of the written answers only where the language model sees them.

    Args:
        model: In evaluation mode, of a stage that has pictures.
        batch: Pairs and frames with their pixels.
    """
    sheets = {"pairs": _pair_sheet(model, _first(batch.pairs))}
    if model.words is not None and model.stage.kind in WHOLE_KINDS:
        sheets["frames"] = _frame_sheet(model, model.words, _first(batch.frames))
    return sheets


def _first(batch: _F) -> _F:
    count = len(next(iter(batch.tensors().values())))
    return batch.rows(torch.arange(min(_PICTURED, count)))


def _pair_sheet(model: RealTrainingModel, shown: PairFeatures) -> NDArray[np.uint8]:
    anchors, live, boxes = model.look(shown)
    answers = None
    if model.stage.kind in WHOLE_KINDS:
        told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
        runtime = training_runtime(model.network, model.tokenizer)
        answers = answer_pairs(runtime, model.prompts, told, seen, shown.anchor_box)
    return answer_sheet(shown, best_boxes(live, boxes), answers)


def _frame_sheet(model: RealTrainingModel, words: WordParts, shown: FrameFeatures) -> NDArray[np.uint8]:
    names = words.prompts.names
    visual = model.network.llm_proj(words.seen(model.encoder, model.adapter, shown).kept)
    answers = answer_names(training_runtime(model.network, model.tokenizer), names, visual, shown.objects)
    if shown.pixels is None:
        raise TypeError("held-out frames have no pixels")
    return name_sheet(shown.pixels, shown.objects, answers, names, _SURE_FROM)
