"""Saving a model as a checkpoint of the published layout. A save that fails leaves nothing behind."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from elysium_core.checkpoint.integrity import MANIFEST_NAME, generated_files, write_manifest
from elysium_core.checkpoint.locations import TOKENIZER_FILES, base_folder
from elysium_core.checkpoint.weight_files import SAFE_ENDING, SAFE_STEM, StoredTensor, open_weights
from elysium_core.errors import ModelFileError
from elysium_core.io.files import publish, temporary_beside
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig

_logger = logging.getLogger(__name__)

_SINGLE = f"{SAFE_STEM}{SAFE_ENDING}"
_INDEX = f"{_SINGLE}.index.json"
_DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that a model was loaded from. What has not changed since is saved as the same bytes.

    Attributes:
        folder: The checkpoint's folder.
        stored: Its tensors, by their names in the network.
    """

    folder: Path
    stored: Mapping[str, StoredTensor] = field(default_factory=dict)


def save_checkpoint(
    folder: str | Path,
    network: ElysiumNetwork,
    config: ElysiumConfig,
    llm_settings: dict[str, Any],
    vision_settings: dict[str, Any],
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
    llm_folder: Path | None = None,
    origin: Origin | None = None,
) -> None:
    """Save a checkpoint that :func:`~elysium_core.checkpoint.checkpoint.load_checkpoint` reads.

    The checkpoint is self-contained: the settings of its language model and vision encoder are
    stored in subfolders. All files are first written to a temporary folder. Where ``folder``
    exists, other files in it stay, and the manifest is moved there first: if the process is killed
    while files are moved, the mixture of old and new files does not pass the manifest.

    Args:
        folder: The folder to write; made if it does not exist.
        network: The weights.
        config: The model's settings.
        llm_settings: ``config.json`` of the language model.
        vision_settings: ``config.json`` of the vision encoder.
        dtype: Data type of the stored weights; by default that of the origin, else that of the network.
        max_shard_bytes: Largest weight file [bytes]; only a single larger tensor exceeds it. By
            default the weights are divided as in the origin, else into files of 5 GB.
        llm_folder: Folder of the tokenizer files; by default the subfolder of the language
            model, if the target folder has one.
        origin: The checkpoint that the model was loaded from. Settings files with equal content
            are copied from it, and unknown keys of its ``config.json`` are kept.

    Raises:
        ModelFileError: The folder cannot be written.
    """
    folder = Path(folder)
    config = replace(config, llm=_inner_name(config.llm, "llm"), vision=_inner_name(config.vision, "vision"))
    if Path(config.llm) == Path(config.vision):
        config = replace(config, llm="llm", vision="vision")
    draft = temporary_beside(folder.absolute())
    try:
        draft.mkdir(parents=True)
        _write_config(draft, config, origin)
        _write_settings(draft / config.llm / CONFIG_NAME, llm_settings, _base_file(config.llm, origin))
        _write_settings(draft / config.vision / CONFIG_NAME, vision_settings, _base_file(config.vision, origin))
        beside_weights = origin is not None and llm_folder == origin.folder
        _copy_tokenizer(llm_folder or folder / config.llm, draft if beside_weights else draft / config.llm)
        _write_weights(draft, network, dtype, max_shard_bytes, origin)
        write_manifest(draft, [path for path in draft.rglob("*") if path.is_file()], generated_files(folder))
        _publish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot save a model to {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _inner_name(name: str, otherwise: str) -> str:
    """Return the name of a subfolder: the one in the config, unless it leads out of the checkpoint."""
    path = Path(name)
    return otherwise if path.is_absolute() or ".." in path.parts or not path.parts else name


def _base_file(name: str, origin: Origin | None) -> Path | None:
    """Return the settings file of a base model in the origin."""
    found = base_folder(name, origin.folder) if origin is not None else None
    return found / CONFIG_NAME if found is not None else None


def _write_config(draft: Path, config: ElysiumConfig, origin: Origin | None) -> None:
    """Write ``config.json``, with the keys of the origin's that this package does not know."""
    original = origin.folder / CONFIG_NAME if origin is not None else None
    raw = _read_json(original)
    if isinstance(raw, dict) and ElysiumConfig.from_dict(raw) == config:
        _write_settings(draft / CONFIG_NAME, raw, original)
        return
    content = dict(raw) if isinstance(raw, dict) else {}
    for key, value in config.to_dict().items():
        known = content.get(key)
        content[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    _write_settings(draft / CONFIG_NAME, content)


def _write_settings(path: Path, settings: dict[str, Any], original: Path | None = None) -> None:
    """Write JSON; an original file with equal content is copied, byte for byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if original is not None and _read_json(original) == settings:
        shutil.copyfile(original, path)
    else:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path | None) -> Any:
    """Return the content of a JSON file; None if it was deleted or damaged since the model was loaded."""
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _write_weights(
    folder: Path,
    network: ElysiumNetwork,
    dtype: torch.dtype | None,
    max_shard_bytes: int | None,
    origin: Origin | None,
) -> None:
    stored = origin.stored if origin is not None else {}
    weights = _saved_tensors(network)
    dtypes = {name: dtype or _stored_dtype(stored, name, tensor) for name, tensor in weights.items()}
    shards = _shards_as_before(weights, stored) if max_shard_bytes is None else {}
    shards = shards or _shards_by_size(weights, dtypes, max_shard_bytes or _DEFAULT_SHARD_BYTES)
    # One shard after the other: a second copy of all weights might not fit into memory.
    for file, names in shards.items():
        tensors = {name: _as_stored(weights[name], dtypes[name], stored.get(name)) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        # safetensors makes files that only their owner can read.
        shutil.copymode(folder / CONFIG_NAME, folder / file)
    if list(shards) == [_SINGLE]:
        return
    total = sum(weights[name].numel() * dtypes[name].itemsize for name in weights)
    places = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    original = origin.folder / _INDEX if origin is not None else None
    before = _read_json(original)
    # Other programs write more metadata; an index with the same weight map is kept as it is.
    if isinstance(before, dict) and before.get("weight_map") == places:
        index = before
    _write_settings(folder / _INDEX, index, original)


def _stored_dtype(stored: Mapping[str, StoredTensor], name: str, tensor: Tensor) -> torch.dtype:
    return stored[name].dtype if name in stored else tensor.dtype


def _shards_as_before(weights: Mapping[str, Tensor], stored: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """Return the tensor names of each weight file of the origin; nothing if its files or tensors were others."""
    shards: defaultdict[str, list[str]] = defaultdict(list)
    for name in weights:
        if name not in stored or not stored[name].file.name.startswith(SAFE_STEM):
            return {}
        shards[stored[name].file.name].append(name)
    return dict(sorted(shards.items()))


def _shards_by_size(
    weights: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], max_bytes: int
) -> dict[str, list[str]]:
    """Return the tensor names of each weight file."""
    shapes = {name: torch.empty(tensor.shape, dtype=dtypes[name], device="meta") for name, tensor in weights.items()}
    split = split_torch_state_dict_into_shards(
        shapes, filename_pattern=f"{SAFE_STEM}{{suffix}}{SAFE_ENDING}", max_shard_size=max_bytes
    )
    return split.filename_to_tensors


def _saved_tensors(network: ElysiumNetwork) -> dict[str, Tensor]:
    """Return all weights, without a head that is tied to the embeddings."""
    state = network.state_dict()
    if network.llm.size.tied:
        state.pop("llm.lm_head.weight")
    return state


def _as_stored(tensor: Tensor, dtype: torch.dtype, origin: StoredTensor | None) -> Tensor:
    """Return a weight as it is written: the original one, if the network's differs only by the rounding of its type."""
    if origin is not None and origin.dtype == dtype != tensor.dtype:
        try:
            with open_weights(origin.file) as tensors:
                original: Tensor = tensors.get_tensor(origin.key)
        except ModelFileError:
            _logger.warning("%s is gone: %s is saved as rounded to %s", origin.file, origin.key, tensor.dtype)
        else:
            if torch.equal(original.to(tensor.dtype), tensor.cpu()):
                return original
    return tensor.to("cpu", dtype).contiguous()


def _publish(draft: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(draft, folder)
        return
    files = sorted((path for path in draft.rglob("*") if path.is_file()), key=lambda path: path.name != MANIFEST_NAME)
    for file in files:
        target = folder / file.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        publish(file, target)
    written = {file.name for file in files}
    # Weight files of the model that was here before would be read together with the new ones.
    for stale in [*folder.glob(f"{SAFE_STEM}*{SAFE_ENDING}"), folder / _INDEX]:
        if stale.name not in written:
            stale.unlink(missing_ok=True)
