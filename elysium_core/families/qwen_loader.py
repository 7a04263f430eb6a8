"""Loading of Qwen-VL models from a folder in the layout of transformers: safetensors only, no code from the folder."""

from __future__ import annotations

import logging
import os
from math import prod
from pathlib import Path
from typing import Any

import torch

from elysium_core.checkpoint.base_settings import read_settings
from elysium_core.checkpoint.integrity import MANIFEST_NAME, verify_manifest
from elysium_core.checkpoint.locations import checkpoint_folder
from elysium_core.checkpoint.weight_files import find_weight_files, fingerprint, read_headers, refuse_pointer
from elysium_core.device import (
    check_gpu,
    device_errors,
    device_name,
    dtype_name,
    free_bytes,
    resolve_device,
    resolve_dtype,
)
from elysium_core.errors import BackendError, ConfigError, ModelFileError
from elysium_core.families.loaders import LoadedModel
from elysium_core.families.qwen_vl import DIALECTS, QwenFamily
from elysium_core.io.files import check_inside
from elysium_core.network.model_config import CONFIG_NAME
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.settings import LoadOptions
from elysium_core.types import ModelInfo

MAX_PIXELS = 640 * 480
"""Largest image unless the option says otherwise [px]."""
_FEWEST_PIXELS, _MOST_PIXELS = 4096, 1 << 24
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_EXAMPLE_HW = (480, 640)
_SHOWN_NAMES = 3

_logger = logging.getLogger(__name__)


def load_qwen(options: LoadOptions) -> LoadedModel:
    """Load a Qwen3-VL or Qwen2.5-VL model from the disk.

    Raises:
        ModelFileError: The folder is missing, damaged or unsafe, or the weights do not fit into memory.
        BackendError: Device, dtype, quantisation or backend cannot be used.
        ConfigError: ``max_pixels`` is out of range.
    """
    _check_options(options)
    device = resolve_device(options.device)
    check_gpu(device)
    dtype = resolve_dtype(options.dtype, device)
    folder = checkpoint_folder(options.model)
    settings = _read_config(folder)
    files = _weight_files(folder)
    parameters = sum(prod(tensor.shape) for tensor in read_headers(files).values())
    _check_memory(parameters * dtype.itemsize, device, dtype)
    tokenizer = TextTokenizer.from_folder(folder, needs_bos=False)
    processor = load_processor(folder, options.max_pixels)
    model = _load_model(folder, dtype)
    tokenizer.check_fits(model.config.text_config.vocab_size)
    with device_errors("loading the model"):
        model = model.to(device).eval().requires_grad_(False)
    dialect = DIALECTS[settings["model_type"]]
    family = QwenFamily(model, tokenizer, processor, dialect)
    _logger.warning("%s: models of this kind are experimental; `elysium check` tests it on this machine", options.model)
    info = ModelInfo(
        name=options.model,
        backend="torch",
        device=device_name(device),
        precision=dtype_name(dtype),
        coordinate_levels=dialect.levels if dialect.relative else 0,
        clip_length=family.settings.clip_length,
        parameters=sum(weight.numel() for weight in model.parameters()),
        weights=fingerprint(files),
        describes=family.settings.describe,
    )
    return LoadedModel(family, info)


def facts(folder: Path) -> dict[str, Any]:
    """What ``elysium info`` says about a model: sizes from its configuration files, no weights are read.

    Raises:
        ModelFileError: A file is missing, damaged or unsafe.
    """
    settings = _read_config(folder)
    text = settings.get("text_config", settings)
    parameters = sum(prod(tensor.shape) for tensor in read_headers(find_weight_files(folder)).values())
    processor = load_processor(folder, 0)
    tokens = processor.get_number_of_image_patches(*_EXAMPLE_HW) // processor.merge_size**2
    head_dim = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return {
        "parameters": parameters or None,
        "bytes_bfloat16": 2 * parameters,
        "visual_tokens_640x480": tokens,
        "max_pixels": processor.size["longest_edge"],
        "kv_bytes_token_bfloat16": 4 * text["num_hidden_layers"] * text["num_key_value_heads"] * head_dim,
        "boxes": "thousandths" if DIALECTS[settings["model_type"]].relative else "pixels of the resized image",
        "follow": "words",
        "experimental": True,
    }


