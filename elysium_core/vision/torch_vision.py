"""The interface of vision encoder backends, and the backend that runs on PyTorch.

A backend turns images into visual tokens: it resizes them, copies them to the device, and runs
vision encoder, token adapter and projector.
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
from elysium_core.errors import BackendError
from elysium_core.geometry import Box
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.image_transform import ImageTransform, resize_on_device
from elysium_core.network.target_selector import AnchorTokens


class FrameUpload:
    """Resizes images to the encoder's square input and copies them to a device.

    Args:
        side_px: The encoder's input side S [px].
        fast_resize: Copy whole images and resize them on the device. Saves CPU time; a pixel
            value may differ by 1 of 255 from PIL's resize, which the model was trained with.
    """

    def __init__(self, side_px: int, *, fast_resize: bool = False) -> None:
        self.transform = ImageTransform(side_px)
        self._fast_resize = fast_resize

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
        """Return B RGB uint8 images of any size as (B, S, S, 3) uint8 on the device."""
        if self._fast_resize:
            side = self.transform.side_px
            return torch.stack([resize_on_device(send([image], device)[0], side) for image in images])
        return send([self.transform.resize(image) for image in images], device)


def send(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Copy images of one size to a device as (B, H, W, 3) uint8.

    The copy is asynchronous: work that is queued later on the device's current stream sees the images.
    """
    on_gpu = device.type == "cuda"
    # In pinned memory, or the driver would copy it there first. torch reuses the memory only after the
    # device has read it.
    staged = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=on_gpu)
    for place, image in zip(staged.numpy(), images, strict=True):
        np.copyto(place, image)
    return staged.to(device, non_blocking=True) if on_gpu else staged


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


class CropBackend(Protocol):
    """Encodes crops, for a model that follows an object in them."""

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`VisionBackend`."""
        ...

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`VisionBackend`."""
        ...


class VisionBackend(CropBackend, Protocol):
    """Runs vision encoder, token adapter or selector, and projector in one step."""

    name: str

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the visual tokens (B, K, D) of B RGB uint8 images of any size, on the language model's device."""
        ...

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """Encode anchor crops.

        Args:
            images: B square RGB uint8 crops, best of ``crop_config.anchor_px``; others are resized.
            boxes: The object in each crop.

        Returns:
            B anchors; ``tokens`` (B, K1, D) are for the language model. One of them is ``anchors[b : b + 1]``, several
            are joined by ``AnchorTokens.stack``.

        Raises:
            BackendError: The model has no ``crop_config``.
        """
        ...

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """Encode live crops, each for the object of one anchor.

        Args:
            images: B square RGB uint8 crops, best of ``crop_config.live_px``; others are resized.
            anchors: B anchors, one for each crop.

        Returns:
            Visual tokens (B, K2, D), on the language model's device.

        Raises:
            BackendError: The model has no ``crop_config``.
        """
        ...


class TorchCrops:
    """The :class:`CropBackend` that runs the network with PyTorch.

    Args:
        network: The network, in eval mode on its device.
        fast_resize: See :class:`FrameUpload`.
    """

    def __init__(self, network: ElysiumNetwork, *, fast_resize: bool = False) -> None:
        self._network = network
        normalization, crop = network.visual_encoder.normalization, network.config.crop
        self._transform = ImageTransform(0, normalization)
        self._uploads = (
            None
            if crop is None
            else tuple(FrameUpload(side, fast_resize=fast_resize) for side in (crop.anchor_px, crop.live_px))
        )

    @torch.inference_mode()
    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`VisionBackend`."""
        pixels = self._pixels(images, 0)
        return self._network.encode_anchors(pixels, box_tensor(boxes).to(pixels.device))

    @torch.inference_mode()
    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`VisionBackend`."""
        pixels = self._pixels(images, 1)
        weight = self._network.llm.lm_head.weight
        return self._network.encode_crops(pixels, anchors.to(weight.device, weight.dtype))

    def _pixels(self, images: Sequence[NDArray[np.uint8]], kind: int) -> Tensor:
        if self._uploads is None:
            raise BackendError("this model has no crop_config: it follows in whole frames only")
        device = self._network.llm.lm_head.weight.device
        return self._transform.normalize(self._uploads[kind](images, device))


def box_tensor(boxes: Sequence[Box]) -> Tensor:
    """Boxes as (B, 4) float32: x1, y1, x2, y2."""
    return torch.tensor([[box.x1, box.y1, box.x2, box.y2] for box in boxes], dtype=torch.float32)


class TorchVision:
    """The backend that runs the network with PyTorch.

    Args:
        network: The network, in eval mode on its device.
        fast_resize: See :class:`elysium_core.vision.torch_vision.FrameUpload`.
        record: See :class:`elysium_core.vision.torch_vision.RecordedEncoder`.
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
        self._crops = TorchCrops(network, fast_resize=fast_resize)

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`VisionBackend`; pixels are copied to the device as bytes and normalised there."""
        return self._encode(self._upload(images, self._network.llm.lm_head.weight.device))

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`VisionBackend`."""
        return self._crops.encode_anchors(images, boxes)

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`VisionBackend`."""
        return self._crops.encode_crops(images, anchors)
