"""The interface of vision encoders: images to tokens, one for each cell of a grid.

Shapes: B images, S their side [px], N tokens, D their width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.network.image_transform import PixelNormalization


class ImageEncoder(nn.Module, ABC):
    """A vision encoder. The registry is :data:`elysium_core.network.encoders.VISION_ENCODERS`.

    Attributes:
        side_px: Side S of the square input [px].
        grid: Cells a side; N = grid * grid.
        width: D.
    """

    side_px: int
    grid: int
    width: int

    @property
    def token_count(self) -> int:
        """Tokens of an image, N."""
        return self.grid * self.grid

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""

    @property
    @abstractmethod
    def normalization(self) -> PixelNormalization:
        """What turns pixels of 0..255 into the input of :meth:`forward`."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """Encode normalised pixels (B, 3, S, S) as (B, N, D) tokens in row-major order, in the weights' dtype."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that determine the tokens beside the weights; values that JSON can hold."""

    @abstractmethod
    def layers(self) -> Iterable[nn.Module]:
        """The layers that run one after the other, in their order."""

    def unused_parts(self) -> Iterable[nn.Module]:
        """Modules that are stored with the model but never run."""
        return ()

    def make_buffers(self, device: torch.device) -> None:
        """Compute the buffers that are not stored, for a network that was built without memory."""


class CropEncoder(ImageEncoder):
    """A vision encoder that also gives finer features of crops, for following an object.

    Attributes:
        crop_width: Channels of these features.
        crop_stride_px: Side of the cell that one of them stands for [px].
    """

    crop_width: int
    crop_stride_px: int

    @abstractmethod
    def crop_features(self, pixels: Tensor) -> Tensor:
        """Encode normalised square crops.

        Args:
            pixels: (B, 3, C, C); the side C is a multiple of 16 px.

        Returns:
            (B, crop_width, C / crop_stride_px, C / crop_stride_px), in the weights' dtype.
        """
