"""Loading a model from a checkpoint of the published layout, and saving it.

A checkpoint is a folder::

    config.json                        settings of the model
    model.safetensors                  all weights; or model-00001-of-00003.safetensors ... with an index
    <llm>/config.json, tokenizer.json  sizes and tokenizer of the language model
    <vision>/config.json               sizes of the vision encoder
    SHA256SUMS                         optional: hashes of the files

``config.json`` names ``<llm>`` and ``<vision>``: folders, or ids of the Hugging Face hub that
are looked up in the local cache.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.checkpoint.base_settings import llm_size, vision_config
from elysium_core.checkpoint.convert_pickled import OLDEST_SAFE_TORCH, convert_in_subprocess, torch_is_safe
from elysium_core.checkpoint.integrity import MANIFEST_NAME, verify_manifest
from elysium_core.checkpoint.locations import base_settings, checkpoint_folder, tokenizer_folder
from elysium_core.checkpoint.save import Origin, save_checkpoint
from elysium_core.checkpoint.weight_files import (
    DTYPES,
    PICKLED_ENDING,
    PICKLED_STEM,
    StoredTensor,
    find_weight_files,
    open_weights,
    read_headers,
    refuse_pointer,
)
from elysium_core.device import dtype_name, free_bytes, resolve_device
from elysium_core.errors import ModelFileError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.encoders import VisionConfig, token_shape
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_logger = logging.getLogger(__name__)
_EMBEDDINGS = "llm.model.embed_tokens.weight"
_HEAD = "llm.lm_head.weight"
_LONGEST_LIST = 20
_TEXT_SUFFIXES = (".json", ".model")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model and the files it comes from.

    Attributes:
        network: The network, in evaluation mode.
        config: Its settings.
        llm_folder: Folder of its tokenizer.
        name: The name or path it was loaded by.
        folder: Folder of the checkpoint.
        llm_settings: ``config.json`` of the language model.
        vision_settings: ``config.json`` of the vision encoder.
        unused_keys: Names of stored tensors that are not part of the network.
        stored: File, name and data type of each weight, by its name in the network.
    """

    network: ElysiumNetwork
    config: ElysiumConfig
    llm_folder: Path
    name: str
    folder: Path
    llm_settings: dict[str, Any]
    vision_settings: dict[str, Any]
    unused_keys: tuple[str, ...] = ()
    stored: Mapping[str, StoredTensor] = field(default_factory=dict)

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int | None = None) -> None:
        """Save the model in the layout it was loaded from. What has not changed is saved as the same bytes.

        Args:
            folder: The folder to write. It is self-contained, and a save that fails leaves nothing behind.
            dtype: Data type of the stored weights; by default that of the loaded files.
            max_shard_bytes: Largest weight file [bytes]; by default the weights are divided as in the loaded files.

        Raises:
            ModelFileError: The folder cannot be written.
        """
        save_checkpoint(
            folder,
            self.network,
            self.config,
            self.llm_settings,
            self.vision_settings,
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
            llm_folder=self.llm_folder,
            origin=Origin(self.folder, self.stored),
        )


