"""What a stage of ``kind: real`` trains, by the names of weights, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.training.real.real_recipe import RealStageConfig

if TYPE_CHECKING:
    from elysium_core.training.real.real_stages import RealTrainingModel

_ENCODER = tuple(f"network.visual_encoder.{block}" for block in EfficientNetEncoder.FRAME_BLOCKS)
_FRAME_SELECTOR = ("network.adapter.", "words.heads.")
_SELECTORS = ("network.target_selector.", *_FRAME_SELECTOR)
_PROJECTOR, _LANGUAGE = "network.llm_proj.", "network.llm."
_WORD_HEADS = "words.word_heads."
_READING, _POINTING = ("reading.", "words.naming."), ("pointing.", _WORD_HEADS)
TRAINED: dict[str, tuple[str, ...]] = {
    "read": (_LANGUAGE, *_READING, *_POINTING),
    "select": (*_ENCODER, *_SELECTORS, _PROJECTOR),
    "joint": (*_ENCODER, *_SELECTORS, _PROJECTOR, _LANGUAGE, *_POINTING),
    "cells": (*_ENCODER, *_FRAME_SELECTOR),
    "find": (*_ENCODER, *_FRAME_SELECTOR, _WORD_HEADS),
}
"""What a stage of each kind can train, as beginnings of the names of weights.

Of the encoder, these are the blocks that only frames run through. The others are never trained: frames and crops share
their features, which are computed once.
"""


def parameter_groups(model: RealTrainingModel, stage: RealStageConfig) -> list[dict[str, Any]]:
    """Freeze what a stage does not train and group the rest by learning rate.

    Args:
        model: The model; ``requires_grad`` of its parameters is set.
        stage: The stage.

    Returns:
        Groups for :class:`elysium_core.training.optimizer.ScheduledAdamW`.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = _rate(name, stage)
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault(rate, []).append(parameter)
    found: list[dict[str, Any]] = [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
    if model.new_rows is not None:
        # AdamW leaves rows without gradient as they are, if their weights do not decay.
        found.append({"params": [_only_rows(model, model.new_rows)], "lr": stage.lr, "weight_decay": 0.0})
    return found


def _only_rows(model: RealTrainingModel, rows: Tensor) -> nn.Parameter:
    """The language model's embedding, of which only some rows get a gradient."""
    embedding = model.network.llm.model.embed_tokens.weight
    if not isinstance(embedding, nn.Parameter):
        raise TypeError(f"the embedding is a {type(embedding).__name__}")
    keep = torch.zeros(len(embedding), 1, device=embedding.device)
    keep[rows] = 1
    embedding.requires_grad_(True)

    def only_these(gradient: Tensor) -> Tensor:
        return gradient * keep

    embedding.register_hook(only_these)  # type: ignore[no-untyped-call]
    return embedding


def _rate(name: str, stage: RealStageConfig) -> float:
    if not name.startswith(TRAINED[stage.kind]):
        return 0.0
    if name.startswith(_ENCODER):
        return stage.encoder_lr
    return stage.selector_lr if name.startswith(_SELECTORS) else stage.lr
