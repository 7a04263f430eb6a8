"""The model of a recipe of ``kind: real``: settings, tokenizer, first weights; and the checkpoint of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from elysium_core.checkpoint.checkpoint import save_checkpoint
from elysium_core.checkpoint.integrity import MANIFEST_NAME, hash_file, write_manifest
from elysium_core.errors import DataError
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import CONV_SELECTOR, AdapterConfig, ElysiumConfig
from elysium_core.prompt.box_text import format_track
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import TRAINING, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.pretrained_encoder import load_encoder
from elysium_core.training.real.real_recipe import RealRecipe
from elysium_core.training.real.real_sizes import RealModelConfig
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER, load_or_train
from elysium_core.training.snapshots import find_weights

CHECKPOINT_FOLDER = "checkpoint"
NOTICE_NAME = "NOTICE"

_MOST_FRAMES = 32
_PLACES = ("a thing on the left", "a thing on the right", "a thing at the top", "a thing at the bottom")
_TIED = "llm.lm_head.weight"
_NETWORK = "network."
# What a model without words may be asked for: it was trained to follow, not to find things by their names.
_NO_NAMES = ("object",)


def texts_of_tasks(words: Sequence[str], system_text: str) -> Iterator[str]:
    """Texts that hold every word the model reads or writes."""
    yield from frame_pieces(_MOST_FRAMES, system_text)
    yield format_track([Box(0.12, 0.34, 0.56, 0.78)] * _MOST_FRAMES)
    for questions in TRAINING.values():
        for question in questions:
            yield question_piece(fill(question, expression="the object", box="[12,34,56,78]"))
    # A word must become one entry, so it has to outweigh the questions' own words.
    for text in (*(f"the {word}" for word in words), *_PLACES):
        yield from [text] * max(len(words), len(TRAINING))


def run_tokenizer(recipe: RealRecipe, folder: Path) -> TextTokenizer:
    """The tokenizer of a run, trained when it is first needed."""
    model = recipe.model
    return load_or_train(texts_of_tasks(model.words, model.system_text), model.vocab_size, folder / TOKENIZER_FOLDER)


def vision_settings(model: RealModelConfig) -> EfficientNetConfig:
    """The vision encoder's config."""
    return EfficientNetConfig(model.frame_px, model.contrast)


def llm_settings(model: RealModelConfig, vocab_size: int) -> dict[str, object]:
    """The language model's ``config.json``."""
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


def model_settings(model: RealModelConfig) -> ElysiumConfig:
    """The checkpoint's own config."""
    return ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig(
            CONV_SELECTOR,
            model.frame_cells,
            model.frame_tokens,
            EfficientNetEncoder.WIDTH,
            neck=model.neck,
            out_features=model.token_width,
        ),
        feature_layer=-1,
        system_text=model.system_text,
        clip_length=2,
        window="anchor",
        vocabulary=model.words or _NO_NAMES,
        crop=model.crop,
        follow="crop",
    )


def build_network(model: RealModelConfig, vocab_size: int, seed: int) -> ElysiumNetwork:
    """Build the network with its first weights; those of the encoder are pretrained.

    Raises:
        DataError: The encoder's weights cannot be read.
    """
    torch.manual_seed(seed)
    llm = LlamaSize.from_dict(llm_settings(model, vocab_size))
    network = ElysiumNetwork(model_settings(model), vision_settings(model), llm)
    nn.init.normal_(network.llm.model.embed_tokens.weight, std=model.llm_width**-0.5)
    load_encoder(crop_encoder(network), Path(model.encoder_weights))
    return network


def crop_encoder(network: ElysiumNetwork) -> EfficientNetEncoder:
    """The network's vision encoder."""
    encoder = network.visual_encoder
    if not isinstance(encoder, EfficientNetEncoder):
        raise TypeError(f"the vision encoder is a {type(encoder).__name__}")
    return encoder


def export_run(recipe: RealRecipe, folder: Path, target: Path | None = None) -> Path:
    """Write the weights of the recipe's ``export`` stage as a checkpoint in half precision, for inference alone.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        target: The checkpoint's folder; ``<folder>/checkpoint`` if omitted.

    Raises:
        DataError: The stage has left no weights, or not those of this recipe.
    """
    target = target or folder / CHECKPOINT_FOLDER
    path = find_weights(folder / recipe.export)
    if path is None:
        raise DataError(f"stage {recipe.export} has left no weights in {folder / recipe.export}; run the recipe first")
    tokenizer = TextTokenizer.from_folder(folder / TOKENIZER_FOLDER)
    network = build_network(recipe.model, tokenizer.vocab_size, recipe.data.seed)
    weights = {key.removeprefix(_NETWORK): value for key, value in load_file(path).items() if key.startswith(_NETWORK)}
    try:
        keys = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise DataError(f"{path} belongs to a model of other sizes than the recipe's") from error
    if keys.unexpected_keys or set(keys.missing_keys) - {_TIED}:
        raise DataError(f"{path} belongs to another model than the recipe's")
    save_checkpoint(
        target,
        network,
        model_settings(recipe.model),
        llm_settings(recipe.model, tokenizer.vocab_size),
        vision_settings(recipe.model).to_dict(),
        dtype=torch.float16,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    _write_notice(recipe, target)
    return target


def _write_notice(recipe: RealRecipe, folder: Path) -> None:
    """Say beside the weights where they come from, and list that file in the manifest, too."""
    with atomic_path(folder / NOTICE_NAME) as temporary:
        temporary.write_text(notice(recipe), encoding="utf-8")
    listed = [line.split(maxsplit=1)[1] for line in (folder / MANIFEST_NAME).read_text(encoding="utf-8").splitlines()]
    write_manifest(folder, {folder / name for name in (*listed, NOTICE_NAME)})


def notice(recipe: RealRecipe) -> str:
    """Where the weights come from: the encoder's file and terms, and what was trained on."""
    weights = Path(recipe.model.encoder_weights)
    try:
        with safe_open(weights, "pt") as stored:
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read the encoder's weights {weights}: {error}") from error
    source, terms = metadata.get("source", "an unnamed source"), metadata.get("license", "unknown")
    lines = [
        f"Vision encoder: {recipe.model.encoder}, started from weights of {source}; licence {terms}.",
        f"sha256 of that file: {hash_file(weights)}",
        f"Trained on photos of {', '.join(Path(path).name for path in recipe.data.photos)}, which are not part of it.",
    ]
    if recipe.data.cutouts:
        lines.append("Cut-outs were made of the same photos.")
    return "\n".join(lines) + "\n"
