"""The stages of ``kind: real``, each a step function on one bundle of modules.

``read``: the language model learns to read boxes and names off made-up tokens, without pictures. ``select``: the
selectors of crops and of frames learn to find objects, and their tokens are drawn to those that the language model can
read. ``joint``: all of it together. A step sees pairs of crops and, where the model knows names, whole frames.
``find``: frames alone, and what only they run through; ``cells``: the same without the language model's answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.network.adapters import ConvTSelectorAdapter
from elysium_core.network.conv_layers import BatchNorm, cell_centers
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.target_selector import AnchorTokens, LiveTokens, TargetSelector
from elysium_core.network.token_selector import best_tokens, gather_tokens
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.losses import Losses, batch_mean
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.box_measures import ranking
from elysium_core.training.real.follow_losses import (
    AnswerLosses,
    distil_losses,
    distil_total,
    on_object,
    selector_losses,
    selector_total,
)
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.frame_features import FrameFeatures, FrameObjects
from elysium_core.training.real.frame_losses import cell_total
from elysium_core.training.real.frame_readings import FrameReadings
from elysium_core.training.real.frame_truth import assign_cells
from elysium_core.training.real.pair_answers import answer_measures, answer_pairs
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.training.real.readings import Readings, ReadingTokens
from elysium_core.training.real.real_model import crop_encoder
from elysium_core.training.real.real_recipe import RealStageConfig
from elysium_core.training.real.word_answers import answer_names, name_measures
from elysium_core.training.real.word_parts import SeenFrames, WordParts
from elysium_core.training.sample_answers import training_runtime

_READOUT_WEIGHT = 0.03


@dataclass(slots=True)
class StepBatch:
    """What one step sees.

    Attributes:
        pairs: Pairs of crops; None in stages that see whole frames alone.
        frames: Whole frames; None if the model knows no names.
    """

    pairs: Any
    frames: Any = None

    def to(self, device: torch.device) -> StepBatch:
        """Move every tensor to a device."""
        pairs, frames = (None if part is None else part.to(device) for part in (self.pairs, self.frames))
        return StepBatch(pairs, frames)


class RealTrainingModel(nn.Module):
    """A network and the training-only modules around it.

    Args:
        network: With a selector for crops.
        reading: Tells made-up readings as tokens.
        pointing: Make the language model look at what it speaks of.
        words: Of a model that knows names, else None.
        prompts: Writes prompts of pairs.
        tokenizer: Of the model.
        stage: What is trained.
        new_rows: (R,) int64, tokens whose rows in the language model are trained, too; None = of no token.
    """

    def __init__(
        self,
        network: ElysiumNetwork,
        reading: ReadingTokens,
        pointing: PointingHeads,
        words: WordParts | None,
        prompts: FollowPrompts,
        tokenizer: TextTokenizer,
        stage: RealStageConfig,
        new_rows: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.new_rows = new_rows
        self.network, self.reading, self.pointing, self.words = network, reading, pointing, words
        self.prompts, self.tokenizer, self.stage = prompts, tokenizer, stage
        self.answer_losses = AnswerLosses(prompts, pointing)

    def train(self, mode: bool = True) -> RealTrainingModel:
        """Enter training or evaluation mode; batch norms whose weights are not trained keep their statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BatchNorm) and not _is_trained(module):
                module.eval()
        return self

    def forward(self, batch: StepBatch) -> Losses:
        """Losses of one step; ``total`` is what is minimised. In evaluation mode there are more measures."""
        follow, find = STEPS[self.stage.kind]
        losses = {} if follow is None else follow(self, batch.pairs)
        totals = [losses["total"].value] if losses else []
        if self.words is not None:
            found = find(self, self.words, batch.frames)
            totals.append(self.stage.word_weight * found.pop("total").value)
            losses |= found
        return losses | {"total": batch_mean(torch.stack(totals).sum())}

    @property
    def selector(self) -> TargetSelector:
        """The selector for crops."""
        return self.network.crop_parts()[1]

    @property
    def encoder(self) -> EfficientNetEncoder:
        """The vision encoder."""
        return crop_encoder(self.network)

    @property
    def adapter(self) -> ConvTSelectorAdapter:
        """The selector for frames."""
        adapter = self.network.adapter
        if not isinstance(adapter, ConvTSelectorAdapter):
            raise TypeError(f"the adapter is a {type(adapter).__name__}")
        return adapter

    def look(self, batch: PairFeatures) -> tuple[AnchorTokens, LiveTokens, Tensor]:
        """What the selector makes of pairs; the last are the boxes (B, N, 4) that its cells read."""
        selector = self.selector
        anchors = selector.anchor(batch.anchor.float(), batch.anchor_box)
        live = selector.live(batch.live.float(), anchors)
        return anchors, live, selector.boxes(live.sides)

    def pair_answers(self, anchors: Tensor, live: Tensor, batch: PairFeatures | Readings) -> Losses:
        """Measures of what the model writes about pairs, of its tokens of anchor and live crops."""
        runtime = training_runtime(self.network, self.tokenizer)
        answers = answer_pairs(runtime, self.prompts, anchors, live, batch.anchor_box)
        return answer_measures(answers, batch.live_box, batch.is_present)

    def name_answers(self, words: WordParts, visual: Tensor, objects: FrameObjects) -> Losses:
        """Measures of what the model writes about frames, of their visual tokens."""
        runtime = training_runtime(self.network, self.tokenizer)
        return name_measures(answer_names(runtime, words.prompts.names, visual, objects), objects)


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def read_pairs(model: RealTrainingModel, batch: Readings) -> Losses:
    """Stage read: where does the box lie that these tokens tell of?"""
    selector = model.selector
    cells, kept = selector.config.live_cells, selector.config.live_tokens
    index = best_tokens(batch.gate, kept)
    exact = model.reading(batch.gate.gather(1, index), gather_tokens(batch.boxes, index), index)
    live, anchors = model.reading.noisy(exact), model.reading.anchors(exact)
    on = on_object(batch.live_box, batch.is_present, index, cells)
    losses = model.answer_losses(
        model.network.llm, torch.cat([anchors, live], 1), on, batch.anchor_box, batch.live_box, batch.is_present
    )
    losses |= {"total": batch_mean(_language_total(model, losses))}
    return losses if model.training else losses | model.pair_answers(anchors, live, batch)


