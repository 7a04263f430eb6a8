"""The network as fine-tuning runs it: one forward pass from a batch to its losses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.image_transform import ImageTransform
from elysium_core.training.finetune.batches import FineTuneBatch
from elysium_core.training.finetune.config import MODULES, FineTuneStage
from elysium_core.training.losses import branch_mask, place_visual_tokens


class FineTuneModel(nn.Module):
    """A network whose forward pass gives losses.

    Args:
        network: The network.
    """

    def __init__(self, network: ElysiumNetwork) -> None:
        super().__init__()
        self.network = network
        self._transform = ImageTransform(network.visual_encoder.side_px)

    def forward(self, batch: FineTuneBatch) -> dict[str, Tensor]:
        """Losses of a batch.

        Returns:
            ``total``, the weighted mean cross-entropy of answer tokens, and the measures
            ``digit_loss``, ``digit_accuracy`` and ``text_loss``.
        """
        network, llm = self.network, self.network.llm
        visual = self._visual_tokens(batch.images)
        embedded = place_visual_tokens(llm, batch.token_ids, visual)
        # Without a second branch plain causal attention sees the same, and is faster; padding comes last.
        mask = branch_mask(batch.branch) if bool((batch.branch > 1).any()) else None
        hidden, _ = network.llm(embedded, batch.positions, mask)
        labelled = batch.label_weight[:, 1:] > 0
        logits = llm.logits(hidden[:, :-1][labelled])
        labels = batch.token_ids[:, 1:][labelled]
        weights = batch.label_weight[:, 1:][labelled].float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        digit = batch.is_digit[:, 1:][labelled]
        hits = (logits.argmax(-1) == labels) & digit
        digits = digit.sum().clamp(min=1)
        return {
            "total": (losses * weights).sum() / weights.sum().clamp(min=1e-6),
            "digit_loss": (losses.detach() * digit).sum() / digits,
            "digit_accuracy": hits.sum() / digits,
            "text_loss": (losses.detach() * ~digit).sum() / (~digit).sum().clamp(min=1),
        }

    def _visual_tokens(self, images: Tensor) -> Tensor:
        # A batch of text alone runs one black frame, and uses none of it: with shards, every process has to call
        # every module.
        shown = images if len(images) else images.new_zeros(1, *images.shape[1:])
        visual = self.network.encode_frames(self._transform.normalize(shown))
        return visual if len(images) else visual * 0


def choose_trained(model: FineTuneModel, stage: FineTuneStage) -> list[dict[str, Any]]:
    """Freeze what a stage does not train, and group the rest by learning rate.

    Returns:
        Groups for :class:`elysium_core.training.optimizer.ScheduledAdamW`.
    """
    groups: list[dict[str, Any]] = []
    for module, prefix in MODULES.items():
        part = model.get_submodule(prefix)
        part.requires_grad_(module in stage.trained)
        _freeze_unused(model, module)
        trained = [parameter for parameter in part.parameters() if parameter.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": stage.lr * stage.lr_scale.get(module, 1.0)})
    return groups


def _freeze_unused(model: FineTuneModel, module: str) -> None:
    """Weights that no forward pass reads would wait for a gradient for ever."""
    network = model.network
    if module == "vision":
        vision = network.visual_encoder
        vision.vision_model.encoder.layers[vision.used_layers :].requires_grad_(False)
        vision.vision_model.post_layernorm.requires_grad_(False)
    elif module == "selector" and hasattr(network.adapter, "score_proj"):
        network.adapter.score_proj.requires_grad_(False)
        if network.adapter.gate == "hard":
            network.adapter.requires_grad_(False)


def checkpoint_activations(model: FineTuneModel) -> None:
    """Let the layers of both towers forget their activations and compute them again in the backward pass."""
    vision = model.network.visual_encoder
    _checkpoint_layers(vision.vision_model.encoder.layers[: vision.used_layers])
    _checkpoint_layers(model.network.llm.model.layers)


def _checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        layer.forward = partial(_forward_again, layer.forward)


def _forward_again(forward: Any, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
