"""The model of a recipe of ``kind: real``: settings, tokenizer and first weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from elysium_core.checkpoint.locations import checkpoint_folder, tokenizer_folder
from elysium_core.geometry import Box
from elysium_core.network.detector_encoder import DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.encoders import token_shape
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import CONFIG_NAME, CONV_SELECTOR, AdapterConfig, ElysiumConfig
from elysium_core.prompt.box_text import format_track
from elysium_core.prompt.build_tokenizer import TOKENIZER_NAME, extend_tokenizer, train_tokenizer
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import TRAINING, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.pretrained_encoder import load_encoder
from elysium_core.training.real.real_recipe import RealRecipe
from elysium_core.training.real.real_sizes import RealModelConfig
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER, load_or_make

VISION_SETTINGS: dict[str, type[EfficientNetConfig]] = {
    kind.model_type: kind for kind in (EfficientNetConfig, DetectorEncoderConfig)
}
"""Vision encoders with features of crops, by their kinds."""

_MOST_FRAMES = 32
_PLACES = ("a thing on the left", "a thing on the right", "a thing at the top", "a thing at the bottom")
_PLACE_WORDS = ("on", "at", "left", "right", "top", "bottom")
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
    model, target = recipe.model, folder / TOKENIZER_FOLDER
    if not recipe.extends:
        return load_or_make(
            lambda: train_tokenizer(texts_of_tasks(model.words, model.system_text), model.vocab_size), target
        )
    earlier = _tokenizer_of(recipe.extends)
    words = [word for name in model.words for word in name.split()]
    return load_or_make(lambda: extend_tokenizer(Tokenizer.from_file(str(earlier)), words), target)


def _tokenizer_of(checkpoint: str) -> Path:
    folder = checkpoint_folder(checkpoint)
    return tokenizer_folder(ElysiumConfig.from_file(folder / CONFIG_NAME).llm, folder) / TOKENIZER_NAME


def vision_settings(model: RealModelConfig) -> EfficientNetConfig:
    """The vision encoder's config."""
    return VISION_SETTINGS[model.encoder](model.frame_px, model.contrast)


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
            token_shape(vision_settings(model))[1],
            neck=model.neck,
            out_features=model.token_width,
        ),
        feature_layer=-1,
        system_text=model.system_text,
        clip_length=2,
        window="anchor",
        vocabulary=model.words or _NO_NAMES,
        words=_PLACE_WORDS if model.words else (),
        crop=model.crop,
        follow="crop",
        describe="frame" if model.words else "none",
        find=model.find,
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
