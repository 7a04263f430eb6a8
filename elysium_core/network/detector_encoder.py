"""A vision encoder whose frames run through YOLOX-nano and whose crops run through EfficientNet-Lite0.

Features of a detector tell kinds of things apart much better than those of an image classifier. A token of a frame
stands for a cell of 16 px and has the features of three levels: of the finest one, those of the most object-like of the
cell's four parts; of the coarsest one, those of the larger cell that it lies in. The detector's own predictions are not
used: what a cell shows is read by the T-Selector and written by the language model.

Shapes: B images, S the side of a frame [px], G = S / 16 cells a side, N = G * G tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from elysium_core.network.efficientnet import CROP_BLOCKS, EfficientNetConfig, EfficientNetEncoder, unnormalized
from elysium_core.network.yolox import TOWER_WIDTH, YoloxFeatures

_LEVEL_WIDTH = 2 * TOWER_WIDTH + 1


@dataclass(frozen=True, slots=True)
class DetectorEncoderConfig(EfficientNetConfig):
    """Settings of the encoder, as in its ``config.json``; see :class:`EfficientNetConfig`."""

    model_type: ClassVar[str] = "efficientnet_lite0_yolox_nano"


class DetectorEncoder(EfficientNetEncoder):
    """Frames to tokens by a detector's features, and crops to finer features by EfficientNet's first blocks.

    Args:
        config: Settings.
    """

    WIDTH = SHARED_WIDTH = 3 * _LEVEL_WIDTH + 2
    FRAME_BLOCKS = ()
    BLOCK_COUNT = CROP_BLOCKS

    def __init__(self, config: DetectorEncoderConfig) -> None:
        super().__init__(config)
        self.detector = YoloxFeatures()

    def shared_features(self, pixels: Tensor) -> Tensor:
        """Features (B, WIDTH, G, G) of normalised frames (B, 3, S, S); they are never trained."""
        levels = self.detector(unnormalized(pixels.to(self.dtype)).flip(1))
        fine, middle, coarse = (torch.cat([features, score], 1) for features, score in levels)
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return torch.cat([middle, _most_object_like(fine), coarse], 1)

    def frame_tokens(self, shared: Tensor) -> Tensor:
        """Tokens (B, N, WIDTH) of :meth:`shared_features`."""
        return shared.flatten(2).transpose(1, 2)


def _most_object_like(fine: Tensor) -> Tensor:
    """Of each 2x2 cells (B, C, 2 G, 2 G) the one with the highest last channel; row and column: (B, 2 + C, G, G)."""
    best = _part(fine, 0, 0)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        part = _part(fine, row, column)
        best = torch.where(part[:, -1:] > best[:, -1:], part, best)
    return best


def _part(fine: Tensor, row: int, column: int) -> Tensor:
    """One of each 2x2 cells, behind its row and its column."""
    part = fine[..., row::2, column::2]
    # Not expanded to the batch, which an exported graph would then be bound to.
    place = torch.zeros_like(part[:, :2]) + part.new_tensor([row, column]).view(1, 2, 1, 1)
    return torch.cat([place, part], 1)