def _check_options(options: LoadOptions) -> None:
    if options.quantization != "none":
        raise BackendError(
            f"quantization {options.quantization!r} is not available for Qwen-VL models; use none", code="QUANTIZATION"
        )
    if options.vision_backend not in ("auto", "torch"):
        raise BackendError(f"vision backend {options.vision_backend!r} cannot run Qwen-VL models; use torch")
    most = options.max_pixels
    if isinstance(most, bool) or not (most == 0 or _FEWEST_PIXELS <= most <= _MOST_PIXELS):
        raise ConfigError(f"max_pixels {most!r} is neither 0 nor in {_FEWEST_PIXELS}..{_MOST_PIXELS}")


def _read_config(folder: Path) -> dict[str, Any]:
    settings = read_settings(folder / CONFIG_NAME)
    if settings.get("model_type") not in DIALECTS:
        raise ModelFileError(f"{folder / CONFIG_NAME} has the model_type {settings.get('model_type')!r}, not Qwen-VL's")
    if settings.get("quantization_config"):
        raise ModelFileError(
            f"the weights in {folder} are quantised, which is not supported; take the unquantised model"
        )
    return settings


def _weight_files(folder: Path) -> list[Path]:
    files = find_weight_files(folder)
    if not files:
        raise ModelFileError(
            f"there are no weights in {folder}; its files are model*.safetensors, pickles are not read"
        )
    for path in (*folder.glob("*.json"), *files):
        try:
            check_inside(path, folder)
        except OSError as error:
            raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
        refuse_pointer(path)
    manifest = folder / MANIFEST_NAME
    if os.path.lexists(manifest):
        verify_manifest(manifest, folder, files)
    return files


def _check_memory(needed: int, device: torch.device, dtype: torch.dtype) -> None:
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ModelFileError(
            f"the weights need {needed >> 20} MiB as {dtype_name(dtype)}, {free >> 20} MiB are free on {device}; "
            "choose a smaller dtype, another device or a smaller model",
            code="MODEL_MEMORY",
        )


def load_processor(folder: Path, max_pixels: int) -> Any:
    """Load the image processor of a folder, in the form that needs only PIL and numpy.

    Args:
        folder: The model's folder.
        max_pixels: Largest image [px]; 0 = the default.

    Raises:
        ModelFileError: There is none, or it cannot be read.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    found = next((folder / name for name in _PROCESSOR_FILES if (folder / name).is_file()), None)
    if found is None:
        raise ModelFileError(f"there is no {_PROCESSOR_FILES[0]} in {folder}; fetch the whole model again")
    read_settings(found)
    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(str(folder), local_files_only=True)
        fewest, most = processor.size["shortest_edge"], processor.size["longest_edge"]
    except Exception as error:
        raise ModelFileError(f"cannot read {found}: {_first_line(error)}") from error
    most = min(max_pixels or MAX_PIXELS, most)
    processor.size = {"shortest_edge": min(fewest, most), "longest_edge": most}
    return processor


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForImageTextToText
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    disable_progress_bar()
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ModelFileError(f"cannot load the model in {folder}: {_first_line(error)}") from error
    finally:
        enable_progress_bar()
    wrong = sorted({*report["missing_keys"], *(str(each) for each in report["mismatched_keys"])})
    if wrong:
        raise ModelFileError(
            f"the weights in {folder} lack {len(wrong)} of the model's tensors or have other shapes: "
            f"{', '.join(wrong[:_SHOWN_NAMES])}; fetch the model again"
        )
    return model


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
