"""The vision half of a model on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.errors import BackendError
from elysium_core.inference.export import INPUT_NAME, OUTPUT_NAME
from elysium_core.model.image_transform import ImageTransform


class OnnxVision:
    """A vision backend (:class:`elysium_core.inference.vision.VisionBackend`) on ONNX Runtime.

    Args:
        path: Graph of :func:`elysium_core.inference.export.export_onnx`.
        side_px: Side of its input [px].
        device: Where the language model wants the tokens.
        dtype: As what.
        threads: CPU threads; 0 = as many as torch uses.

    Raises:
        BackendError: ONNX Runtime is not installed, or refuses the graph.
    """

    name = "onnx"

    def __init__(self, path: Path, side_px: int, device: torch.device, dtype: torch.dtype, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError("the onnx backend needs ONNX Runtime: pip install 'elysium-ros[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        # Threads that spin between frames would take the core from the language model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [name for name in [*wanted, "CPUExecutionProvider"] if name in available]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot use {path}: {error}") from error
        self._transform = ImageTransform(side_px)
        self._device, self._dtype = device, dtype

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Visual tokens (B, K, D) of B RGB uint8 images."""
        stacked = np.stack([self._transform.resize(image) for image in images])
        (tokens,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: stacked})
        return torch.from_numpy(tokens).to(self._device, self._dtype)
