"""The vision encoder backend that runs an engine on TensorRT.

Engines are built by :mod:`elysium_core.vision.tensorrt_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.checkpoint.integrity import stale_reason, untrusted_reason
from elysium_core.errors import BackendError
from elysium_core.vision.frame_upload import FrameUpload
from elysium_core.vision.onnx_export import INPUT_NAME, OUTPUT_NAME
from elysium_core.vision.tensorrt_engine import import_tensorrt, new_log
from elysium_core.vision.torch_crops import CropBackend, CropCalls, NoCrops

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
}
"""TensorRT's data types in torch."""


class TensorrtVision(CropCalls):
    """A :class:`~elysium_core.vision.torch_vision.VisionBackend` on TensorRT.

    Args:
        engine: File of :func:`~elysium_core.vision.tensorrt_engine.build_engine`.
        wanted: What its description must say
            (:func:`~elysium_core.vision.tensorrt_engine.describe_engine`).
        side_px: Side of its input [px].
        device: The GPU.
        dtype: Data type of the language model.
        fast_resize: See :class:`elysium_core.vision.frame_upload.FrameUpload`.
        crops: What encodes crops; by default they are refused.

    Raises:
        BackendError: The device is not a GPU, or the engine is stale, damaged, or listed by no manifest and not built
            here (``ENGINE_STALE``).
    """

    name = "tensorrt"

    def __init__(
        self,
        engine: Path,
        wanted: Mapping[str, object],
        side_px: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        fast_resize: bool = False,
        crops: CropBackend | None = None,
    ) -> None:
        super().__init__(crops or NoCrops())
        require_gpu(device)
        if reason := stale_reason(engine, wanted) or untrusted_reason(engine):
            raise BackendError(reason, code="ENGINE_STALE")
        self._trt = import_tensorrt()
        self._log = new_log(self._trt)
        self._device, self._dtype = device, dtype
        self._upload = FrameUpload(side_px, fast_resize=fast_resize)
        with torch.cuda.device(device):
            self._context: Any = self._load(engine)
        self._max_batch = int(self._engine.get_tensor_profile_shape(INPUT_NAME, 0)[2][0])
        self._outputs = self._output_dtypes()

    def _load(self, engine: Path) -> Any:
        try:
            self._runtime = self._trt.Runtime(self._log)
            self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
            context = self._engine.create_execution_context() if self._engine else None
        except (TypeError, RuntimeError) as error:  # the bindings raise these when the library returns nothing
            raise self._failure(f"cannot load {engine}") from error
        if context is None:
            raise self._failure(f"cannot load {engine}")
        return context

    def _output_dtypes(self) -> dict[str, torch.dtype]:
        engine, output = self._engine, self._trt.TensorIOMode.OUTPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {
            name: _DTYPES[engine.get_tensor_dtype(name).name]
            for name in names
            if engine.get_tensor_mode(name) == output
        }

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the visual tokens (B, K, D) of B RGB uint8 images; a large batch is split.

        Raises:
            BackendError: TensorRT failed, for example because memory is short.
        """
        pixels = self._upload(images, self._device)
        with torch.cuda.device(self._device):
            return torch.cat([self._run(part) for part in torch.split(pixels, self._max_batch)])

    def _run(self, pixels: Tensor) -> Tensor:
        context = self._context
        context.set_input_shape(INPUT_NAME, tuple(pixels.shape))
        context.set_tensor_address(INPUT_NAME, pixels.data_ptr())
        outputs: dict[str, Tensor] = {}
        for name, dtype in self._outputs.items():
            outputs[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device=self._device)
            context.set_tensor_address(name, outputs[name].data_ptr())
        # On torch's stream, so that later work of torch sees the tokens.
        if not context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise self._failure("could not run the vision engine")
        return outputs[OUTPUT_NAME].to(self._dtype)

    def _failure(self, what: str) -> BackendError:
        said = "; ".join(dict.fromkeys(self._log.errors)) or "for no stated reason"
        self._log.errors.clear()
        return BackendError(f"TensorRT {what}: {said}")


def require_gpu(device: torch.device) -> None:
    """Refuse a device that TensorRT cannot run on.

    Raises:
        BackendError: It is not a CUDA GPU.
    """
    if device.type != "cuda":
        raise BackendError(f"TensorRT runs on a CUDA GPU only, not on {device}; use the onnx or torch vision backend")
