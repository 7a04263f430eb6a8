"""Builds a nano model from scratch (tokenizer, configuration, initial weights) and writes its checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionConfig

from elysium_core.checkpoint.checkpoint import save_checkpoint
from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.data.synthetic.colors import COLORS
from elysium_core.data.synthetic.expressions import ANY_OBJECT
from elysium_core.errors import DataError
from elysium_core.geometry import Box
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig
from elysium_core.network.token_selector import TokenSelector
from elysium_core.network.vision_encoder import VisionEncoder
from elysium_core.prompt.box_text import format_track
from elysium_core.prompt.build_tokenizer import train_tokenizer
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import TRAINING, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.nano.nano_recipe import NanoModelConfig, Recipe, SyntheticDataConfig
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER, load_or_make
from elysium_core.training.snapshots import find_weights

MAX_FRAMES = 32

_TIED = "llm.lm_head.weight"


def tokenizer_corpus(names: Sequence[str], system_text: str = "") -> Iterator[str]:
    """Return texts with every word that the model reads or writes, to train the tokenizer."""
    yield from frame_pieces(MAX_FRAMES, system_text)
    yield format_track([Box(0.12, 0.34, 0.56, 0.78)] * MAX_FRAMES)
    for questions in TRAINING.values():
        for question in questions:
            for name in names:
                yield question_piece(fill(question, expression=f"the {name}", box="[12,34,56,78]"))
    # Names are repeated to outweigh the words of the questions, so that each word of a name becomes one entry.
    nouns = (*names, ANY_OBJECT)
    for noun in nouns:
        yield from [f"the {noun}"] * len(names)
        yield from (f"the {word} {noun}" for word in (*COLORS, "large", "small"))
        yield from (f"the {noun} {place}" for place in ("on the left", "on the right", "at the top", "at the bottom"))


def known_nouns(names: Sequence[str], data: SyntheticDataConfig) -> tuple[str, ...]:
    """Return the nouns that a model learns from such data: its names, and "object" if it learns attributes."""
    return tuple(names) if data.plain_share == 1 else (*names, ANY_OBJECT)


def build_tokenizer(names: Sequence[str], vocab_size: int, folder: Path, system_text: str = "") -> TextTokenizer:
    """Load the tokenizer from ``folder`` as a user would; where there is none, train it first."""
    return load_or_make(lambda: train_tokenizer(tokenizer_corpus(names, system_text), vocab_size), folder)


def vision_settings(model: NanoModelConfig) -> CLIPVisionConfig:
    """Return the config of the vision encoder."""
    return CLIPVisionConfig(
        hidden_size=model.vision_width,
        intermediate_size=4 * model.vision_width,
        num_hidden_layers=model.vision_layers,
        num_attention_heads=model.vision_heads,
        image_size=model.side_px,
        patch_size=model.patch_px,
    )


def llm_settings(model: NanoModelConfig, vocab_size: int) -> dict[str, object]:
    """Return the ``config.json`` of the language model."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": model.llm_width,
        "intermediate_size": model.llm_mlp,
        "num_hidden_layers": model.llm_layers,
        "num_attention_heads": model.llm_heads,
        "num_key_value_heads": model.llm_heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def elysium_settings(model: NanoModelConfig, names: Sequence[str]) -> ElysiumConfig:
    """Return the config of the checkpoint; paths are relative to its folder."""
    return ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig(
            type=model.adapter,
            in_token_num=model.patch_count,
            out_token_num=model.visual_tokens,
            num_features=model.vision_width,
        ),
        feature_layer=-1,
        system_text=model.system_text,
        window="anchor",
        vocabulary=tuple(names),
    )


def build_network(model: NanoModelConfig, names: Sequence[str], vocab_size: int, seed: int) -> ElysiumNetwork:
    """Build the network with its initial weights.

    Patch embeddings start as a random orthonormal basis of the patch's space, and position
    embeddings as sines of the position, so that a short training does not have to learn them.
    """
    torch.manual_seed(seed)
    network = ElysiumNetwork(
        elysium_settings(model, names), vision_settings(model), LlamaSize.from_dict(llm_settings(model, vocab_size))
    )
    if isinstance(network.visual_encoder, VisionEncoder):
        _draw_transformer(network.visual_encoder)
    nn.init.normal_(network.llm.model.embed_tokens.weight, std=model.llm_width**-0.5)
    if isinstance(network.adapter, TokenSelector):
        nn.init.normal_(network.adapter.pre_proj.weight, std=0.02)
    return network


def _draw_transformer(encoder: VisionEncoder) -> None:
    vision = encoder.vision_model
    for module in vision.encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.7 * module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    nn.init.orthogonal_(vision.embeddings.patch_embedding.weight)
    with torch.no_grad():
        vision.embeddings.position_embedding.weight[1:] = 0.3 * _sine_positions(encoder.grid, encoder.width)


def _sine_positions(grid: int, width: int) -> torch.Tensor:
    """Return sines and cosines of row and column, shape (grid * grid, width)."""
    quarter = width // 4
    rate = torch.exp(torch.arange(quarter) * (-math.log(grid * 4) / quarter)) * math.pi / 2
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [f(axis.reshape(-1, 1) * rate) for axis in (x, y) for f in (torch.sin, torch.cos)]
    return torch.nn.functional.pad(torch.cat(waves, dim=1), (0, width - 4 * quarter))


def export_stage(recipe: Recipe, folder: Path, target: Path | None = None) -> Path:
    """Write the weights of the recipe's ``export`` stage as a checkpoint in half precision.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        target: The checkpoint's folder; ``<folder>/checkpoint`` if omitted.

    Raises:
        DataError: The stage has left no weights, or not those of this recipe.
    """
    target = target or folder / "checkpoint"
    names = trainable_names()[: recipe.data.names]
    path = find_weights(folder / recipe.export)
    if path is None:
        raise DataError(f"stage {recipe.export} has left no weights in {folder / recipe.export}; run the recipe first")
    tokenizer = TextTokenizer.from_folder(folder / TOKENIZER_FOLDER)
    network = build_network(recipe.model, names, tokenizer.vocab_size, recipe.data.seed)
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    try:
        keys = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise DataError(f"{path} belongs to a model of other sizes than the recipe's") from error
    if keys.unexpected_keys or set(keys.missing_keys) - {_TIED}:
        raise DataError(f"{path} belongs to another model than the recipe's")
    settings = elysium_settings(recipe.model, known_nouns(names, recipe.data))
    save_checkpoint(
        target,
        network,
        # The model was not trained on longer clips.
        replace(settings, clip_length=max(recipe.data.frames)),
        llm_settings(recipe.model, tokenizer.vocab_size),
        vision_settings(recipe.model).to_diff_dict(),
        dtype=torch.float16,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    return target