def load_checkpoint(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    allow_pickle_weights: bool = False,
    manifest: Path | None = None,
    verify_hashes: bool = True,
    check: Callable[[ElysiumNetwork], None] | None = None,
) -> Checkpoint:
    """Load a model from local files.

    Names and shapes are checked before memory is allocated. Tensors are then loaded one
    by one, so that there is never a second copy of the model in memory.

    Args:
        name_or_path: ``real``, ``nano``, a folder, or the id of a hub model that was pulled.
        device: Device of the weights.
        dtype: Data type of the weights; by default that of the stored embeddings of the LLM.
        allow_pickle_weights: Also read ``pytorch_model*.bin`` if there are no safetensors.
            They are converted in a separate process; only for files from people you trust.
        manifest: File of hashes; by default ``SHA256SUMS`` in the folder, if there is one.
        verify_hashes: Compare the files with the manifest.
        check: Called with the network on the meta device (shapes without memory) before
            any weight is read; it may raise to refuse the model.

    Raises:
        ModelFileError: A file is missing or damaged (``MODEL_FILE``), differs from the manifest
            (``MODEL_HASH``) or could run code (``MODEL_UNSAFE``), or the model does not fit into
            memory (``MODEL_MEMORY``).
        BackendError: There is no such device (``DEVICE``).
    """
    target = resolve_device(device)
    folder = checkpoint_folder(name_or_path)
    _refuse_pointers(folder)
    config = ElysiumConfig.from_file(folder / CONFIG_NAME)
    vision_settings, vision_source = base_settings(config.vision, folder)
    llm_settings, llm_source = base_settings(config.llm, folder)
    network = _empty_network(config, vision_config(vision_settings, vision_source), llm_size(llm_settings, llm_source))
    llm_folder = tokenizer_folder(config.llm, folder)
    with safe_weight_files(folder, allow_pickle_weights) as (originals, files):
        if manifest is None and os.path.lexists(folder / MANIFEST_NAME):
            manifest = folder / MANIFEST_NAME
        if manifest is not None and verify_hashes:
            verify_manifest(manifest, folder, originals)
        stored = read_headers(files)
        unused = _compare(network, stored, folder)
        if check is not None:
            check(network)
        dtype = dtype or stored[_EMBEDDINGS].dtype
        _check_memory(network, target, dtype)
        _fill(network, stored, target, dtype)
        if network.llm.size.tied and _differing_head(stored):
            _logger.warning(
                "%s holds an output head that differs from the embeddings, but its settings say tie_word_embeddings: "
                "the head is not used; to use it, set tie_word_embeddings to false in the language model's %s",
                folder,
                CONFIG_NAME,
            )
    if unused:
        _logger.warning("%s holds weights that are not part of the network: %s", folder, _shorten(unused))
    return Checkpoint(
        network=network.eval(),
        config=config,
        llm_folder=llm_folder,
        name=str(name_or_path),
        folder=folder,
        llm_settings=llm_settings,
        vision_settings=vision_settings,
        unused_keys=tuple(unused),
        stored=stored,
    )


def _empty_network(config: ElysiumConfig, vision: VisionConfig, llm: LlamaSize) -> ElysiumNetwork:
    """Build the network on the meta device: shapes without memory."""
    adapter, (patches, width) = config.adapter, token_shape(vision)
    if (adapter.in_token_num, adapter.num_features) != (patches, width):
        raise ModelFileError(
            f"adapter_config says {adapter.in_token_num} tokens of width {adapter.num_features}, but the vision "
            f"encoder {config.vision!r} gives {patches} of width {width}"
        )
    try:
        with torch.device("meta"):
            return ElysiumNetwork(config, vision, llm)
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"{CONFIG_NAME} describes a model that cannot be built: {error}") from error


@contextmanager
def safe_weight_files(folder: Path, allow_pickle: bool) -> Iterator[tuple[list[Path], list[Path]]]:
    """Yield the weight files as stored, and as safetensors; converted files exist only inside the block.

    Args:
        folder: Folder of the model.
        allow_pickle: Whether pickled weights are converted, in a separate process.

    Raises:
        ModelFileError: There are no weights, or pickled ones that are not allowed or not safe to read.
    """
    files = find_weight_files(folder)
    if files:
        yield files, files
        return
    pickled = find_weight_files(folder, PICKLED_STEM, PICKLED_ENDING)
    if not pickled:
        raise ModelFileError(f"{folder} holds no weights (model*.safetensors); fetch the model again")
    if not allow_pickle:
        raise ModelFileError(
            f"{pickled[0]} is a pickle, which can run code when it is read; use a model with safetensors files, or, "
            "if you trust its author, set allow_pickle_weights=True (on the command line: --allow-pickle-weights; "
            "in the node: model.allow_pickle_weights; in a recipe: base.allow_pickle_weights)",
            code="MODEL_UNSAFE",
        )
    if not torch_is_safe(torch.__version__):
        raise ModelFileError(
            f"torch {torch.__version__} can be made to run code by crafted .bin files; reading {pickled[0]} needs "
            f"torch {'.'.join(map(str, OLDEST_SAFE_TORCH))} or newer",
            code="MODEL_UNSAFE",
        )
    with tempfile.TemporaryDirectory(prefix="elysium-weights-") as converted:
        yield pickled, convert_in_subprocess(pickled, Path(converted))


