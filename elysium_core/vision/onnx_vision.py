"""The vision encoder backend that runs an exported graph on ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.errors import BackendError, pip_line
from elysium_core.network.image_transform import ImageTransform
from elysium_core.vision.onnx_export import INPUT_NAME, OUTPUT_NAME
from elysium_core.vision.torch_crops import CropBackend, CropCalls, NoCrops

_GPU_PROVIDER = "CUDAExecutionProvider"
_LONGEST_REASON = 300
_logger = logging.getLogger(__name__)


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry switched off.

    Official builds report their use to their maker over the network and keep a device id in the
    user's cache, unless this is switched off before the import.

    Raises:
        BackendError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"the onnx backend needs ONNX Runtime; run: {pip_line('onnxruntime')}") from error
    # For a program that has imported it before: nothing is sent from now on.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxVision(CropCalls):
    """A :class:`~elysium_core.vision.torch_vision.VisionBackend` on ONNX Runtime.

    Args:
        path: File of :func:`elysium_core.vision.onnx_export.export_onnx`.
        side_px: Side of its input [px].
        device: Device of the language model, to which the tokens are copied.
        dtype: Data type of the language model.
        threads: CPU threads; 0 = as many as torch uses.
        crops: What encodes crops; by default they are refused.

    Raises:
        BackendError: ONNX Runtime is not installed, or the graph cannot be used.
    """

    name = "onnx"

    def __init__(
        self,
        path: Path,
        side_px: int,
        device: torch.device,
        dtype: torch.dtype,
        threads: int = 0,
        *,
        crops: CropBackend | None = None,
    ) -> None:
        super().__init__(crops or NoCrops())
        self._session = start_session(path, device, threads or torch.get_num_threads())
        check_ends(self._session, path, side_px)
        self._transform = ImageTransform(side_px)
        self._device, self._dtype = device, dtype

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the visual tokens (B, K, D) of B RGB uint8 images of any size.

        Raises:
            BackendError: ONNX Runtime failed, for example because memory is short.
        """
        stacked = np.stack([self._transform.resize(image) for image in images])
        (tokens,) = run_session(self._session, (OUTPUT_NAME,), {INPUT_NAME: stacked})
        return torch.from_numpy(tokens).to(self._device, self._dtype)


def run_session(session: Any, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    """Run a graph and return the outputs that are named.

    Raises:
        BackendError: ONNX Runtime failed, for example because memory is short.
    """
    try:
        found: Sequence[NDArray[Any]] = session.run(list(outputs), dict(inputs))
    except Exception as error:
        raise BackendError(f"ONNX Runtime could not run the vision encoder: {_one_line(error)}") from error
    return found


def start_session(path: Path, device: torch.device, threads: int) -> Any:
    """Load a graph for a device.

    Raises:
        BackendError: ONNX Runtime is not installed, or the graph cannot be used.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin between frames would take cores from the language model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and _GPU_PROVIDER in available:
        providers.insert(0, (_GPU_PROVIDER, {"device_id": device.index or 0}))
    elif device.type == "cuda":
        _logger.warning("this ONNX Runtime has no CUDA provider, so the vision encoder runs on the CPU")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise BackendError(f"ONNX Runtime cannot use {path}: {_one_line(error)}") from error


def check_ends(session: Any, path: Path, side_px: int, further: Sequence[str] = ()) -> None:
    """Refuse a graph with other inputs than images of a size and the further ones, or without visual tokens.

    Raises:
        BackendError: It is such a graph.
    """
    inputs = {end.name: end.shape[1:] for end in session.get_inputs()}
    outputs = {end.name for end in session.get_outputs()}
    fits = inputs.keys() == {INPUT_NAME, *further} and inputs[INPUT_NAME] == [side_px, side_px, 3]
    if not fits or OUTPUT_NAME not in outputs:
        raise BackendError(
            f"{path} is not the graph of a vision encoder for {side_px} px: its inputs are {inputs}; "
            "write it with: elysium export"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
