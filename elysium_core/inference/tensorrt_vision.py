"""The vision half of a model on TensorRT: building engines, and running them on a GPU.

Two packages have the same interface: ``tensorrt``, and ``tensorrt_rtx`` for machines
without the former. An engine is a program for one GPU made by one version from one
graph; it is loaded only when the description beside it says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.errors import BackendError
from elysium_core.inference.export import INPUT_NAME, ONNX_NAME, OUTPUT_NAME, read_description, write_description
from elysium_core.io.files import atomic_path
from elysium_core.model.image_transform import ImageTransform

MAX_BATCH = 8
"""Frames an engine takes at once."""

_PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


def import_tensorrt() -> Any:
    """Import whichever TensorRT is installed.

    Raises:
        BackendError: None is.
    """
    for package in _PACKAGES:
        try:
            return importlib.import_module(package)
        except ImportError:
            continue
    raise BackendError(
        "TensorRT is not installed: pip install 'elysium-ros[tensorrt]', or use vision_backend=torch or onnx"
    )


def gpu_architecture(device: torch.device | None = None) -> str:
    """Compute capability of a GPU, such as ``9.0``; ``none`` without one."""
    if not torch.cuda.is_available():
        return "none"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{major}.{minor}"


def describe_engine(graph: Path, architecture: str, max_batch: int) -> dict[str, object]:
    """What an engine of a graph would be made from.

    Raises:
        BackendError: The graph has no description.
    """
    source = read_description(graph)
    if source is None:
        raise BackendError(f"{graph} has no description beside it; export it again with: elysium export")
    trt = import_tensorrt()
    return source | {
        "package": trt.__name__.removesuffix("_bindings"),
        "version": trt.__version__,
        "architecture": architecture,
        "max_batch": max_batch,
    }


def stale_reason(engine: Path, wanted: dict[str, object]) -> str:
    """Why an engine cannot be used, one sentence; empty when it can."""
    if not engine.exists():
        return f"there is no engine {engine}"
    found = read_description(engine)
    if found is None:
        return f"{engine} has no description beside it, so nobody knows what built it"
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    if changed:
        differences = ", ".join(f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in changed)
        return f"{engine} is stale: {differences}"
    return ""


def build_engine(graph: Path, folder: Path, architecture: str = "none", max_batch: int = MAX_BATCH) -> Path:
    """Build an engine from an ONNX graph, unless a current one is there.

    Works without a GPU where the package allows it (TensorRT-RTX does); the engine then
    names ``none`` as its architecture and will be built again on the GPU.

    Args:
        graph: ``vision.onnx`` with its description; its precision becomes the engine's.
        folder: Where ``vision.engine`` goes.
        architecture: See :func:`gpu_architecture`.
        max_batch: Most frames at once; it is tuned for one.

    Returns:
        The engine's file.

    Raises:
        BackendError: The graph cannot be parsed or built; TensorRT's own words are in the message.
    """
    wanted = describe_engine(graph, architecture, max_batch)
    engine = folder / ONNX_NAME.replace(".onnx", ".engine")
    if not stale_reason(engine, wanted):
        return engine
    plan = _build_plan(graph, max_batch)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(engine) as temporary:
        temporary.write_bytes(plan)
    write_description(engine, wanted)
    return engine


def _build_plan(graph: Path, max_batch: int) -> bytes:
    trt = import_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Strongly typed: the graph's own data types are kept, the same on every version.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"TensorRT cannot read {graph}: {problems}", code="ENGINE_BUILD")
    images = network.get_input(0)
    shape = tuple(images.shape)[1:]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT_NAME, (1, *shape), (1, *shape), (max_batch, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"TensorRT could not build an engine from {graph}; its log says why", code="ENGINE_BUILD")
    return bytes(plan)


class TensorrtVision:
    """A vision backend (:class:`elysium_core.inference.vision.VisionBackend`) on TensorRT.

    Args:
        engine: File of :func:`build_engine`, made on this machine.
        wanted: Its description as it must be (:func:`describe_engine`).
        side_px: Side of its input [px].
        device: The GPU.
        dtype: Data type that the language model wants.

    Raises:
        BackendError: There is no GPU, or the engine is stale, foreign or damaged (``ENGINE_STALE``).
    """

    name = "tensorrt"

    def __init__(
        self, engine: Path, wanted: dict[str, object], side_px: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        if device.type != "cuda":
            raise BackendError("TensorRT runs on a CUDA GPU only; use vision_backend=onnx or torch on a CPU")
        if reason := stale_reason(engine, wanted):
            raise BackendError(reason, code="ENGINE_STALE")
        trt = import_tensorrt()
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise BackendError(f"{engine} is damaged; delete it, it will be built again", code="ENGINE_STALE")
        self._context = self._engine.create_execution_context()
        self._transform = ImageTransform(side_px)
        self._device, self._dtype = device, dtype
        self._max_batch = int(str(wanted["max_batch"]))
        self._outputs = {
            name: getattr(torch, _torch_name(self._engine.get_tensor_dtype(name)))
            for name in (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors))
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        }

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Visual tokens (B, K, D) of B RGB uint8 images; more than the engine takes go in several runs."""
        stacked = np.stack([self._transform.resize(image) for image in images])
        pixels = torch.from_numpy(stacked).pin_memory().to(self._device, non_blocking=True)
        return torch.cat([self._run(part.contiguous()) for part in torch.split(pixels, self._max_batch)])

    def _run(self, pixels: Tensor) -> Tensor:
        context = self._context
        context.set_input_shape(INPUT_NAME, tuple(pixels.shape))
        context.set_tensor_address(INPUT_NAME, pixels.data_ptr())
        outputs = {}
        for name, dtype in self._outputs.items():
            outputs[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device=self._device)
            context.set_tensor_address(name, outputs[name].data_ptr())
        stream = torch.cuda.current_stream(self._device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise BackendError("TensorRT could not run the vision engine; its log says why")
        return outputs[OUTPUT_NAME].to(self._dtype)


def _torch_name(dtype: Any) -> str:
    """Torch's name of a TensorRT data type."""
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32"}
    return names[str(dtype).rsplit(".", 1)[-1]]
