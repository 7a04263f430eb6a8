"""The model to fine-tune: loading, freezing, and the forward pass from a batch to its losses.

The base is a checkpoint, or a pretrained vision encoder and language model with a new adapter between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elysium_core.checkpoint.base_settings import llm_size, vision_config
from elysium_core.checkpoint.checkpoint import Checkpoint, load_checkpoint, safe_weight_files, save_checkpoint
from elysium_core.checkpoint.locations import base_folder, base_settings, tokenizer_folder
from elysium_core.checkpoint.weight_files import open_weights
from elysium_core.errors import ModelFileError
from elysium_core.network.adapters import SelectingAdapter
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.encoders import token_shape
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig
from elysium_core.training.finetune.finetune_recipe import MODULES, BaseConfig, FineTuneStage
from elysium_core.training.finetune.low_rank import train_adapters_only
from elysium_core.training.finetune.mixed_batches import FineTuneBatch
from elysium_core.training.losses import Losses, losses_of_rows

_TIED = "llm.lm_head.weight"


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """A network in float32 and everything that is needed to write a checkpoint of it.

    Attributes:
        network: The network.
        config: Its settings.
        llm_folder: Folder of its tokenizer.
        llm_settings: ``config.json`` of its language model.
        vision_settings: ``config.json`` of its vision encoder.
    """

    network: ElysiumNetwork
    config: ElysiumConfig
    llm_folder: Path
    llm_settings: dict[str, Any]
    vision_settings: dict[str, Any]

    def save(self, folder: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
        """Write a checkpoint of this model with other weights.

        Args:
            folder: Folder of the checkpoint.
            weights: Weights by their names in the network; a tied head may be missing.
            dtype: Type of the stored weights.

        Raises:
            ModelFileError: The folder cannot be written.
        """
        with torch.device("meta"):
            vision, llm = vision_config(self.vision_settings), llm_size(self.llm_settings)
            network = ElysiumNetwork(self.config, vision, llm)
        network.load_state_dict(weights, strict=False, assign=True)
        if llm.tied:
            network.llm.lm_head.weight = network.llm.model.embed_tokens.weight
        save_checkpoint(
            folder,
            network,
            self.config,
            self.llm_settings,
            self.vision_settings,
            dtype=dtype,
            llm_folder=self.llm_folder,
        )


def load_base(base: BaseConfig, seed: int) -> StartingPoint:
    """Load the model that the first stage starts from.

    Args:
        base: Its location.
        seed: Seed for the initial weights of a new adapter and projector.

    Raises:
        ModelFileError: A file is missing or damaged, or does not fit the settings.
    """
    if base.checkpoint:
        allow = base.allow_pickle_weights
        return starting_point(load_checkpoint(base.checkpoint, dtype=torch.float32, allow_pickle_weights=allow))
    return _assemble(base, seed)


def starting_point(checkpoint: Checkpoint) -> StartingPoint:
    """Return the base model for a loaded checkpoint."""
    return StartingPoint(
        checkpoint.network,
        checkpoint.config,
        checkpoint.llm_folder,
        checkpoint.llm_settings,
        checkpoint.vision_settings,
    )


def _assemble(base: BaseConfig, seed: int) -> StartingPoint:
    here = Path()
    vision_raw, vision_source = base_settings(base.vision, here)
    llm_raw, llm_source = base_settings(base.llm, here)
    vision, llm = vision_config(vision_raw, vision_source), llm_size(llm_raw, llm_source)
    if vision.model_type != "clip_vision_model":
        raise ModelFileError(
            f"base.vision is of the kind {vision.model_type!r}, but only a CLIP encoder can be joined to an LLM; "
            "start from a whole model with base.checkpoint"
        )
    patches, width = token_shape(vision)
    config = ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig(base.adapter, patches, base.visual_tokens, width),
        system_text=base.system_text,
    )
    torch.manual_seed(seed)
    try:
        network = ElysiumNetwork(config, vision, llm)
    except ValueError as error:
        raise ModelFileError(f"base.adapter and base.visual_tokens do not fit {base.vision!r}: {error}") from error
    pickled = base.allow_pickle_weights
    _load_tower(network, base.vision, {"vision_model.": "visual_encoder.vision_model."}, "visual_encoder.", pickled)
    _load_tower(network, base.llm, {"model.": "llm.model.", "lm_head.": "llm.lm_head."}, "llm.", pickled)
    settings = vision_raw.get("vision_config")
    return StartingPoint(
        network,
        config,
        tokenizer_folder(base.llm, here),
        llm_raw,
        settings if isinstance(settings, dict) else vision_raw,
    )


def _load_tower(network: ElysiumNetwork, name: str, prefixes: dict[str, str], tower: str, allow_pickle: bool) -> None:
    """Copy the weights of a pretrained model into the network; extra weights (CLIP's text encoder) are ignored."""
    folder = base_folder(name, Path())
    if folder is None:
        raise ModelFileError(f"{name!r} is not on this machine; fetch it with `elysium pull {name}`")
    # Not in the files: the only buffer is computed, and a tied head equals the embeddings.
    wanted = {key: value for key, value in network.state_dict().items() if key.startswith(tower)}
    wanted = {key: value for key, value in wanted.items() if not key.endswith("position_ids")}
    if network.llm.size.tied:
        wanted.pop(_TIED, None)
    with safe_weight_files(folder, allow_pickle) as (_, files):
        for file in files:
            with open_weights(file) as stored:
                for key in stored.keys():  # noqa: SIM118  # not a mapping
                    place = _placed(key, prefixes)
                    if place in wanted:
                        _copy(wanted.pop(place), stored.get_tensor(key), key, file)
    if wanted:
        raise ModelFileError(f"the weights of {name!r} lack {', '.join(sorted(wanted)[:5])}")


def _placed(key: str, prefixes: dict[str, str]) -> str:
    for prefix, replacement in prefixes.items():
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    # transformers 5 saves a vision model without the prefix of its class.
    return f"visual_encoder.vision_model.{key}"


def _copy(target: Tensor, value: Tensor, key: str, file: Path) -> None:
    if target.shape != value.shape:
        raise ModelFileError(f"{file} has {key} of shape {list(value.shape)}, {list(target.shape)} is needed")
    target.copy_(value)


class FineTuneModel(nn.Module):
    """A network whose forward pass returns losses.

    Args:
        network: The network.
    """

    def __init__(self, network: ElysiumNetwork) -> None:
        super().__init__()
        self.network = network
        encoder = network.visual_encoder
        self._transform = ImageTransform(encoder.side_px, encoder.normalization)

    def forward(self, batch: FineTuneBatch) -> Losses:
        """Return :func:`elysium_core.training.losses.answer_losses` of a batch; ``total`` equals ``answer``."""
        losses, _ = losses_of_rows(self.network.llm, batch, self._visual_tokens(batch.images))
        return {"total": losses.pop("answer")} | losses

    def _visual_tokens(self, images: Tensor) -> Tensor:
        # A batch with only text runs one black frame and ignores its output: with shards, every process has to call
        # every module.
        shown = images if len(images) else images.new_zeros(1, *images.shape[1:])
        visual = self.network.encode_frames(self._transform.normalize(shown))
        return visual if len(images) else visual * 0


def choose_trained(model: FineTuneModel, stage: FineTuneStage) -> list[dict[str, Any]]:
    """Freeze the modules that a stage does not train, and group the others by learning rate.

    Returns:
        Groups for :class:`elysium_core.training.optimizer.ScheduledAdamW`.
    """
    groups: list[dict[str, Any]] = []
    if model.network.target_selector is not None:
        # Whole frames do not run through it.
        model.network.target_selector.requires_grad_(False)
    for module, prefix in MODULES.items():
        part = model.get_submodule(prefix)
        part.requires_grad_(module in stage.trained)
        if module == "llm" and stage.lora_rank:
            train_adapters_only(part)
        _freeze_unused(model, module)
        trained = [parameter for parameter in part.parameters() if parameter.requires_grad]
        if trained:
            groups.append({"params": trained, "lr": stage.lr * stage.lr_scale.get(module, 1.0)})
    return groups


def _freeze_unused(model: FineTuneModel, module: str) -> None:
    """Freeze weights that no forward pass uses, because sharded training would wait for their gradients."""
    network = model.network
    if module == "vision":
        for part in network.visual_encoder.unused_parts():
            part.requires_grad_(False)
    elif module == "selector" and isinstance(network.adapter, SelectingAdapter):
        for part in network.adapter.untrained_parts():
            part.requires_grad_(False)


def cast_frozen(model: FineTuneModel, dtype: torch.dtype) -> None:
    """Hold the frozen matrices of linear layers in the type they are computed in, in place of casting them every time.

    The results are the same, bit for bit. Embeddings are not cast in the computation, and stay as they are.
    """
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad and id(module.weight) not in looked_up:
            module.weight.data = module.weight.data.to(dtype)


def checkpoint_activations(model: FineTuneModel) -> None:
    """Enable gradient checkpointing in vision encoder and language model."""
    _checkpoint_layers(model.network.visual_encoder.layers())
    _checkpoint_layers(model.network.llm.model.layers)


def _checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        layer.forward = partial(_forward_again, layer.forward)


def _forward_again(forward: Any, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
