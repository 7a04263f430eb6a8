"""The vision encoder at full size with random weights: torch and TensorRT compared in time and in values."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.gpu_machine import percentiles, time_on
from bench.random_network import random_network
from bench.vision_cost import NO_LLM, VisionSize
from elysium_core.device import current_gpu
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.vision.onnx_export import describe_graph, export_described
from elysium_core.vision.tensorrt_engine import build_engine, describe_engine, gpu_kind, import_tensorrt
from elysium_core.vision.tensorrt_vision import TensorrtVision
from elysium_core.vision.torch_vision import TorchVision, VisionBackend
from elysium_core.vision.vision_choice import build_vision, graph_precision

_BATCHES = (1, 8)
_PICTURES = 8
# Share of the longest distance between two float32 tokens.
_CLOSE = 0.05


def measure_vision_backends(
    size: VisionSize, device: torch.device, dtype: torch.dtype, repeats: int = 30
) -> dict[str, Any]:
    """Time both backends, and compare their tokens with torch's in float32.

    If TensorRT fails, the reason is under ``skipped``, beside the figures measured until then.
    """
    network = random_network(size, NO_LLM, device, dtype)
    side = network.visual_encoder.side_px
    images = list(np.random.default_rng(0).integers(0, 256, (_PICTURES, side, side, 3), dtype=np.uint8))
    expected = TorchVision(copy.deepcopy(network).float()).encode(images).float()
    report: dict[str, Any] = {
        "side_px": side,
        "tokens": expected.shape[1],
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "torch": _measure(TorchVision(network), images, expected, device, repeats),
    }
    if device.type == "cuda":
        recorded = build_vision("torch", network, cuda_graphs=True)
        report["torch_recorded"] = _measure(recorded, images, expected, device, repeats)
    with tempfile.TemporaryDirectory(prefix="elysium-bench-") as folder:
        report["tensorrt"] = _tensorrt(network, Path(folder), images, expected, repeats)
    return report


def _measure(
    vision: VisionBackend, images: Sequence[NDArray[np.uint8]], expected: Tensor, device: torch.device, repeats: int
) -> dict[str, Any]:
    found = vision.encode(images).float()
    times = {
        f"ms_batch_{batch}": percentiles(time_on(device, lambda batch=batch: vision.encode(images[:batch]), repeats))  # type: ignore[misc]
        for batch in _BATCHES
    }
    return {**times, "like_float32": round(_close_share(found, expected), 4)}


def _close_share(found: Tensor, expected: Tensor) -> float:
    """Return the share of tokens close to any float32 token of the same image: the kept patches may differ."""
    distance = torch.cdist(found, expected).amin(-1)
    limit = _CLOSE * torch.cdist(expected, expected).amax(dim=(-1, -2))
    return float((distance <= limit[:, None]).float().mean())


def _tensorrt(
    network: ElysiumNetwork, folder: Path, images: Sequence[NDArray[np.uint8]], expected: Tensor, repeats: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    weight = network.llm.lm_head.weight
    try:
        found["version"] = import_tensorrt().__version__
        wanted, gpu = describe_graph(network, graph_precision(network)), gpu_kind(weight.device)
        found["precision"] = wanted.precision
        started = time.perf_counter()
        graph = export_described(network, folder, wanted)
        found["export_s"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        with current_gpu(weight.device):
            engine = build_engine(graph, folder, gpu)
        found |= {"build_s": round(time.perf_counter() - started, 1), "engine_mib": engine.stat().st_size >> 20}
        needed = describe_engine(asdict(wanted), gpu)
        vision = TensorrtVision(engine, needed, wanted.side_px, weight.device, weight.dtype)
        found |= _measure(vision, images, expected, weight.device, repeats)
    except BackendError as error:
        found["skipped"] = str(error)
    return found
