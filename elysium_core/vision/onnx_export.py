"""Export of the vision encoder to ONNX: one graph from uint8 images to visual tokens.

The graph has normalisation, vision encoder (without unused layers), token adapter and projector,
and a dynamic batch size. A description beside the file says which weights it was made from; a
file with other weights is stale and not used (:mod:`elysium_core.checkpoint.integrity`).
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.checkpoint.integrity import described_file, stale_reason
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.token_selector import TokenSelector

INPUT_NAME = "images"
OUTPUT_NAME = "visual_tokens"
INDEX_NAME = "kept_index"
ONNX_NAME = "vision.onnx"
PRECISIONS = ("float32", "float16", "bfloat16")
"""Data types of a graph. TensorRT supports all of them, ONNX Runtime on a CPU does not support bfloat16."""

_OPSET = 18
_MAX_BATCH = 64
_NEEDED_PACKAGES = ("onnx", "onnxscript")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """The description of an exported graph, stored beside it as JSON.

    Attributes:
        weights: SHA-256 of weights and settings, see :func:`vision_hash`.
        precision: One of :data:`PRECISIONS`.
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
    opset: int = _OPSET
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
        self._transform = ImageTransform(network.visual_encoder.side_px)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn images (B, S, S, 3) uint8 into visual tokens (B, K, D) and, for a T-Selector, indices (B, K) int64."""
        patches = self._encoder(self._transform.normalize(images))
        if isinstance(self._adapter, TokenSelector):
            kept, kept_index, _ = self._adapter(patches)
            return self._projector(kept), kept_index
        return (self._projector(self._adapter.adapt(patches)),)


def check_export(precision: str) -> None:
    """Refuse an export that cannot succeed. Called before weights are loaded.

    Raises:
        BackendError: The precision is not one of :data:`PRECISIONS`, or the packages of the
            ``onnx`` extra are missing (``EXPORT``).
    """
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}", code="EXPORT")
    for package in _NEEDED_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise BackendError(
                f"ONNX export needs the package {package!r}; install it with: pip install 'elysium-core[onnx]'",
                code="EXPORT",
            ) from error


def describe_graph(network: ElysiumNetwork, precision: str) -> GraphDescription:
    """Return the description of the graph that :func:`export_onnx` would write."""
    return GraphDescription(
        weights=vision_hash(network),
        precision=precision,
        side_px=network.visual_encoder.side_px,
        tokens=network.config.adapter.out_token_num,
        width=network.llm.size.width,
        selects=isinstance(network.adapter, TokenSelector),
    )


def vision_hash(network: ElysiumNetwork) -> str:
    """Return the SHA-256 of everything that determines the visual tokens: weights and settings.

    The data type does not matter, only the values: bfloat16 weights that are loaded as float32 have the same hash.
    """
    vision = network.visual_encoder.vision_model.config
    settings = {
        "used_layers": network.visual_encoder.used_layers,
        "heads": vision.num_attention_heads,
        "activation": vision.hidden_act,
        "epsilon": vision.layer_norm_eps,
        "adapter": network.config.adapter.type,
        "projector": network.config.projector,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in ("visual_encoder", "adapter", "llm_proj"):
        for name, tensor in getattr(network, part).state_dict().items():
            digest.update(f"{part}.{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def export_onnx(network: ElysiumNetwork, folder: Path, precision: str = "float32") -> Path:
    """Write ``vision.onnx`` and its description, unless a current file exists.

    Args:
        network: The network, in eval mode; it is not changed.
        folder: Folder of the file.
        precision: One of :data:`PRECISIONS`.

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
    if not stale_reason(path, asdict(wanted)):
        return path
    check_export(wanted.precision)
    _logger.info("exporting the vision encoder to %s", path)
    started = time.monotonic()
    try:
        with described_file(path, asdict(wanted)) as temporary:
            _export(network, temporary, wanted)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror or error}", code="EXPORT") from error
    _logger.info("exported %s (%.1f MB) in %.0f s", path, path.stat().st_size / 1e6, time.monotonic() - started)
    return path


def _export(network: ElysiumNetwork, path: Path, wanted: GraphDescription) -> None:
    graph = _as_exported(VisionGraph(network), getattr(torch, wanted.precision))
    example = torch.zeros(2, wanted.side_px, wanted.side_px, 3, dtype=torch.uint8)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME, INDEX_NAME] if wanted.selects else [OUTPUT_NAME],
                dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}},
                opset_version=_OPSET,
                verbose=False,
            )
            if program is not None:
                _forget_sources(program.model)
                program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"the vision encoder could not be exported to ONNX: {reason}", code="EXPORT") from error
    shape = None if program is None else program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):  # some code of the network made it a constant
        raise BackendError(f"the exported vision encoder has a fixed batch size: its input is {shape}", code="EXPORT")


def _forget_sources(model: Any) -> None:
    """Remove the stack traces that the exporter stores with every node: they have paths of this machine.

    Args:
        model: An ``onnx_ir.Model``.
    """
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            for noted in (node, *node.outputs):
                noted.metadata_props.clear()
                noted.doc_string = None
        for noted in (graph, *graph.inputs):
            noted.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def _as_exported(graph: VisionGraph, dtype: torch.dtype) -> VisionGraph:
    """Return the graph on the CPU in the given precision; a copy, unless it already is."""
    weight = next(graph.parameters())
    if (weight.device.type, weight.dtype) != ("cpu", dtype):
        graph = copy.deepcopy(graph).to("cpu", dtype)
    return graph.eval()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence log lines and warnings of the exporter that concern its developers only."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def cache_folder(wanted: GraphDescription) -> Path:
    """Return the folder of a graph and its engines in the user's cache, one for each set of weights and precision.

    Raises:
        BackendError: The user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise BackendError(
            "there is no home folder for the exported graph; set XDG_CACHE_HOME to a folder", code="EXPORT"
        ) from error
    return root / "elysium" / f"{wanted.weights[:16]}-{wanted.precision}"