def read_frames(model: RealTrainingModel, words: WordParts, batch: FrameReadings) -> Losses:
    """Stage read: which of these tokens tells of the name, and what box?"""
    visual, index = words.told_of_readings(model.reading, batch, model.adapter.out_token_num)
    truth = assign_cells(batch.objects, cell_centers(words.cells, visual.device))
    losses = words.answers(model.network.llm, visual, index, batch.objects, truth)
    losses |= {"total": losses.pop("word_total")}
    return losses if model.training else losses | model.name_answers(words, visual, batch.objects)


def select_pairs(model: RealTrainingModel, batch: PairFeatures) -> Losses:
    """Stage select: which cells show the object, and where are its sides?"""
    _, live, boxes = model.look(batch)
    losses = _selector_losses(model, live, boxes, batch)
    total = selector_total(losses)
    if model.stage.distil_weight:
        losses |= _distil_pairs(model, live, boxes, batch)
        total = total + model.stage.distil_weight * distil_total(losses)
    losses |= {"total": batch_mean(total)}
    return losses if model.training else losses | {"auroc_gate": ranking(live.gate.amax(1), batch.is_present)}


def select_frames(model: RealTrainingModel, words: WordParts, batch: FrameFeatures) -> Losses:
    """Stage select: which cells show an object, of what name, and where are its sides?"""
    seen = words.seen(model.encoder, model.adapter, batch)
    losses = words.cell_losses(seen)
    total = cell_total(losses)
    if model.stage.distil_weight:
        found, distilled = _distil_frames(model, words, seen)
        losses |= found
        total = total + model.stage.distil_weight * distilled
    return losses | {"total": batch_mean(total)}


def cell_frames(model: RealTrainingModel, words: WordParts, batch: FrameFeatures) -> Losses:
    """Stage cells: likewise; and each token on an object is drawn to the word for it."""
    seen = words.seen(model.encoder, model.adapter, batch)
    losses = words.cell_losses(seen)
    found, readout = words.readout(model.network.llm, model.network.llm_proj(seen.kept), seen)
    return losses | found | {"total": batch_mean(cell_total(losses) + model.stage.readout_weight * readout)}


