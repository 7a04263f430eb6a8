"""The three stages of ``kind: real``, each a step function on one bundle of modules.

``read``: the language model learns to read boxes off made-up tokens, without pictures. ``select``: the selector learns
to find the object, and its tokens are drawn to those that the language model can read. ``joint``: all of it together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.target_selector import AnchorTokens, LiveTokens, TargetSelector
from elysium_core.network.token_selector import best_tokens, gather_tokens
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.losses import Losses, batch_mean
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.box_measures import ranking
from elysium_core.training.real.crop_depths import deep_blocks, deep_features
from elysium_core.training.real.follow_losses import (
    AnswerLosses,
    distil_losses,
    distil_total,
    on_object,
    selector_losses,
    selector_total,
)
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.pair_answers import answer_measures, answer_pairs
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.training.real.readings import Readings, ReadingTokens
from elysium_core.training.real.real_recipe import RealStageConfig
from elysium_core.training.sample_answers import training_runtime


class RealTrainingModel(nn.Module):
    """A network and the training-only modules around it.

    Args:
        network: With a selector for crops.
        reading: Tells made-up readings as tokens.
        pointing: Make the language model look at what it speaks of.
        prompts: Writes prompts for it.
        tokenizer: Of the model.
        stage: What is trained.
    """

    def __init__(
        self,
        network: ElysiumNetwork,
        reading: ReadingTokens,
        pointing: PointingHeads,
        prompts: FollowPrompts,
        tokenizer: TextTokenizer,
        stage: RealStageConfig,
    ) -> None:
        super().__init__()
        self.network, self.reading, self.pointing = network, reading, pointing
        self.prompts, self.tokenizer, self.stage = prompts, tokenizer, stage
        self.answer_losses = AnswerLosses(prompts, pointing)

    def forward(self, batch: Any) -> Losses:
        """Losses of one step; ``total`` is what is minimised. In evaluation mode there are more measures."""
        return STEPS[self.stage.kind](self, batch)

    @property
    def parts(self) -> tuple[EfficientNetEncoder, TargetSelector]:
        """Vision encoder and selector for crops."""
        encoder, selector = self.network.crop_parts()
        if not isinstance(encoder, EfficientNetEncoder):
            raise TypeError(f"the vision encoder is a {type(encoder).__name__}")
        return encoder, selector

    def look(self, batch: PairFeatures) -> tuple[AnchorTokens, LiveTokens, Tensor]:
        """What the selector makes of pairs; the last are the boxes (B, N, 4) that its cells read."""
        encoder, selector = self.parts
        anchors = selector.anchor(deep_features(encoder, batch.anchor.float()), batch.anchor_box)
        live = selector.live(deep_features(encoder, batch.live.float()), anchors)
        return anchors, live, selector.boxes(live.sides)

    def answers(self, anchors: Tensor, live: Tensor, batch: PairFeatures | Readings) -> Losses:
        """Measures of what the model writes about pairs, of its tokens of anchor and live crops."""
        runtime = training_runtime(self.network, self.tokenizer)
        answers = answer_pairs(runtime, self.prompts, anchors, live, batch.anchor_box)
        return answer_measures(answers, batch.live_box, batch.is_present)


def read_step(model: RealTrainingModel, batch: Readings) -> Losses:
    """Stage read: where does the box lie that these tokens tell of?"""
    _, selector = model.parts
    cells, kept = selector.config.live_cells, selector.config.live_tokens
    index = best_tokens(batch.gate, kept)
    exact = model.reading(batch.gate.gather(1, index), gather_tokens(batch.boxes, index), index)
    live, anchors = model.reading.noisy(exact), model.reading.anchors(exact)
    on = on_object(batch.live_box, batch.is_present, index, cells)
    losses = model.answer_losses(
        model.network.llm, torch.cat([anchors, live], 1), on, batch.anchor_box, batch.live_box, batch.is_present
    )
    losses |= {"total": batch_mean(_language_total(model, losses))}
    return losses if model.training else losses | model.answers(anchors, live, batch)


def select_step(model: RealTrainingModel, batch: PairFeatures) -> Losses:
    """Stage select: which cells show the object, and where are its sides?"""
    _, live, boxes = model.look(batch)
    losses = _selector_losses(model, live, boxes, batch)
    total = selector_total(losses)
    if model.stage.distil_weight:
        losses |= _distil_losses(model, live, boxes, batch)
        total = total + model.stage.distil_weight * distil_total(losses)
    losses |= {"total": batch_mean(total)}
    return losses if model.training else losses | {"auroc_gate": ranking(live.gate.amax(1), batch.is_present)}


def joint_step(model: RealTrainingModel, batch: PairFeatures) -> Losses:
    """Stage joint: the box as text, from pixels."""
    anchors, live, boxes = model.look(batch)
    losses = _selector_losses(model, live, boxes, batch)
    cells = model.parts[1].config.live_cells
    told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
    on = on_object(batch.live_box, batch.is_present, live.index, cells)
    losses |= model.answer_losses(
        model.network.llm, torch.cat([told, seen], 1), on, batch.anchor_box, batch.live_box, batch.is_present
    )
    total = selector_total(losses) + _language_total(model, losses)
    if model.stage.distil_weight:
        losses |= _distil_losses(model, live, boxes, batch)
        total = total + model.stage.distil_weight * distil_total(losses)
    losses |= {"total": batch_mean(total)}
    if model.training:
        return losses
    return losses | model.answers(told, seen, batch) | {"auroc_gate": ranking(live.gate.amax(1), batch.is_present)}


def _selector_losses(model: RealTrainingModel, live: LiveTokens, boxes: Tensor, batch: PairFeatures) -> Losses:
    return selector_losses(live.gate, boxes, batch.live_box, batch.is_present, model.parts[1].config.live_cells)


def _distil_losses(model: RealTrainingModel, live: LiveTokens, boxes: Tensor, batch: PairFeatures) -> Losses:
    """The selector's tokens against those that tell its own readings; on the object they are to tell the truth."""
    on = on_object(batch.live_box, batch.is_present, live.index, model.parts[1].config.live_cells)
    with torch.no_grad():
        read = torch.where(on[..., None], batch.live_box[:, None], gather_tokens(boxes, live.index))
        wanted = model.reading(live.gate.gather(1, live.index), read, live.index)
    return distil_losses(model.network.llm_proj(live.tokens), wanted, on, batch.is_present)


