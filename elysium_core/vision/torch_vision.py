"""The vision half for one image, recorded once and replayed: what a camera needs.

Images on their way to the vision encoder: resized, and brought to its device as bytes.

Vision backends: images in, visual tokens out, whatever runs the network.
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
from elysium_core.network.image_transform import ImageTransform, resize_on_device


class FrameUpload:
    """Resizes images to the encoder's square and brings them to a device.

    Args:
        side_px: The encoder's input side S [px].
        fast_resize: Send whole images and resize them on the device. Saves the processor's
            time; a value may differ by one step of 255 from what the model was trained on.
    """

    def __init__(self, side_px: int, *, fast_resize: bool = False) -> None:
        self.transform = ImageTransform(side_px)
        self._fast_resize = fast_resize

    def __call__(self, images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
        """Images as (B, S, S, 3) uint8 on the device; B RGB uint8 images of any size."""
        if self._fast_resize:
            side = self.transform.side_px
            return torch.stack([resize_on_device(send([image], device)[0], side) for image in images])
        return send([self.transform.resize(image) for image in images], device)


def send(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Copy images of one size to a device as (B, H, W, 3) uint8, without waiting for it to be done.

    What is queued on the device's current stream afterwards finds them there.
    """
    on_gpu = device.type == "cuda"
    # In pinned memory, or the driver would copy it there itself. torch does not hand the memory out
    # again before the device has read it.
    staged = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=on_gpu)
    for place, image in zip(staged.numpy(), images, strict=True):
        np.copyto(place, image)
    return staged.to(device, non_blocking=True) if on_gpu else staged


_logger = logging.getLogger(__name__)


class RecordedEncoder:
    """Runs the vision half; one image at a time by a recording, from the second one on.

    Args:
        network: In eval mode, on its device.
        record: Turns a program into one that repeats it (:class:`elysium_core.engine.cuda_graph.CudaRecorder`);
            None = nothing is recorded. Not the language model's: both may run at the same time.
    """

    def __init__(self, network: ElysiumNetwork, record: Callable[[Program], Program] | None = None) -> None:
        self._network = network
        self._transform = ImageTransform(network.visual_encoder.side_px)
        self._record = record
        self._program: Program | None = None
        self._weights: tuple[int, torch.dtype] | None = None
        self._images = self._tokens = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Visual tokens (B, K, D) of images (B, S, S, 3) uint8 on the network's device."""
        if self._record is None or len(images) != 1:
            return self._encode(images)
        if self._weights != self._where():
            # The first image tells the output's size; nothing is recorded for one image alone.
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
            _logger.warning("the vision encoder runs without CUDA graphs, slower, because: %s", reason)
            self._record = None
        return self._program

    def _where(self) -> tuple[int, torch.dtype]:
        """Where the weights are, and as what: a recording knows only these."""
        weight = next(self._network.llm_proj.parameters())
        return weight.data_ptr(), weight.dtype


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

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`VisionBackend`; pixels cross to the device as bytes and are normalised there."""
        return self._encode(self._upload(images, self._network.llm.lm_head.weight.device))
