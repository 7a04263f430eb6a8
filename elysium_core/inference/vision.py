"""Vision backends: images in, visual tokens out, whatever runs the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.inference.cuda_graph import Program
from elysium_core.inference.frame_upload import FrameUpload
from elysium_core.inference.recorded_encoder import RecordedEncoder
from elysium_core.model.elysium import ElysiumNetwork


class VisionBackend(Protocol):
    """Vision encoder, token adapter and projector as one step."""

    name: str

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Visual tokens (B, K, D) on the language model's device, of B RGB uint8 images of any size."""
        ...


class TorchVision:
    """The network itself, run by torch.

    Args:
        network: In eval mode, on its device.
        fast_resize: See :class:`elysium_core.inference.frame_upload.FrameUpload`.
        record: See :class:`elysium_core.inference.recorded_encoder.RecordedEncoder`.
    """

    name = "torch"

    def __init__(
        self,
        network: ElysiumNetwork,
        *,
        fast_resize: bool = False,
        record: Callable[[Program], Program] | None = None,
    ) -> None:
        self._network = network
        self._encode = RecordedEncoder(network, record)
        self._upload = FrameUpload(network.visual_encoder.side_px, fast_resize=fast_resize)

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`VisionBackend`; pixels cross to the device as bytes and are normalised there."""
        return self._encode(self._upload(images, self._network.llm.lm_head.weight.device))