def _language_total(model: RealTrainingModel, losses: Losses) -> Tensor:
    return losses["answer"].value + model.stage.pointing_weight * losses["pointing"].value


STEPS: dict[str, Callable[[RealTrainingModel, Any], Losses]] = {
    "read": read_step,
    "select": select_step,
    "joint": joint_step,
}

_SELECTOR, _PROJECTOR, _ENCODER = "network.target_selector.", "network.llm_proj.", "network.visual_encoder."
_LANGUAGE, _READING, _POINTING = "network.llm.", "reading.", "pointing."
TRAINED: dict[str, tuple[str, ...]] = {
    "read": (_LANGUAGE, _READING, _POINTING),
    "select": (_SELECTOR, _PROJECTOR, _ENCODER),
    "joint": (_SELECTOR, _PROJECTOR, _ENCODER, _LANGUAGE, _POINTING),
}
"""What a stage of each kind trains, as beginnings of the names of weights; of the encoder its later blocks at most."""


def parameter_groups(model: RealTrainingModel, stage: RealStageConfig) -> list[dict[str, Any]]:
    """Freeze what a stage does not train and group the rest by learning rate.

    Args:
        model: The model; ``requires_grad`` of its parameters is set.
        stage: The stage.

    Returns:
        Groups for :class:`elysium_core.training.optimizer.ScheduledAdamW`.
    """
    deep = {id(parameter) for parameter in deep_blocks(model.parts[0]).parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = _rate(name, stage)
        if name.startswith(_ENCODER) and id(parameter) not in deep:
            rate = 0.0
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _rate(name: str, stage: RealStageConfig) -> float:
    if not name.startswith(TRAINED[stage.kind]):
        return 0.0
    if name.startswith(_ENCODER):
        return stage.encoder_lr
    return stage.selector_lr if name.startswith(_SELECTOR) else stage.lr


def best_boxes(live: LiveTokens, boxes: Tensor) -> Tensor:
    """Boxes (B, 4) of the cells with the highest gate logits, of those that all cells read (B, N, 4)."""
    return boxes[torch.arange(len(boxes), device=boxes.device), live.gate.argmax(-1)]
