"""Choice of the vision encoder backend: the one that was asked for, or the fastest that is available."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from elysium_core.device import current_gpu, suitable_threads
from elysium_core.engine.cuda_graph import CudaRecorder
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.vision.crop_choice import build_onnx_crops
from elysium_core.vision.graph_files import announce, current_file, graph_folders
from elysium_core.vision.onnx_export import ONNX_NAME, GraphDescription, cache_folder, describe_graph, export_described
from elysium_core.vision.onnx_vision import OnnxVision, import_onnxruntime
from elysium_core.vision.tensorrt_engine import (
    ENGINE_NAME,
    build_engine,
    describe_engine,
    engine_cache,
    gpu_kind,
    import_tensorrt,
)
from elysium_core.vision.tensorrt_vision import TensorrtVision, require_gpu
from elysium_core.vision.torch_crops import CropBackend, torch_crops
from elysium_core.vision.torch_vision import TorchVision, VisionBackend

BACKENDS = ("auto", "torch", "onnx", "tensorrt")
_logger = logging.getLogger(__name__)


def check_backend(backend: str, device: torch.device) -> None:
    """Refuse a backend that cannot run here. Called before weights are loaded.

    Args:
        backend: One of :data:`BACKENDS`.
        device: Device of the model.

    Raises:
        BackendError: There is no such backend, its package is missing, or it does not run on this device.
    """
    if backend not in BACKENDS:
        raise BackendError(f"vision backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if backend == "onnx":
        import_onnxruntime()
    if backend == "tensorrt":
        require_gpu(device)
        import_tensorrt()


def build_vision(
    backend: str,
    network: ElysiumNetwork,
    shipped: Path | None = None,
    *,
    fast_resize: bool = False,
    cuda_graphs: bool = False,
) -> VisionBackend:
    """Make a vision encoder backend.

    ``onnx`` and ``tensorrt`` use a current graph or engine from the folder of the weights or the
    user's cache; if there is none, it is made in the cache, which takes minutes once. ``auto``
    uses TensorRT on a GPU if it is installed and works; on a CPU it uses ONNX Runtime if there is
    a current graph, but never makes one; otherwise it uses torch. Each of the three graphs is found by itself, and
    what has none runs on torch; with TensorRT, crops always do.

    Args:
        backend: One of :data:`BACKENDS`.
        network: The network, in eval mode on its device.
        shipped: Folder of the weights, which may hold a graph or an engine.
        fast_resize: Resize images on the device, with torch and TensorRT only
            (:class:`elysium_core.vision.frame_upload.FrameUpload`).
        cuda_graphs: Replay a recorded CUDA graph for single images, with torch on a GPU only.

    Raises:
        BackendError: The named backend cannot be used; the message says why.
    """
    check_backend(backend, _device(network))
    if backend == "tensorrt":
        return _tensorrt_vision(network, shipped, fast_resize)
    if backend == "onnx":
        return _onnx_vision(network, shipped)
    if backend == "auto":
        return _best_vision(network, shipped, fast_resize, cuda_graphs)
    return _torch_vision(network, fast_resize, cuda_graphs)


def graph_precision(network: ElysiumNetwork) -> str:
    """Return the precision of graph and engine for a network: float16 for half precision on a GPU, else float32.

    It is float16 for bfloat16 weights, too: float16 has more digits, and the encoder was trained in it. A CPU
    computes in float32.
    """
    half_on_gpu = _device(network).type == "cuda" and _dtype(network) != torch.float32
    return "float16" if half_on_gpu else "float32"


def _torch_vision(
    network: ElysiumNetwork, fast_resize: bool, cuda_graphs: bool, crops: CropBackend | None = None
) -> VisionBackend:
    device = _device(network)
    record = CudaRecorder(device) if cuda_graphs and device.type == "cuda" else None
    return TorchVision(network, fast_resize=fast_resize, record=record, crops=crops)


def _best_vision(network: ElysiumNetwork, shipped: Path | None, fast_resize: bool, cuda_graphs: bool) -> VisionBackend:
    crops = _found_crops(network, shipped)
    try:
        found = _found_tensorrt(network, shipped, fast_resize) or _found_onnx(network, shipped, crops)
    except BackendError as error:
        _logger.warning("the vision encoder runs on torch: %s", error)
        found = None
    return found or _torch_vision(network, fast_resize, cuda_graphs, crops)


def _found_tensorrt(network: ElysiumNetwork, shipped: Path | None, fast_resize: bool) -> VisionBackend | None:
    """Return the TensorRT backend; None without a GPU or TensorRT."""
    if _device(network).type != "cuda":
        return None
    try:
        import_tensorrt()
    except BackendError as error:
        _logger.info("the vision encoder runs on torch: %s", error)
        return None
    return _tensorrt_vision(network, shipped, fast_resize)


def _found_onnx(network: ElysiumNetwork, shipped: Path | None, crops: CropBackend | None) -> VisionBackend | None:
    """Return the ONNX backend with an existing graph; None without one, or where ONNX Runtime is not at home."""
    if not _suits_onnx(network):
        return None
    wanted = describe_graph(network, graph_precision(network))
    graph = current_file(ONNX_NAME, _folders(shipped, wanted), asdict(wanted))
    return None if graph is None else _start_onnx(graph, network, wanted, crops)


def _found_crops(network: ElysiumNetwork, shipped: Path | None) -> CropBackend | None:
    """Return what encodes crops with existing graphs; None for the network itself, or for a model without crops."""
    if network.target_selector is None or not _suits_onnx(network):
        return None
    return build_onnx_crops(network, shipped, graph_precision(network), may_export=False)


def _suits_onnx(network: ElysiumNetwork) -> bool:
    """Whether the model is float32 on a CPU, and ONNX Runtime is installed."""
    if _device(network).type != "cpu" or _dtype(network) != torch.float32:
        return False
    try:
        import_onnxruntime()
    except BackendError:
        return False
    return True


def _onnx_vision(network: ElysiumNetwork, shipped: Path | None) -> VisionBackend:
    precision = graph_precision(network)
    wanted = describe_graph(network, precision)
    graph = _graph(network, shipped, wanted)
    return _start_onnx(graph, network, wanted, build_onnx_crops(network, shipped, precision, may_export=True))


def _start_onnx(
    graph: Path, network: ElysiumNetwork, wanted: GraphDescription, crops: CropBackend | None
) -> VisionBackend:
    threads = suitable_threads(sum(weight.numel() for weight in network.parameters()))
    return OnnxVision(graph, wanted.side_px, _device(network), _dtype(network), threads, crops=crops)


def _tensorrt_vision(network: ElysiumNetwork, shipped: Path | None, fast_resize: bool) -> VisionBackend:
    device, graph_wanted = _device(network), describe_graph(network, graph_precision(network))
    gpu = gpu_kind(device)
    wanted = describe_engine(asdict(graph_wanted), gpu)
    engine = current_file(ENGINE_NAME, _engine_folders(shipped, graph_wanted, gpu), wanted)
    if engine is None:
        graph, folder = _graph(network, shipped, graph_wanted), engine_cache(cache_folder(graph_wanted), gpu)
        announce(folder / ENGINE_NAME)
        with current_gpu(device):
            engine = build_engine(graph, folder, gpu)
    return TensorrtVision(
        engine,
        wanted,
        graph_wanted.side_px,
        device,
        _dtype(network),
        fast_resize=fast_resize,
        crops=torch_crops(network, fast_resize=fast_resize),
    )


def _graph(network: ElysiumNetwork, shipped: Path | None, wanted: GraphDescription) -> Path:
    """Return a current graph, or make one in the cache."""
    found = current_file(ONNX_NAME, _folders(shipped, wanted), asdict(wanted))
    if found is None:
        folder = cache_folder(wanted)
        announce(folder / ONNX_NAME)
        found = export_described(network, folder, wanted)
    return found


def _folders(shipped: Path | None, wanted: GraphDescription) -> list[Path]:
    return graph_folders(shipped, wanted.weights, wanted.precision)


def _engine_folders(shipped: Path | None, wanted: GraphDescription, gpu: str) -> list[Path]:
    return [folder if folder == shipped else engine_cache(folder, gpu) for folder in _folders(shipped, wanted)]


def _device(network: ElysiumNetwork) -> torch.device:
    return network.llm.lm_head.weight.device


def _dtype(network: ElysiumNetwork) -> torch.dtype:
    return network.llm.lm_head.weight.dtype
