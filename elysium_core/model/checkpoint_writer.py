"""Writing a checkpoint: the published layout, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from elysium_core.errors import ModelFileError
from elysium_core.io.files import temporary_beside
from elysium_core.model.config import CONFIG_NAME, ElysiumConfig
from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.locations import TOKENIZER_FILES
from elysium_core.model.manifest import MANIFEST_NAME, write_manifest
from elysium_core.model.weight_files import SAFE_ENDING, SAFE_STEM

_SINGLE = f"{SAFE_STEM}{SAFE_ENDING}"
_INDEX = f"{_SINGLE}.index.json"
_DEFAULT_SHARD_BYTES = 5_000_000_000


def save_checkpoint(
    folder: str | Path,
    network: ElysiumNetwork,
    config: ElysiumConfig,
    llm_settings: dict[str, Any],
    vision_settings: dict[str, Any],
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = _DEFAULT_SHARD_BYTES,
    llm_folder: Path | None = None,
) -> None:
    """Write a checkpoint that :func:`~elysium_core.model.checkpoint.load_checkpoint` reads.

    It is self-contained: the settings of the models it is built on are stored at the
    names that ``config`` gives them, below the folder. Everything is first written beside
    the folder and then moved. Where the folder exists, other files in it stay, and the new
    manifest is moved first: a mixture left by a crash does not pass it.

    Args:
        folder: Where to; made if it does not exist.
        network: The weights.
        config: The model's settings.
        llm_settings: ``config.json`` of the language model.
        vision_settings: ``config.json`` of the vision encoder.
        dtype: What the weights are stored as; as they are by default.
        max_shard_bytes: Largest weight file; a single tensor may exceed it.
        llm_folder: Where the tokenizer files are copied from; by default they are expected
            in the target folder already, or are added later.

    Raises:
        ModelFileError: The folder cannot be written.
    """
    folder = Path(folder)
    config = replace(config, llm=_inner_name(config.llm, "llm"), vision=_inner_name(config.vision, "vision"))
    if config.llm == config.vision:
        config = replace(config, llm="llm", vision="vision")
    draft = temporary_beside(folder.absolute())
    try:
        draft.mkdir(parents=True)
        _write_settings(draft / CONFIG_NAME, config.to_dict())
        _write_settings(draft / config.llm / CONFIG_NAME, llm_settings)
        _write_settings(draft / config.vision / CONFIG_NAME, vision_settings)
        _copy_tokenizer(llm_folder or folder / config.llm, draft / config.llm)
        _write_weights(draft, network, dtype, max_shard_bytes)
        write_manifest(draft, [path for path in draft.rglob("*") if path.is_file()])
        _publish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot save a model to {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _inner_name(name: str, otherwise: str) -> str:
    """A name below the checkpoint's folder: the one in the config, unless it leads out."""
    path = Path(name)
    return otherwise if path.is_absolute() or ".." in path.parts or not path.parts else path.as_posix()


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _write_weights(folder: Path, network: ElysiumNetwork, dtype: torch.dtype | None, max_shard_bytes: int) -> None:
    shards = list(_shards(network, dtype, max_shard_bytes))
    if len(shards) == 1:
        _write_shard(folder / _SINGLE, shards[0], dtype)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{SAFE_STEM}-{number:05d}-of-{len(shards):05d}{SAFE_ENDING}"
        _write_shard(folder / name, shard, dtype)
        places |= dict.fromkeys(shard, name)
    total = sum(_stored_bytes(tensor, dtype) for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(network: ElysiumNetwork, dtype: torch.dtype | None, max_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in network.state_dict().items():
        if name == "llm.lm_head.weight" and network.llm.size.tied:
            continue
        if shard and size + _stored_bytes(tensor, dtype) > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += _stored_bytes(tensor, dtype)
    yield shard


def _stored_bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * (dtype or tensor.dtype).itemsize


def _write_shard(path: Path, shard: dict[str, Tensor], dtype: torch.dtype | None) -> None:
    tensors = {name: tensor.to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in shard.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors makes files that only their owner can read; the other files show what the user wants.
    shutil.copymode(path.parent / CONFIG_NAME, path)


def _publish(draft: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(draft, folder)
        return
    files = sorted((path for path in draft.rglob("*") if path.is_file()), key=lambda path: path.name != MANIFEST_NAME)
    for file in files:
        target = folder / file.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    written = {file.name for file in files}
    # Weights of an earlier, larger or smaller model would be found beside the new ones.
    for stale in [*folder.glob(f"{SAFE_STEM}*{SAFE_ENDING}"), folder / _INDEX]:
        if stale.name not in written:
            stale.unlink(missing_ok=True)
