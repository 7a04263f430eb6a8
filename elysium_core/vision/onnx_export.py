"""Export of the vision encoder to ONNX: one graph from uint8 images to visual tokens.

The graph has normalisation, vision encoder (without unused layers), token adapter and projector,
and a dynamic batch size. A description beside the file says which weights it was made from; a
file with other weights is stale and not used (:mod:`elysium_core.checkpoint.integrity`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from elysium_core.checkpoint.integrity import stale_reason, untrusted_reason
from elysium_core.network.adapters import SelectingAdapter
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.vision.onnx_writer import OPSET, graph_cache, parts_hash, write_described

INPUT_NAME = "images"
OUTPUT_NAME = "visual_tokens"
INDEX_NAME = "kept_index"
ONNX_NAME = "vision.onnx"


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """The description of an exported graph, stored beside it as JSON.

    Attributes:
        weights: SHA-256 of weights and settings, see :func:`vision_hash`.
        precision: One of :data:`elysium_core.vision.onnx_writer.PRECISIONS`.
        side_px: Side of the square uint8 input [px].
        tokens: Visual tokens a frame.
        width: Width of a visual token.
        selects: Whether the indices of the kept tokens are a second output.
        opset: ONNX operator set.
        layout: Version of the graph's structure; files with another one are stale.
    """

    weights: str
    precision: str
    side_px: int
    tokens: int
    width: int
    selects: bool
    opset: int = OPSET
    layout: int = 1


class VisionGraph(nn.Module):
    """The module that is exported: from images to visual tokens.

    Args:
        network: The network, whose modules are shared, not copied.
    """

    def __init__(self, network: ElysiumNetwork) -> None:
        super().__init__()
        self._encoder = network.visual_encoder
        self._adapter = network.adapter
        self._projector = network.llm_proj
        self._transform = ImageTransform(network.visual_encoder.side_px, network.visual_encoder.normalization)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn images (B, S, S, 3) uint8 into visual tokens (B, K, D) and, for a T-Selector, indices (B, K) int64."""
        patches = self._encoder(self._transform.normalize(images))
        if isinstance(self._adapter, SelectingAdapter):
            kept, kept_index, _ = self._adapter(patches)
            return self._projector(kept), kept_index
        return (self._projector(self._adapter.adapt(patches)),)


def describe_graph(network: ElysiumNetwork, precision: str) -> GraphDescription:
    """Return the description of the graph that :func:`export_onnx` would write."""
    return GraphDescription(
        weights=vision_hash(network),
        precision=precision,
        side_px=network.visual_encoder.side_px,
        tokens=network.config.adapter.out_token_num,
        width=network.llm.size.width,
        selects=isinstance(network.adapter, SelectingAdapter),
    )


def vision_hash(network: ElysiumNetwork) -> str:
    """Return the SHA-256 of everything that determines the visual tokens of a frame: weights and settings."""
    settings = {
        **network.visual_encoder.settings(),
        "adapter": network.config.adapter.type,
        "projector": network.config.projector,
    }
    return parts_hash(network, settings, ("visual_encoder", "adapter", "llm_proj"))


def export_onnx(network: ElysiumNetwork, folder: Path, precision: str = "float32") -> Path:
    """Write ``vision.onnx`` and its description, unless a current file exists that is trusted.

    Args:
        network: The network, in eval mode; it is not changed.
        folder: Folder of the file.
        precision: One of :data:`elysium_core.vision.onnx_writer.PRECISIONS`.

    Returns:
        The graph's file.

    Raises:
        BackendError: The packages of the ``onnx`` extra are missing, the export failed, or
            the folder cannot be written (``EXPORT``).
    """
    return export_described(network, folder, describe_graph(network, precision))


def export_described(network: ElysiumNetwork, folder: Path, wanted: GraphDescription) -> Path:
    """Do what :func:`export_onnx` does, for a caller that has the description: hashing the weights takes seconds."""
    path = folder / ONNX_NAME
    if not (stale_reason(path, asdict(wanted)) or untrusted_reason(path)):
        return path
    example = torch.zeros(2, wanted.side_px, wanted.side_px, 3, dtype=torch.uint8)
    outputs = (OUTPUT_NAME, INDEX_NAME) if wanted.selects else (OUTPUT_NAME,)
    return write_described(path, asdict(wanted), VisionGraph(network), {INPUT_NAME: example}, outputs)


def cache_folder(wanted: GraphDescription) -> Path:
    """Return the folder of a graph and its engines in the user's cache: :func:`.onnx_writer.graph_cache`."""
    return graph_cache(wanted.weights, wanted.precision)