def _compare(network: ElysiumNetwork, stored: dict[str, StoredTensor], folder: Path) -> list[str]:
    """Check names and shapes; return the stored keys that are not part of the network."""
    expected = _learned_tensors(network)
    missing = [name for name in expected if name not in stored]
    if missing:
        raise ModelFileError(f"the weights in {folder} lack {_shorten(missing)}{_where_they_are(missing, stored)}")
    others = [stored[name] for name in expected if not stored[name].is_weight]
    if others:
        raise ModelFileError(
            f"{others[0].file} stores {others[0].key} as {others[0].type_name}; only {', '.join(DTYPES)} can be read"
        )
    wrong = [
        f"{name} {list(stored[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if stored[name].shape != tuple(tensor.shape)
    ]
    if wrong:
        raise ModelFileError(f"the weights in {folder} do not fit its {CONFIG_NAME}: {_shorten(wrong)}")
    known = {*expected, _HEAD}
    return [tensor.key for name, tensor in stored.items() if name not in known]


def _where_they_are(missing: list[str], stored: dict[str, StoredTensor]) -> str:
    """Return a remedy if the missing weights are stored in another form; an empty string if they are not."""
    if any(".lora_A." in name or ".lora_B." in name for name in stored):
        return "; they are those of a LoRA: merge it into its base model first"
    ends = [name.removesuffix(missing[0]) for name in stored if name.endswith("." + missing[0])]
    prefixes = [prefix for prefix in ends if all(prefix + name in stored for name in missing)]
    return f"; they are there under the prefix {prefixes[0]!r}: remove it from the names" if prefixes else ""


def _differing_head(stored: dict[str, StoredTensor]) -> bool:
    """Return whether the files hold an output head that is not the embeddings."""
    if _HEAD not in stored:
        return False
    head, embeddings = stored[_HEAD], stored[_EMBEDDINGS]
    if head.shape != embeddings.shape or not head.is_weight:
        return True
    with open_weights(head.file) as of_head, open_weights(embeddings.file) as of_embeddings:
        return not torch.equal(of_head.get_tensor(head.key), of_embeddings.get_tensor(embeddings.key))


def _refuse_pointers(folder: Path) -> None:
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.suffix in _TEXT_SUFFIXES or path.name == MANIFEST_NAME:
            refuse_pointer(path)


def _learned_tensors(network: ElysiumNetwork) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint must hold; a head that is tied to the embeddings is not stored."""
    state = network.state_dict()
    if network.llm.size.tied:
        state.pop(_HEAD)
    return state


def _check_memory(network: ElysiumNetwork, device: torch.device, dtype: torch.dtype) -> None:
    needed = sum(tensor.numel() for tensor in _learned_tensors(network).values()) * dtype.itemsize
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ModelFileError(
            f"the weights need {needed >> 20} MiB as {dtype_name(dtype)}, "
            f"{free >> 20} MiB are free on {device}; choose a smaller dtype, another device or a smaller model",
            code="MODEL_MEMORY",
        )


def _fill(network: ElysiumNetwork, stored: dict[str, StoredTensor], device: torch.device, dtype: torch.dtype) -> None:
    by_file: defaultdict[Path, list[str]] = defaultdict(list)
    for name in _learned_tensors(network):
        by_file[stored[name].file].append(name)
    for file, names in by_file.items():
        with open_weights(file) as tensors:
            for name in names:
                # A copy: the original may be a view of the file, and the file may change.
                weight = tensors.get_tensor(stored[name].key).to(device, dtype, copy=True)
                _assign(network, name, weight)
    if network.llm.size.tied:
        network.llm.lm_head.weight = network.llm.model.embed_tokens.weight
    network.visual_encoder.make_buffers(device)


def _assign(network: nn.Module, name: str, weight: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    module = network.get_submodule(owner)
    # The statistics of a batch norm are stored, but are no parameters.
    setattr(module, attribute, weight if attribute in dict(module.named_buffers()) else nn.Parameter(weight))


def _shorten(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _LONGEST_LIST
    return ", ".join(listed[:_LONGEST_LIST]) + (f" and {more} more" if more > 0 else "")
