"""What a forward pass keeps for the backward pass, measured with fake tensors: shapes and types without memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from elysium_core.network.elysium_network import ElysiumNetwork


def make_fake(network: ElysiumNetwork) -> None:
    """Replace weights without memory by fake ones on a CPU; to be called in a ``FakeTensorMode``."""
    made: dict[int, nn.Parameter] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a batch.

    Attributes:
        rows: Samples.
        frames: Frames of all samples.
        tokens: Tokens of the longest sample.
        answers: Tokens of all answers.
    """

    rows: int
    frames: int
    tokens: int
    answers: int


def activation_bytes(network: ElysiumNetwork, shape: Shape, autocast: torch.dtype | None, *, again: bool) -> int:
    """Return the size of what a forward pass keeps for the backward pass; to be called with fake tensors.

    Args:
        network: The network, whose trained weights require gradients.
        shape: Sizes of the batch.
        autocast: Type that matrices are cast to in the computation; None = that of the weights.
        again: Whether the activations inside a layer are computed again in the backward pass.
    """
    kept = _Kept(network)
    hooks = [hook for layer in layers_of(network) for hook in kept.watch(layer)]
    casting = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    try:
        with torch.autograd.graph.saved_tensors_hooks(kept.save, _same), casting:
            _forward(network, shape)
    finally:
        for hook in hooks:
            hook.remove()
    return kept.total(again=again)


def _forward(network: ElysiumNetwork, shape: Shape) -> Tensor:
    """The forward pass of :class:`elysium_core.training.finetune.base_model.FineTuneModel`, without its data."""
    size, llm = network.visual_encoder.side_px, network.llm
    weight = llm.model.embed_tokens.weight
    visual = network.encode_frames(torch.zeros(shape.frames, 3, size, size, dtype=weight.dtype))
    ids = torch.zeros(shape.rows, shape.tokens, dtype=torch.long)
    embedded = llm.embed(ids)
    slots = torch.zeros(shape.rows, shape.tokens, 1, dtype=torch.bool)
    embedded = embedded.masked_scatter(slots, visual.to(embedded.dtype))
    mask = torch.ones(shape.rows, 1, shape.tokens, shape.tokens, dtype=torch.bool)
    hidden, _ = llm(embedded, ids, mask)
    places = torch.zeros(shape.answers, dtype=torch.long)
    logits = llm.logits(hidden.flatten(0, 1)[places])
    return F.cross_entropy(logits, places)


class _Kept:
    """What is saved for the backward pass, by the layer that saves it; weights are left out."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = {_place(parameter) for parameter in network.parameters()}
        self._layer = -1
        self._layers = 0
        self._saved: dict[int, tuple[int, Tensor]] = {}
        self._inputs: dict[int, int] = {}

    def watch(self, layer: nn.Module) -> tuple[Any, Any]:
        """Note what a layer saves and is given."""
        number = self._layers
        self._layers += 1
        enter: Callable[..., None] = partial(self._enter, number)
        return layer.register_forward_pre_hook(enter), layer.register_forward_hook(self._leave)

    def _enter(self, number: int, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._layer = number
        hidden = inputs[0]
        self._inputs[number] = hidden.numel() * hidden.element_size()

    def _leave(self, *_: Any) -> None:
        self._layer = -1

    def save(self, tensor: Tensor) -> Tensor:
        """Note a saved tensor; tensors that share memory count once."""
        if (place := _place(tensor)) not in self._weights:
            self._saved.setdefault(place, (self._layer, tensor))
        return tensor

    def total(self, *, again: bool) -> int:
        """Bytes of all; with ``again`` those of the largest layer only, and the inputs of the others."""
        by_layer = {-1: 0}
        for layer, tensor in self._saved.values():
            by_layer[layer] = by_layer.get(layer, 0) + tensor.untyped_storage().nbytes()
        outside = by_layer.pop(-1)
        if not again:
            return outside + sum(by_layer.values())
        inputs = sum(self._inputs[layer] for layer in by_layer)
        return outside + inputs + max(by_layer.values(), default=0)


def _place(tensor: Tensor) -> int:
    reference: Callable[[torch.UntypedStorage], Any] = StorageWeakRef
    return int(reference(tensor.untyped_storage()).cdata)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def layers_of(network: ElysiumNetwork) -> list[nn.Module]:
    """The layers of vision encoder and language model that can be computed again in the backward pass."""
    return [*network.visual_encoder.layers(), *network.llm.model.layers]
