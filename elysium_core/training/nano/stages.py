"""The kinds of stages for training from scratch, each with one step function.

``vision``: encoder and gate learn from patches. ``language``: the decoder learns from
oracle tokens without pixels. ``distil``: the projector learns to produce the oracle's tokens.
``joint``: all modules together on pixels. ``adapter``: answers from pixels alone, with any token adapter; for
comparisons of adapters. The reasons and results are in docs/nano.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.errors import ConfigError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.prompt.layout import VISUAL_SLOT
from elysium_core.training.losses import Losses, Mean, batch_mean, losses_of_rows
from elysium_core.training.nano.auxiliary import Oracle, PatchHeads, patch_centers, patch_losses
from elysium_core.training.nano.clip_batches import Batch
from elysium_core.training.nano.nano_recipe import StageConfig
from elysium_core.training.pointing import PointingHeads

_ORACLE_NOISE = 0.02
_BOX_NOISE = 0.004
_BACKGROUND_DISTIL_WEIGHT = 0.2


class TrainingModel(nn.Module):
    """A network and the training-only modules around it."""

    centers: Tensor

    def __init__(
        self,
        network: ElysiumNetwork,
        patch_heads: PatchHeads,
        oracle: Oracle,
        pointing: PointingHeads,
        pointing_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.pointing_weight = pointing_weight
        self.network = network
        self.patch_heads = patch_heads
        self.oracle = oracle
        self.pointing = pointing
        encoder = network.visual_encoder
        self.transform = ImageTransform(encoder.side_px, encoder.normalization)
        self.register_buffer("centers", patch_centers(network.visual_encoder.grid), persistent=False)

    def forward(self, kind: str, batch: Batch) -> Losses:
        """Return the losses of one step of a stage; ``total`` is minimised."""
        return STAGES[kind](self, batch)


def _patch_terms(model: TrainingModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Losses]:
    tokens = model.network.visual_encoder(model.transform.normalize(batch.images))
    kept, kept_index, gate_logits = model.network.adapter(tokens)
    names, colors, boxes = model.patch_heads(tokens)
    truth = (batch.patch_name, batch.patch_color, batch.patch_box)
    losses = patch_losses(names, colors, boxes, gate_logits, *truth)
    solid = batch.patch_name != model.patch_heads.name.out_features - 1
    losses["gate_recall"] = Mean(solid.gather(1, kept_index).sum(), solid.sum())
    return tokens, kept, kept_index, losses


def vision_step(model: TrainingModel, batch: Batch) -> Losses:
    """Stage V: each patch predicts name, colour and box of its object; the gate learns to keep objects."""
    _, _, _, losses = _patch_terms(model, batch)
    total = losses["name"].value + 5 * losses["box"].value + 0.3 * losses["gate"].value
    return losses | {"total": batch_mean(total)}


def oracle_selection(patch_name: Tensor, background: int, count: int) -> Tensor:
    """Return the indices (F, count), ascending, of patches that an ideal gate keeps: objects first, then others."""
    order = torch.rand(patch_name.shape, device=patch_name.device) + (patch_name != background).float()
    return order.topk(count, dim=-1).indices.sort(dim=-1).values


def language_step(model: TrainingModel, batch: Batch) -> Losses:
    """Stage L: the prompts and answers of stage J, but with visual tokens made from the ground truth."""
    kept = oracle_selection(batch.patch_name, model.oracle.name_count, model.network.config.adapter.out_token_num)
    box = batch.patch_box.gather(1, kept[..., None].expand(-1, -1, 4))
    noisy = box + _BOX_NOISE * torch.randn_like(box)
    words = model.network.llm.model.embed_tokens
    name, color = batch.patch_name.gather(1, kept), batch.patch_color.gather(1, kept)
    visual = model.oracle(words, name, color, noisy, model.centers[kept])
    visual = visual + _ORACLE_NOISE * torch.randn_like(visual)
    losses = _language_losses(model, batch, visual, batch.patch_object.gather(1, kept))
    return losses | {"total": batch_mean(_language_total(model, losses))}


def distil_step(model: TrainingModel, batch: Batch) -> Losses:
    """Stage D: the projector learns the oracle's token for every patch."""
    tokens, _, _, losses = _patch_terms(model, batch)
    losses |= _distil_losses(model, batch, tokens)
    return losses | {"total": batch_mean(_distil_total(losses) + _patch_total(losses))}


def joint_step(model: TrainingModel, batch: Batch) -> Losses:
    """Stage J: answers from pixels, together with the losses of the earlier stages."""
    tokens, kept, kept_index, losses = _patch_terms(model, batch)
    losses |= _distil_losses(model, batch, tokens)
    visual = model.network.llm_proj(kept)
    losses |= _language_losses(model, batch, visual, batch.patch_object.gather(1, kept_index))
    total = _language_total(model, losses) + _distil_total(losses) + _patch_total(losses)
    return losses | {"total": batch_mean(total)}


def adapter_step(model: TrainingModel, batch: Batch) -> Losses:
    """Stage A: answers from pixels alone. No other loss helps, because fused tokens have no patch of their own."""
    tokens = model.network.visual_encoder(model.transform.normalize(batch.images))
    visual = model.network.llm_proj(model.network.adapter.adapt(tokens))
    losses, _ = losses_of_rows(model.network.llm, batch, visual)
    return losses | {"total": batch_mean(losses["answer"].value)}


def _patch_total(losses: Losses) -> Tensor:
    return 0.5 * (losses["name"].value + 5 * losses["box"].value) + 0.3 * losses["gate"].value


