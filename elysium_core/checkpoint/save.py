"""Writing a checkpoint: the published layout, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from elysium_core.checkpoint.integrity import MANIFEST_NAME, write_manifest
from elysium_core.checkpoint.locations import TOKENIZER_FILES, base_folder
from elysium_core.checkpoint.weight_files import SAFE_ENDING, SAFE_STEM, StoredTensor, open_weights
from elysium_core.errors import ModelFileError
from elysium_core.io.files import temporary_beside
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig

_logger = logging.getLogger(__name__)

_SINGLE = f"{SAFE_STEM}{SAFE_ENDING}"
_INDEX = f"{_SINGLE}.index.json"
_DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Origin:
    """The files a model was loaded from: saved unchanged, it becomes the same files again.

    Attributes:
        folder: The checkpoint's folder.
        stored: Its weights, by the names of the network.
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
    """Write a checkpoint that :func:`~elysium_core.checkpoint.checkpoint.load_checkpoint` reads.

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
        dtype: What the weights are stored as; by default as in the origin, else as they are.
        max_shard_bytes: Largest weight file; a single tensor may exceed it. By default the
            weights are divided as in the origin, else into files of 5 GB.
        llm_folder: Where the tokenizer files are copied from; by default they are expected
            in the target folder already, or are added later.
        origin: What the model was loaded from. Settings that still say the same are copied
            as they are, with the keys that only others read.

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
        write_manifest(draft, [path for path in draft.rglob("*") if path.is_file()])
        _publish(draft, folder)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot save a model to {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _inner_name(name: str, otherwise: str) -> str:
    """A name below the checkpoint's folder: the one in the config, unless it leads out."""
    path = Path(name)
    return otherwise if path.is_absolute() or ".." in path.parts or not path.parts else name


def _base_file(name: str, origin: Origin | None) -> Path | None:
    """The settings that the origin has under the name of a base model."""
    found = base_folder(name, origin.folder) if origin is not None else None
    return found / CONFIG_NAME if found is not None else None


def _write_config(draft: Path, config: ElysiumConfig, origin: Origin | None) -> None:
    """Write ``config.json`` with what the origin's says beyond this package's settings."""
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
    """Write JSON; a file that says exactly this already is copied, byte for byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if original is not None and _read_json(original) == settings:
        shutil.copyfile(original, path)
    else:
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path | None) -> Any:
    """Content of a file that may have gone or changed since the model was loaded."""
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
    dtypes = {name: dtype or _stored_dtype(stored, name, tensor) for name, tensor in network.state_dict().items()}
    shards = _shards_as_before(network, stored) if max_shard_bytes is None else {}
    shards = shards or _shards_by_size(network, dtypes, max_shard_bytes or _DEFAULT_SHARD_BYTES)
    for name, shard in shards.items():
        _write_shard(folder / name, shard, dtypes, stored)
    if list(shards) == [_SINGLE]:
        return
    total = sum(_stored_bytes(tensor, dtypes[key]) for shard in shards.values() for key, tensor in shard.items())
    places = {key: name for name, shard in shards.items() for key in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    original = origin.folder / _INDEX if origin is not None else None
    before = _read_json(original)
    # Other programs count other things beside the size; where every tensor lies is what must be true.
    if isinstance(before, dict) and before.get("weight_map") == places:
        index = before
    _write_settings(folder / _INDEX, index, original)


def _stored_dtype(stored: Mapping[str, StoredTensor], name: str, tensor: Tensor) -> torch.dtype:
    return stored[name].dtype if name in stored else tensor.dtype


def _shards_as_before(network: ElysiumNetwork, stored: Mapping[str, StoredTensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each weight file of the origin; nothing if it had other files or other tensors."""
    shards: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in _saved_tensors(network):
        if name not in stored or not stored[name].file.name.startswith(SAFE_STEM):
            return {}
        shards[stored[name].file.name][name] = tensor
    return dict(sorted(shards.items()))


def _shards_by_size(
    network: ElysiumNetwork, dtypes: Mapping[str, torch.dtype], max_bytes: int
) -> dict[str, dict[str, Tensor]]:
    """The tensors of each weight file, none larger than it may be."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in _saved_tensors(network):
        if shards[-1] and size + _stored_bytes(tensor, dtypes[name]) > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += _stored_bytes(tensor, dtypes[name])
    if len(shards) == 1:
        return {_SINGLE: shards[0]}
    return {f"{SAFE_STEM}-{n:05d}-of-{len(shards):05d}{SAFE_ENDING}": shard for n, shard in enumerate(shards, 1)}


def _saved_tensors(network: ElysiumNetwork) -> Iterator[tuple[str, Tensor]]:
    """All weights, apart from a head that is tied to the embeddings."""
    for name, tensor in network.state_dict().items():
        if name != "llm.lm_head.weight" or not network.llm.size.tied:
            yield name, tensor


def _stored_bytes(tensor: Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * dtype.itemsize


def _write_shard(
    path: Path, shard: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], stored: Mapping[str, StoredTensor]
) -> None:
    tensors = {name: _as_stored(tensor, dtypes[name], stored.get(name)) for name, tensor in shard.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors makes files that only their owner can read; the other files show what the user wants.
    shutil.copymode(path.parent / CONFIG_NAME, path)


def _as_stored(tensor: Tensor, dtype: torch.dtype, origin: StoredTensor | None) -> Tensor:
    """A weight as it is written: the origin's, if it differs in nothing but what its data type has rounded off."""
    if origin is not None and origin.dtype == dtype != tensor.dtype:
        try:
            with open_weights(origin.file) as tensors:
                original: Tensor = tensors.get_tensor(origin.key)
        except ModelFileError:
            _logger.warning("%s has gone, so %s is saved as %s has rounded it", origin.file, origin.key, tensor.dtype)
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
        os.replace(file, target)
    written = {file.name for file in files}
    # Weights of an earlier, larger or smaller model would be found beside the new ones.
    for stale in [*folder.glob(f"{SAFE_STEM}*{SAFE_ENDING}"), folder / _INDEX]:
        if stale.name not in written:
            stale.unlink(missing_ok=True)
