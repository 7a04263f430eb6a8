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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from elysium_core.checkpoint.base_settings import llm_size, vision_config
from elysium_core.checkpoint.convert_pickled import OLDEST_SAFE_TORCH, convert_in_subprocess, torch_is_safe
from elysium_core.checkpoint.fill_network import (
    EMBEDDINGS,
    check_memory,
    compare_tensors,
    fill_network,
    has_differing_head,
    shorten,
)
from elysium_core.checkpoint.integrity import MANIFEST_NAME, verify_manifest
from elysium_core.checkpoint.locations import base_settings, checkpoint_folder, tokenizer_folder
from elysium_core.checkpoint.save import Origin, save_checkpoint
from elysium_core.checkpoint.weight_files import (
    PICKLED_ENDING,
    PICKLED_STEM,
    StoredTensor,
    find_weight_files,
    read_headers,
    refuse_pointer,
)
from elysium_core.device import resolve_device
from elysium_core.errors import ModelFileError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.encoders import VisionConfig, token_shape
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_logger = logging.getLogger(__name__)
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
        unused = compare_tensors(network, stored, folder)
        if check is not None:
            check(network)
        dtype = dtype or stored[EMBEDDINGS].dtype
        check_memory(network, target, dtype)
        fill_network(network, stored, target, dtype)
        if network.llm.size.tied and has_differing_head(stored):
            _logger.warning(
                "%s holds an output head that differs from the embeddings, but its settings say tie_word_embeddings: "
                "the head is not used; to use it, set tie_word_embeddings to false in the language model's %s",
                folder,
                CONFIG_NAME,
            )
    if unused:
        _logger.warning("%s holds weights that are not part of the network: %s", folder, shorten(unused))
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


def _refuse_pointers(folder: Path) -> None:
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.suffix in _TEXT_SUFFIXES or path.name == MANIFEST_NAME:
            refuse_pointer(path)