def _distil_total(losses: Losses) -> Tensor:
    return 2 * losses["distil"].value + losses["readout"].value


def _language_total(model: TrainingModel, losses: Losses) -> Tensor:
    return losses["answer"].value + model.pointing_weight * losses["pointing"].value


def _language_losses(model: TrainingModel, batch: Batch, visual: Tensor, token_object: Tensor) -> Losses:
    """Return the loss on answers, and the pointing loss.

    Args:
        model: The model.
        batch: The batch.
        visual: (B T, K, D), visual tokens of each frame.
        token_object: (B T, K), object under each of them, -1 for background.

    Returns:
        See :func:`elysium_core.training.losses.answer_losses`; and ``pointing``, ``pointing_accuracy``.
    """
    pointing = model.pointing
    losses, collected = losses_of_rows(model.network.llm, batch, visual, pointing.collect)
    hidden = dict(zip(pointing.collect, collected, strict=True))
    visual_index = torch.nonzero(batch.token_ids[0] == VISUAL_SLOT)[:, 0]
    pointed, right = pointing(hidden, batch.pointers, visual_index, _by_clip(token_object, batch), batch.frames)
    return losses | {"pointing": pointed, "pointing_accuracy": right}


def _distil_losses(model: TrainingModel, batch: Batch, tokens: Tensor) -> Losses:
    """Return the distance of the projector's tokens from the oracle's.

    Returns:
        ``distil``: squared error as a share of the oracle's variance, with a lower weight for background.
        ``readout``: cross-entropy of the name of each object patch, by distance to the oracle's tokens of all
        names with the same colour, box and position. The squared error alone is mostly due to boxes, and
        becomes small long before names can be separated.
        ``readout_accuracy``: share of patches that are nearest to the correct name.
        The first has weight 1 per batch, the others 1 per patch.
    """
    oracle = model.oracle
    with torch.no_grad():
        words = model.network.llm.model.embed_tokens
        wanted = oracle(words, batch.patch_name, batch.patch_color, batch.patch_box, model.centers)
        solid = batch.patch_name < oracle.name_count
        weight = torch.where(solid, 1.0, _BACKGROUND_DISTIL_WEIGHT)[..., None]
        variance = ((wanted - wanted.mean((0, 1))).square() * weight).mean()
        names = oracle.name_tokens()
    projected = model.network.llm_proj(tokens)
    error = projected - wanted
    distil = (error.square() * weight).mean() / variance
    # The squared distance to each name's token, without the terms that are equal for all names.
    truth = batch.patch_name[solid]
    named = error[solid] + names[truth]
    spread = error[solid].detach().square().mean().clamp(min=1e-6)
    logits = (named @ names.T - 0.5 * names.square().sum(-1)) / spread
    count = solid.sum()
    return {
        "distil": batch_mean(distil),
        "readout": Mean(F.cross_entropy(logits, truth, reduction="sum"), count),
        "readout_accuracy": Mean((logits.argmax(-1) == truth).sum(), count),
    }


def _by_clip(per_frame: Tensor, batch: Batch) -> Tensor:
    """Reshape (B * T, K, ...) to (B, T * K, ...)."""
    clips = len(per_frame) // batch.frames
    return per_frame.reshape(clips, batch.frames * per_frame.shape[1], *per_frame.shape[2:])


STAGES: dict[str, Callable[[TrainingModel, Batch], Losses]] = {
    "vision": vision_step,
    "language": language_step,
    "distil": distil_step,
    "joint": joint_step,
    "adapter": adapter_step,
}

_VISION_PARTS = ("network.visual_encoder", "network.adapter", "network.llm_proj", "patch_heads")
_LANGUAGE_PARTS = ("network.llm", "oracle", "pointing")
_TRAINED: dict[str, tuple[str, ...]] = {
    "vision": _VISION_PARTS,
    "language": _LANGUAGE_PARTS,
    "distil": _VISION_PARTS,
    "joint": (*_VISION_PARTS, "network.llm", "pointing"),
    "adapter": ("network.visual_encoder", "network.adapter", "network.llm_proj", "network.llm"),
}


def parameter_groups(model: TrainingModel, stage: StageConfig) -> list[dict[str, Any]]:
    """Freeze the weights that a stage does not train and group the others by learning rate.

    Args:
        model: The model; ``requires_grad`` of its parameters is set.
        stage: The stage.

    Returns:
        Groups for :class:`elysium_core.training.optimizer.MixedOptimizer`.

    Raises:
        ConfigError: The stage's kind is unknown.
    """
    if stage.kind not in STAGES:
        raise ConfigError(f"stage kind {stage.kind!r} is not one of {', '.join(STAGES)}")
    words = ("oracle", "network.llm.model.embed_tokens", "network.llm.lm_head") if stage.words_frozen else ()
    frozen = (*stage.frozen, *words)
    vision: list[tuple[str, nn.Parameter]] = []
    language: list[tuple[str, nn.Parameter]] = []
    for name, parameter in model.named_parameters():
        trained = _has_prefix(name, _TRAINED[stage.kind]) and not _has_prefix(name, frozen)
        parameter.requires_grad_(trained)
        if trained:
            (vision if _has_prefix(name, _VISION_PARTS) else language).append((name, parameter))
    groups: list[dict[str, Any]] = [{"params": vision, "lr": stage.vision_lr}, {"params": language, "lr": stage.lr}]
    return [group for group in groups if group["params"]]


def _has_prefix(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