def joint_pairs(model: RealTrainingModel, batch: PairFeatures) -> Losses:
    """Stage joint: the box as text, from pixels."""
    anchors, live, boxes = model.look(batch)
    losses = _selector_losses(model, live, boxes, batch)
    cells = model.selector.config.live_cells
    told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
    on = on_object(batch.live_box, batch.is_present, live.index, cells)
    losses |= model.answer_losses(
        model.network.llm, torch.cat([told, seen], 1), on, batch.anchor_box, batch.live_box, batch.is_present
    )
    total = selector_total(losses) + _language_total(model, losses)
    if model.stage.distil_weight:
        losses |= _distil_pairs(model, live, boxes, batch)
        total = total + model.stage.distil_weight * distil_total(losses)
    losses |= {"total": batch_mean(total)}
    if model.training:
        return losses
    return losses | model.pair_answers(told, seen, batch) | {"auroc_gate": ranking(live.gate.amax(1), batch.is_present)}


def joint_frames(model: RealTrainingModel, words: WordParts, batch: FrameFeatures) -> Losses:
    """Stage joint: names and boxes as text, from pixels."""
    seen = words.seen(model.encoder, model.adapter, batch)
    losses = words.cell_losses(seen)
    objects = batch.objects
    if model.training and model.stage.answer_frames:
        asked = torch.arange(min(model.stage.answer_frames, len(seen.gate)), device=seen.gate.device)
        seen, objects = seen.rows(asked), objects.rows(asked)
    visual = model.network.llm_proj(seen.kept)
    losses |= words.answers(model.network.llm, visual, seen.index, objects, seen.truth)
    total = cell_total(losses) + losses.pop("word_total").value
    if model.stage.distil_weight:
        found, distilled = _distil_frames(model, words, seen)
        losses |= found
        total = total + model.stage.distil_weight * distilled
    losses |= {"total": batch_mean(total)}
    return losses if model.training else losses | model.name_answers(words, visual, batch.objects)


def _selector_losses(model: RealTrainingModel, live: LiveTokens, boxes: Tensor, batch: PairFeatures) -> Losses:
    return selector_losses(live.gate, boxes, batch.live_box, batch.is_present, model.selector.config.live_cells)


def _distil_pairs(model: RealTrainingModel, live: LiveTokens, boxes: Tensor, batch: PairFeatures) -> Losses:
    """The selector's tokens against those that tell its own readings; on the object they are to tell the truth."""
    on = on_object(batch.live_box, batch.is_present, live.index, model.selector.config.live_cells)
    with torch.no_grad():
        read = torch.where(on[..., None], batch.live_box[:, None], gather_tokens(boxes, live.index))
        wanted = model.reading(live.gate.gather(1, live.index), read, live.index)
    return distil_losses(model.network.llm_proj(live.tokens), wanted, on, batch.is_present)


def _distil_frames(model: RealTrainingModel, words: WordParts, seen: SeenFrames) -> tuple[Losses, Tensor]:
    """Likewise for frames; and each token on an object is drawn to the word for it."""
    wanted, on = words.wanted(model.reading, seen)
    visual = model.network.llm_proj(seen.kept)
    losses = distil_losses(visual, wanted, on, torch.ones(len(on), dtype=torch.bool, device=on.device))
    total = distil_total(losses)
    found, readout = words.readout(model.network.llm, visual, seen)
    named = {"frame_" + name: loss for name, loss in losses.items()}
    return named | found, total + _READOUT_WEIGHT * readout


def _language_total(model: RealTrainingModel, losses: Losses) -> Tensor:
    return losses["answer"].value + model.stage.pointing_weight * losses["pointing"].value


STEPS: dict[str, tuple[Callable[..., Losses] | None, Callable[..., Losses]]] = {
    "read": (read_pairs, read_frames),
    "select": (select_pairs, select_frames),
    "joint": (joint_pairs, joint_frames),
    "cells": (None, cell_frames),
    "find": (None, joint_frames),
}
"""For each kind of stage the losses of pairs, if it has any, and those of frames."""


def best_boxes(live: LiveTokens, boxes: Tensor) -> Tensor:
    """Boxes (B, 4) of the cells with the highest gate logits, of those that all cells read (B, N, 4)."""
    return boxes[torch.arange(len(boxes), device=boxes.device), live.gate.argmax(-1)]
