"""Settings of the vision encoder and the language model that a checkpoint is built on.

A ``config.json`` is read as plain data. Only the keys named here are used: others, such as
those that name code or an attention kernel to fetch, have no effect.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import CLIPVisionConfig

from elysium_core.errors import ModelFileError
from elysium_core.io.files import read_settings_text
from elysium_core.network.detector_encoder import DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig
from elysium_core.network.encoders import VISION_ENCODERS, VisionConfig
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import CONFIG_NAME

# Far above any model of this kind: a crafted config must not make the program build layers for hours.
_LARGEST = MappingProxyType(
    {
        "hidden_size": 1 << 16,
        "intermediate_size": 1 << 18,
        "num_hidden_layers": 512,
        "num_attention_heads": 1 << 10,
        "num_key_value_heads": 1 << 10,
        "head_dim": 1 << 12,
        "vocab_size": 1 << 22,
        "image_size": 1 << 13,
        "patch_size": 1 << 10,
    }
)
_VISION_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
)
_ACTIVATIONS = ("quick_gelu", "gelu")
# Defaults of transformers for keys that a LLaMA config leaves out.
_LLM_DEFAULTS = MappingProxyType(
    {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
)

KNOWN_BASES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "openai/clip-vit-large-patch14-336": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        "lmsys/vicuna-7b-v1.5": {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    }
)
"""Settings of the models that the published checkpoint names, so that they need not be fetched."""


def read_settings(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """Read a ``config.json``.

    Args:
        path: The file.
        folder: The model's folder, which links may not lead out of; that of the file if omitted.

    Raises:
        ModelFileError: It is missing, is not a JSON object, or names code to run (``MODEL_UNSAFE``).
    """
    try:
        raw = json.loads(read_settings_text(path, folder))
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelFileError(f"{path} holds {type(raw).__name__}, not an object of settings")
    if raw.get("auto_map"):
        raise ModelFileError(
            f"{path} names code to run (auto_map), which is never run; remove the key",
            code="MODEL_UNSAFE",
        )
    return raw


def vision_config(raw: dict[str, Any], source: str = CONFIG_NAME) -> VisionConfig:
    """Build the vision encoder's config from its settings, or from those of a whole CLIP model.

    Raises:
        ModelFileError: Its kind is not supported, or a size is missing or out of range.
    """
    kind = raw.get("model_type", "clip_vision_model")
    for settings in (EfficientNetConfig, DetectorEncoderConfig):
        if kind == settings.model_type:
            return _efficientnet_config(settings, raw, source)
    if kind not in ("clip", "clip_vision_model"):
        raise ModelFileError(
            f"{source} describes a {kind!r} vision encoder; supported are clip and {', '.join(VISION_ENCODERS)}"
        )
    return _clip_config(raw, source)


def _efficientnet_config(settings: type[EfficientNetConfig], raw: dict[str, Any], source: str) -> EfficientNetConfig:
    contrast = raw.get("contrast", EfficientNetConfig().contrast)
    if not isinstance(contrast, int | float) or isinstance(contrast, bool):
        raise ModelFileError(f"{source}: contrast = {contrast!r} is not a number")
    try:
        return settings(_size(raw, "image_size", source), float(contrast))
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from error


def _clip_config(raw: dict[str, Any], source: str) -> CLIPVisionConfig:
    # Configs of whole CLIP models have a vision part; transformers leaves out keys with default values.
    nested = raw.get("vision_config")
    merged = CLIPVisionConfig().to_dict() | (nested if isinstance(nested, dict) else raw)
    sizes = {key: _size(merged, key, source) for key in _VISION_SIZES}
    if sizes["hidden_size"] % sizes["num_attention_heads"]:
        raise ModelFileError(
            f"{source}: hidden_size = {sizes['hidden_size']} is not a multiple of "
            f"num_attention_heads = {sizes['num_attention_heads']}"
        )
    activation = merged.get("hidden_act", "quick_gelu")
    if activation not in _ACTIVATIONS:
        raise ModelFileError(f"{source}: hidden_act {activation!r} is not one of {', '.join(_ACTIVATIONS)}")
    epsilon = merged.get("layer_norm_eps", 1e-5)
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise ModelFileError(f"{source}: layer_norm_eps = {epsilon!r} is not in 0..1")
    return CLIPVisionConfig(**sizes, hidden_act=activation, layer_norm_eps=float(epsilon))


def llm_size(raw: dict[str, Any], source: str = CONFIG_NAME) -> LlamaSize:
    """Read the language model's sizes from the settings of a LLaMA model.

    Raises:
        ModelFileError: A size is missing or out of range, or it is not a LLaMA model.
    """
    if raw.get("model_type", "llama") != "llama":
        raise ModelFileError(f"{source} describes a {raw['model_type']!r} language model, only 'llama' is supported")
    merged = {**_LLM_DEFAULTS, **raw}
    for key in _LARGEST.keys() & merged.keys():
        if merged[key] is not None or key in _LLM_DEFAULTS:
            _size(merged, key, source)
    try:
        size = LlamaSize.from_dict(merged)
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise ModelFileError(f"{source} lacks or misspells the setting {error}") from error
    if size.heads % size.kv_heads or size.head_dim % 2:
        raise ModelFileError(
            f"{source}: {size.heads} heads of width {size.head_dim} do not go with {size.kv_heads} key/value heads"
        )
    return size


def _size(raw: dict[str, Any], key: str, source: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST[key]:
        raise ModelFileError(f"{source}: {key} = {value!r} is not a whole number in 1..{_LARGEST[key]}")
    return value
