"""Export of what encodes crops to ONNX: ``anchor.onnx`` and ``crop.onnx``, each with its description.

Both graphs take uint8 crops and have a dynamic batch size. ``anchor.onnx`` gives the visual tokens of anchors and what
live crops are compared with; ``crop.onnx`` takes the latter beside live crops and gives their visual tokens. In every
precision, inputs and outputs other than the visual tokens are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from elysium_core.checkpoint.integrity import stale_reason, untrusted_reason
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.vision.onnx_export import INDEX_NAME, INPUT_NAME, OUTPUT_NAME
from elysium_core.vision.onnx_writer import OPSET, graph_cache, parts_hash, write_described

ANCHOR, CROP = "anchor", "crop"
"""The two graphs."""
GRAPH_NAMES: Mapping[str, str] = MappingProxyType({ANCHOR: "anchor.onnx", CROP: "crop.onnx"})
"""Their files."""
BOXES_NAME = "boxes"
COMPARED_NAMES = ("query", "cover", "pooled", "size")
"""What live crops are compared with: attributes of :class:`~elysium_core.network.target_selector.AnchorTokens`."""


@dataclass(frozen=True, slots=True)
class CropGraphDescription:
    """The description of an exported graph, stored beside it as JSON.

    Attributes:
        graph: ``anchor`` or ``crop``.
        weights: SHA-256 of weights and settings, see :func:`crop_hash`.
        precision: One of :data:`elysium_core.vision.onnx_writer.PRECISIONS`.
        side_px: Side of the square uint8 input [px].
        tokens: Visual tokens a crop.
        width: Width of a visual token.
        opset: ONNX operator set.
        layout: Version of the graph's structure; files with another one are stale.
    """

    graph: str
    weights: str
    precision: str
    side_px: int
    tokens: int
    width: int
    opset: int = OPSET
    layout: int = 1


class _Graph(nn.Module):
    """What both graphs share: the modules of the network, not copied."""

    def __init__(self, network: ElysiumNetwork) -> None:
        super().__init__()
        self._encoder, self._selector = network.crop_parts()
        self._projector = network.llm_proj
        self._transform = ImageTransform(self._selector.config.live_px, self._encoder.normalization)

    def _features(self, images: Tensor) -> Tensor:
        return self._encoder.crop_features(self._transform.normalize(images))


class AnchorGraph(_Graph):
    """From anchor crops (B, S, S, 3) uint8 and boxes (B, 4) float32 to visual tokens and what is compared."""

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        """Return visual tokens (B, K1, D) and the tensors :data:`COMPARED_NAMES`."""
        anchors = self._selector.anchor(self._features(images), boxes)
        return self._projector(anchors.tokens), *(getattr(anchors, name).float() for name in COMPARED_NAMES)


class CropGraph(_Graph):
    """From live crops (B, S, S, 3) uint8 and what they are compared with to visual tokens."""

    def forward(self, images: Tensor, query: Tensor, cover: Tensor, pooled: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Return visual tokens (B, K2, D) and the indices (B, K2) int64 of the kept cells."""
        features = self._features(images)
        compared = (part.to(features.dtype) for part in (query, cover, pooled, size))
        live = self._selector.live(features, AnchorTokens(features, *compared))
        return self._projector(live.tokens), live.index


def crop_hash(network: ElysiumNetwork) -> str:
    """Return the SHA-256 of everything that determines the visual tokens of crops: weights and settings."""
    _, selector = network.crop_parts()
    settings = {
        **network.visual_encoder.settings(),
        "crop": selector.config.to_dict(),
        "projector": network.config.projector,
    }
    return parts_hash(network, settings, ("visual_encoder", "target_selector", "llm_proj"))


def describe_crop_graphs(network: ElysiumNetwork, precision: str) -> dict[str, CropGraphDescription]:
    """Return descriptions of the graphs that :func:`export_crop_graph` would write; none without ``crop_config``."""
    crop = network.config.crop
    if crop is None:
        return {}
    weights, width = crop_hash(network), network.llm.size.width
    sizes = {ANCHOR: (crop.anchor_px, crop.anchor_tokens), CROP: (crop.live_px, crop.live_tokens)}
    return {
        graph: CropGraphDescription(graph, weights, precision, side, tokens, width)
        for graph, (side, tokens) in sizes.items()
    }


def export_crop_graphs(network: ElysiumNetwork, folder: Path, precision: str = "float32") -> list[Path]:
    """Write both graphs and their descriptions, unless current files exist that are trusted.

    Args:
        network: The network, in eval mode; it is not changed.
        folder: Folder of the files.
        precision: One of :data:`elysium_core.vision.onnx_writer.PRECISIONS`.

    Returns:
        The graphs' files; none for a model without ``crop_config``.

    Raises:
        BackendError: As :func:`elysium_core.vision.onnx_export.export_onnx`.
    """
    wanted = describe_crop_graphs(network, precision)
    return [export_crop_graph(network, folder, each) for each in wanted.values()]


def export_crop_graph(network: ElysiumNetwork, folder: Path, wanted: CropGraphDescription) -> Path:
    """Write one of the graphs, for a caller that has its description."""
    path = folder / GRAPH_NAMES[wanted.graph]
    if not (stale_reason(path, asdict(wanted)) or untrusted_reason(path)):
        return path
    images = torch.zeros(2, wanted.side_px, wanted.side_px, 3, dtype=torch.uint8)
    if wanted.graph == ANCHOR:
        graph: nn.Module = AnchorGraph(network)
        inputs = {INPUT_NAME: images, BOXES_NAME: torch.tensor([[0.25, 0.25, 0.75, 0.75]]).repeat(2, 1)}
        outputs: tuple[str, ...] = (OUTPUT_NAME, *COMPARED_NAMES)
    else:
        graph = CropGraph(network)
        inputs = {INPUT_NAME: images, **_compared_examples(network)}
        outputs = (OUTPUT_NAME, INDEX_NAME)
    return write_described(path, asdict(wanted), graph, inputs, outputs)


def _compared_examples(network: ElysiumNetwork) -> dict[str, Tensor]:
    config = network.crop_parts()[1].config
    cells = config.anchor_cells**2
    shapes = ((cells, config.match), (cells,), (config.match,), (2,))
    return {name: torch.zeros(2, *shape) for name, shape in zip(COMPARED_NAMES, shapes, strict=True)}


def crop_cache_folder(wanted: CropGraphDescription) -> Path:
    """Return the folder of both graphs in the user's cache: :func:`.onnx_writer.graph_cache`."""
    return graph_cache(wanted.weights, wanted.precision)
