"""Vision backends: images in, visual tokens out, whatever runs the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.image_transform import ImageTransform


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
    """

    name = "torch"

    def __init__(self, network: ElysiumNetwork) -> None:
        self._network = network
        self._transform = ImageTransform(network.visual_encoder.side_px)

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`VisionBackend`; pixels cross to the device as bytes and are normalised there."""
        stacked = np.stack([self._transform.resize(image) for image in images])
        device = self._network.llm.lm_head.weight.device
        pixels = self._transform.normalize(torch.from_numpy(stacked).to(device))
        return self._network.encode_frames(pixels)
