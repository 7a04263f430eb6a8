"""From stored tensors to the weights of a network: compared by name and shape, then copied one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from elysium_core.checkpoint.weight_files import DTYPES, StoredTensor, open_weights
from elysium_core.device import dtype_name, free_bytes
from elysium_core.errors import ModelFileError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.model_config import CONFIG_NAME

EMBEDDINGS = "llm.model.embed_tokens.weight"
"""Name of the embeddings of the language model."""
_HEAD = "llm.lm_head.weight"
_LONGEST_LIST = 20


def compare_tensors(network: ElysiumNetwork, stored: dict[str, StoredTensor], folder: Path) -> list[str]:
    """Compare the stored tensors with a network, by name, type and shape.

    Args:
        network: The network.
        stored: The stored tensors, by name in the network.
        folder: Folder of the model, for messages.

    Returns:
        The stored keys that are not part of the network.

    Raises:
        ModelFileError: A tensor is missing, of a type that cannot be read, or of another shape.
    """
    expected = _learned_tensors(network)
    missing = [name for name in expected if name not in stored]
    if missing:
        raise ModelFileError(f"the weights in {folder} lack {shorten(missing)}{_where_they_are(missing, stored)}")
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
        raise ModelFileError(f"the weights in {folder} do not fit its {CONFIG_NAME}: {shorten(wrong)}")
    known = {*expected, _HEAD}
    return [tensor.key for name, tensor in stored.items() if name not in known]


def _where_they_are(missing: list[str], stored: dict[str, StoredTensor]) -> str:
    """Return a remedy if the missing weights are stored in another form; an empty string if they are not."""
    if any(".lora_A." in name or ".lora_B." in name for name in stored):
        return "; they are those of a LoRA: merge it into its base model first"
    ends = [name.removesuffix(missing[0]) for name in stored if name.endswith("." + missing[0])]
    prefixes = [prefix for prefix in ends if all(prefix + name in stored for name in missing)]
    return f"; they are there under the prefix {prefixes[0]!r}: remove it from the names" if prefixes else ""


def has_differing_head(stored: dict[str, StoredTensor]) -> bool:
    """Return whether the files hold an output head that is not the embeddings."""
    if _HEAD not in stored:
        return False
    head, embeddings = stored[_HEAD], stored[EMBEDDINGS]
    if head.shape != embeddings.shape or not head.is_weight:
        return True
    with open_weights(head.file) as of_head, open_weights(embeddings.file) as of_embeddings:
        return not torch.equal(of_head.get_tensor(head.key), of_embeddings.get_tensor(embeddings.key))


def _learned_tensors(network: ElysiumNetwork) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint must hold; a head that is tied to the embeddings is not stored."""
    state = network.state_dict()
    if network.llm.size.tied:
        state.pop(_HEAD)
    return state


def check_memory(network: ElysiumNetwork, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a network whose weights do not fit into the free memory of a device.

    Raises:
        ModelFileError: They do not (``MODEL_MEMORY``).
    """
    needed = sum(tensor.numel() for tensor in _learned_tensors(network).values()) * dtype.itemsize
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ModelFileError(
            f"the weights need {needed >> 20} MiB as {dtype_name(dtype)}, "
            f"{free >> 20} MiB are free on {device}; choose a smaller dtype, another device or a smaller model",
            code="MODEL_MEMORY",
        )


def fill_network(
    network: ElysiumNetwork, stored: dict[str, StoredTensor], device: torch.device, dtype: torch.dtype
) -> None:
    """Copy the stored tensors into a network on the meta device, one after the other.

    Args:
        network: The network; its shapes have been compared with the stored ones.
        stored: The stored tensors, by name in the network.
        device: Device of the weights.
        dtype: Data type of the weights.
    """
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


def shorten(names: Iterable[str]) -> str:
    """Join names by commas, at most 20 of them."""
    listed = list(names)
    more = len(listed) - _LONGEST_LIST
    return ", ".join(listed[:_LONGEST_LIST]) + (f" and {more} more" if more > 0 else "")
