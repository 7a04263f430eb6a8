"""The interface of vision encoder backends, and the backend that runs on PyTorch.

A backend turns images into visual tokens: it resizes them, copies them to the device, and runs
vision encoder, token adapter or selector, and projector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.engine.cuda_graph import Program
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.vision.frame_upload import FrameUpload
from elysium_core.vision.torch_crops import CropBackend, CropCalls, torch_crops

_logger = logging.getLogger(__name__)


class RecordedEncoder:
    """Runs vision encoder, adapter and projector; single images run as a recorded CUDA graph from the second on.

    Args:
        network: The network, in eval mode on its device.
        record: Records a function and returns one that replays it
            (:class:`elysium_core.engine.cuda_graph.CudaRecorder`); None = nothing is recorded. It must not be the
            language model's recorder: both may run at the same time.
    """

    def __init__(self, network: ElysiumNetwork, record: Callable[[Program], Program] | None = None) -> None:
        self._network = network
        encoder = network.visual_encoder
        self._transform = ImageTransform(encoder.side_px, encoder.normalization)
        self._record = record
        self._program: Program | None = None
        self._weights: tuple[int, torch.dtype] | None = None
        self._images = self._tokens = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the visual tokens (B, K, D) of images (B, S, S, 3) uint8 on the network's device."""
        if self._record is None or len(images) != 1:
            return self._encode(images)
        if self._weights != self._where():
            # The first image gives the size of the output; a single image is not worth a recording.
            self._program, self._weights = None, self._where()
            self._images, self._tokens = images.clone(), self._encode(images)
            return self._tokens.clone()
        self._images.copy_(images)
        program = self._program or self._recorded(self._record)
        if program is None:
            return self._encode(images)
        program()
        return self._tokens.clone()

    def _encode(self, images: Tensor) -> Tensor:
        return self._network.encode_frames(self._transform.normalize(images))

    def _run(self) -> None:
        self._tokens.copy_(self._encode(self._images))

    def _recorded(self, record: Callable[[Program], Program]) -> Program | None:
        try:
            self._program = record(self._run)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            _logger.warning("the vision encoder runs without CUDA graphs and slower: %s", reason)
            self._record = None
        return self._program

    def _where(self) -> tuple[int, torch.dtype]:
        """Address and type of the weights; a recording is valid only for these."""
        weight = next(self._network.llm_proj.parameters())
        return weight.data_ptr(), weight.dtype


class VisionBackend(CropBackend, Protocol):
    """Runs vision encoder, token adapter and projector in one step; for crops see :class:`CropBackend`."""

    name: str

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the visual tokens (B, K, D) of B RGB uint8 images of any size, on the language model's device."""
        ...


class TorchVision(CropCalls):
    """The backend that runs the network with PyTorch.

    Args:
        network: The network, in eval mode on its device.
        fast_resize: See :class:`elysium_core.vision.frame_upload.FrameUpload`.
        record: See :class:`elysium_core.vision.torch_vision.RecordedEncoder`.
        crops: What encodes crops; by default the network, with PyTorch.
    """

    name = "torch"

    def __init__(
        self,
        network: ElysiumNetwork,
        *,
        fast_resize: bool = False,
        record: Callable[[Program], Program] | None = None,
        crops: CropBackend | None = None,
    ) -> None:
        super().__init__(crops or torch_crops(network, fast_resize=fast_resize))
        self._network = network
        self._encode = RecordedEncoder(network, record)
        self._upload = FrameUpload(network.visual_encoder.side_px, fast_resize=fast_resize)

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`VisionBackend`; pixels are copied to the device as bytes and normalised there."""
        return self._encode(self._upload(images, self._network.llm.lm_head.weight.device))
