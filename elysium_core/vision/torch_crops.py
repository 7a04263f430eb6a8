"""The interface of backends for crops, and the one that runs on PyTorch.

A model with a ``crop_config`` follows an object in crops: an anchor crop is encoded once, then a live crop each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.errors import BackendError
from elysium_core.geometry import Box
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.vision.frame_upload import FrameUpload


class CropBackend(Protocol):
    """Encodes crops."""

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """Encode anchor crops.

        Args:
            images: B square RGB uint8 crops; those of another size than ``crop_config.anchor_px`` are resized.
            boxes: The object in each crop.

        Returns:
            B anchors on the language model's device; ``tokens`` (B, K1, D) are for the language model. One of them is
            ``anchors[b : b + 1]``; ``AnchorTokens.stack`` joins several.

        Raises:
            BackendError: The model has no ``crop_config``, or the backend failed.
        """
        ...

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """Encode live crops, each for the object of one anchor.

        Args:
            images: B square RGB uint8 crops; those of another size than ``crop_config.live_px`` are resized.
            anchors: B anchors, one for each crop; any backend may have made them.

        Returns:
            Visual tokens (B, K2, D), on the language model's device.

        Raises:
            BackendError: The model has no ``crop_config``, or the backend failed.
        """
        ...


class NoCrops:
    """The :class:`CropBackend` of a model that follows in whole frames: it refuses."""

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """Raise :class:`~elysium_core.errors.BackendError`."""
        raise _no_crops()

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """Raise :class:`~elysium_core.errors.BackendError`."""
        raise _no_crops()


def _no_crops() -> BackendError:
    return BackendError("this model has no crop_config: it follows in whole frames only")


class TorchCrops:
    """The :class:`CropBackend` that runs the network with PyTorch.

    Args:
        network: A network with a selector for crops, in eval mode on its device.
        fast_resize: See :class:`elysium_core.vision.frame_upload.FrameUpload`.

    Raises:
        BackendError: The model has no ``crop_config``.
    """

    def __init__(self, network: ElysiumNetwork, *, fast_resize: bool = False) -> None:
        crop = network.config.crop
        if crop is None:
            raise _no_crops()
        self._network = network
        self._transform = ImageTransform(crop.live_px, network.visual_encoder.normalization)
        self._upload_anchors = FrameUpload(crop.anchor_px, fast_resize=fast_resize)
        self._upload_live = FrameUpload(crop.live_px, fast_resize=fast_resize)

    @torch.inference_mode()
    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`CropBackend`."""
        pixels = self._transform.normalize(self._upload_anchors(images, self._weight.device))
        return self._network.encode_anchors(pixels, box_rows(boxes).to(pixels.device))

    @torch.inference_mode()
    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`CropBackend`."""
        pixels = self._transform.normalize(self._upload_live(images, self._weight.device))
        return self._network.encode_crops(pixels, anchors.to(self._weight.device, self._weight.dtype))

    @property
    def _weight(self) -> Tensor:
        return self._network.llm.lm_head.weight


class CropCalls:
    """The calls about crops of a vision backend, done by another object.

    Args:
        crops: What encodes crops.
    """

    def __init__(self, crops: CropBackend) -> None:
        self._crops = crops

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`CropBackend`."""
        return self._crops.encode_anchors(images, boxes)

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`CropBackend`."""
        return self._crops.encode_crops(images, anchors)


def torch_crops(network: ElysiumNetwork, *, fast_resize: bool = False) -> CropBackend:
    """The backend for a network's crops on PyTorch; one that refuses for a model without ``crop_config``."""
    return NoCrops() if network.target_selector is None else TorchCrops(network, fast_resize=fast_resize)


def box_rows(boxes: Sequence[Box]) -> Tensor:
    """Boxes as (B, 4) float32: x1, y1, x2, y2 in 0..1."""
    return torch.tensor([[box.x1, box.y1, box.x2, box.y2] for box in boxes], dtype=torch.float32)
