"""The way of images to a device: resized to the vision encoder's input, as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.network.image_transform import ImageTransform, resize_on_device


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
