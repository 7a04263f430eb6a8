"""The vision half of a model as one ONNX graph: bytes in, visual tokens out.

Normalisation, vision encoder (without the layers that are never used), token adapter
and projector are one graph with a dynamic number of images. Beside each file lies a
description that says which weights it was made from; a file is used only if that
still holds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from elysium_core.errors import BackendError
from elysium_core.io.files import atomic_path
from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.image_transform import ImageTransform
from elysium_core.model.token_selector import TokenSelector

INPUT_NAME = "images"
OUTPUT_NAME = "visual_tokens"
INDEX_NAME = "kept_index"
ONNX_NAME = "vision.onnx"
_OPSET = 18


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """What an exported graph was made from; stored beside it as JSON.

    Attributes:
        weights: SHA-256 of the vision half's weights.
        precision: ``float32`` or ``float16``.
        side_px: Side of the square uint8 input [px].
        tokens: Visual tokens a frame.
        width: Width of a visual token.
        selects: Whether the indices of the kept patches are a second output.
        opset: ONNX operator set.
        layout: Raised whenever the graph itself changes, so that files of older versions are not taken for current.
    """

    weights: str
    precision: str
    side_px: int
    tokens: int
    width: int
    selects: bool
    opset: int = _OPSET
    layout: int = 1


class VisionGraph(nn.Module):
    """The module that is exported.

    Args:
        network: The model; its vision half is used as it is, shared, not copied.
    """

    def __init__(self, network: ElysiumNetwork) -> None:
        super().__init__()
        self._encoder = network.visual_encoder
        self._adapter = network.adapter
        self._projector = network.llm_proj
        self._transform = ImageTransform(network.visual_encoder.side_px)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, S, S, 3) uint8 to visual tokens (B, K, D) and, for a T-Selector, indices (B, K) int64."""
        patches = self._encoder(self._transform.normalize(images))
        if isinstance(self._adapter, TokenSelector):
            kept, kept_index, _ = self._adapter(patches)
            return self._projector(kept), kept_index
        return (self._projector(self._adapter.adapt(patches)),)


def describe_graph(network: ElysiumNetwork, precision: str) -> GraphDescription:
    """Describe the graph that :func:`export_onnx` would write for this network."""
    return GraphDescription(
        weights=vision_hash(network),
        precision=precision,
        side_px=network.visual_encoder.side_px,
        tokens=network.config.adapter.out_token_num,
        width=network.llm.size.width,
        selects=isinstance(network.adapter, TokenSelector),
    )


def vision_hash(network: ElysiumNetwork) -> str:
    """SHA-256 of names, shapes and values of the vision half's weights."""
    digest = hashlib.sha256()
    for part in ("visual_encoder", "adapter", "llm_proj"):
        for name, tensor in getattr(network, part).state_dict().items():
            digest.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def export_onnx(network: ElysiumNetwork, folder: Path, precision: str = "float32") -> Path:
    """Write ``vision.onnx`` and its description, unless they are there and current.

    Args:
        network: The model; must be in eval mode.
        folder: Where to.
        precision: ``float32`` or ``float16``: the data type of the graph's arithmetic.

    Returns:
        The graph's file.

    Raises:
        BackendError: The packages of the ``onnx`` extra are missing, or the export failed.
    """
    if precision not in ("float32", "float16"):
        raise BackendError(f"precision {precision!r} cannot be exported, only float32 and float16", code="EXPORT")
    path, wanted = folder / ONNX_NAME, describe_graph(network, precision)
    if path.exists() and read_description(path) == asdict(wanted):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        _export(network, temporary, precision)
    write_description(path, asdict(wanted))
    return path


def _export(network: ElysiumNetwork, path: Path, precision: str) -> None:
    graph = VisionGraph(network).eval()
    if next(graph.parameters()).dtype != getattr(torch, precision):
        # The caller's network must stay as it is, so a copy is converted.
        graph = copy.deepcopy(graph).to(getattr(torch, precision))
    side = network.visual_encoder.side_px
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8, device=next(graph.parameters()).device)
    names = [OUTPUT_NAME, INDEX_NAME] if isinstance(network.adapter, TokenSelector) else [OUTPUT_NAME]
    try:
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=64)}},
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    except ImportError as error:
        raise BackendError(
            f"ONNX export needs the package {error.name!r}; install with: pip install 'elysium-ros[onnx]'",
            code="EXPORT",
        ) from error
    except Exception as error:
        raise BackendError(f"the vision encoder could not be exported to ONNX: {error}", code="EXPORT") from error


def read_description(path: Path) -> dict[str, object] | None:
    """The description beside a graph or engine, None when there is none that can be read."""
    try:
        found = json.loads(_description_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_description(path: Path, description: dict[str, object]) -> None:
    """Write the description beside a graph or engine."""
    with atomic_path(_description_path(path)) as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _description_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def cache_folder(network: ElysiumNetwork) -> Path:
    """Where graphs and engines of this network are kept: a user's cache, one folder a set of weights."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "elysium" / vision_hash(network)[:16]
