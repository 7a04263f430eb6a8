"""Preprocessing of frames for the vision encoder: resize and normalisation.

The published model was trained with PIL's bilinear resize, which averages when it shrinks.
OpenCV's INTER_LINEAR does not, and the boxes would differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PixelNormalization(Protocol):
    """Turns pixels of 0..255 into the input of a vision encoder."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) float32 of 0..255, RGB; the result has the same shape, type and device."""
        ...


class ChannelNormalization:
    """Subtracts a mean and divides by a standard deviation, both of pixels of 0..1.

    Args:
        mean: Of red, green and blue.
        std: Of red, green and blue.
    """

    def __init__(self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> None:
        # Division by 255, mean and std as one multiply-add, computed on the device.
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """See :class:`PixelNormalization`."""
        if self._scale.device != pixels.device:
            # Kept on the device: a copy from the CPU in every call could not be recorded as a CUDA graph.
            self._scale, self._shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        return pixels * self._scale + self._shift


class ImageTransform:
    """Resizes images to a square and normalises them.

    Args:
        side_px: Side S of the square [px].
        normalization: That of the vision encoder; by default CLIP's.
    """

    def __init__(self, side_px: int, normalization: PixelNormalization | None = None) -> None:
        self.side_px = side_px
        self._normalization = normalization or ChannelNormalization()

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize one RGB uint8 (H, W, 3) image to (S, S, 3), without padding or cropping."""
        side = self.side_px
        if image.shape[:2] == (side, side):
            return image
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise (B, S, S, 3) uint8 to (B, 3, S, S) float32 on the same device."""
        # Converted before it is permuted: TensorRT cannot permute bytes.
        return self._normalization(images.float().permute(0, 3, 1, 2))

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return (B, 3, S, S) float32 on the CPU for B images of any size."""
        stacked = np.stack([self.resize(image) for image in images])
        return self.normalize(torch.from_numpy(stacked))


def resize_on_device(image: Tensor, side_px: int) -> Tensor:
    """Resize one RGB uint8 (H, W, 3) image to (S, S, 3) uint8 on its device.

    The filter is PIL's, with rounding after the columns and after the rows, as in PIL. PIL's weights are fixed-point
    numbers, so a value may differ from :meth:`ImageTransform.resize` by 1 of 255.
    """
    height, width = image.shape[:2]
    if (height, width) == (side_px, side_px):
        return image
    planes = image.permute(2, 0, 1)[None].float()
    for size in ((height, side_px), (side_px, side_px)):
        planes = F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
        planes = (planes + 0.5).floor()
    return planes[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8)
