"""Choice of what encodes crops: ONNX Runtime for each graph that there is, torch for the others."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from elysium_core.device import suitable_threads
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.vision.crop_export import (
    GRAPH_NAMES,
    CropGraphDescription,
    crop_cache_folder,
    describe_crop_graphs,
    export_crop_graph,
)
from elysium_core.vision.graph_files import announce, current_file, graph_folders
from elysium_core.vision.onnx_crops import OnnxCrops
from elysium_core.vision.torch_crops import CropBackend, torch_crops

_logger = logging.getLogger(__name__)


def build_onnx_crops(network: ElysiumNetwork, shipped: Path | None, precision: str, *, may_export: bool) -> CropBackend:
    """Make the backend for crops.

    Args:
        network: The network, in eval mode on its device.
        shipped: Folder of the weights, which may hold graphs.
        precision: Of the graphs.
        may_export: Whether a missing graph is made, which takes seconds once; otherwise torch does its work.

    Raises:
        BackendError: With ``may_export``: a graph cannot be made or used.
    """
    wanted, fallback = describe_crop_graphs(network, precision), torch_crops(network)
    if may_export:
        return _on_onnx(
            network, {name: _made(network, shipped, each) for name, each in wanted.items()}, wanted, fallback
        )
    backend = fallback
    for name, each in wanted.items():
        found = _found(shipped, each)
        if found is None:
            continue
        try:
            # What is not in this graph is done by the backend so far.
            backend = _on_onnx(network, {name: found}, wanted, backend)
        except BackendError as error:
            _logger.warning("%s is not used: %s", found.name, error)
    return backend


def _on_onnx(
    network: ElysiumNetwork, graphs: dict[str, Path], wanted: dict[str, CropGraphDescription], otherwise: CropBackend
) -> CropBackend:
    if not graphs:
        return otherwise
    weight = network.llm.lm_head.weight
    threads = suitable_threads(sum(weight.numel() for weight in network.parameters()))
    return OnnxCrops(graphs, wanted, otherwise, weight.device, weight.dtype, threads)


def _found(shipped: Path | None, wanted: CropGraphDescription) -> Path | None:
    folders = graph_folders(shipped, wanted.weights, wanted.precision)
    return current_file(GRAPH_NAMES[wanted.graph], folders, asdict(wanted))


def _made(network: ElysiumNetwork, shipped: Path | None, wanted: CropGraphDescription) -> Path:
    found = _found(shipped, wanted)
    if found is None:
        folder = crop_cache_folder(wanted)
        announce(folder / GRAPH_NAMES[wanted.graph])
        found = export_crop_graph(network, folder, wanted)
    return found
