"""The vision encoder's way through a crop in two halves: a shallow one that is never trained, and a deep one.

Three quarters of the time are spent in the shallow half, whose output is small: it is computed once a pair and kept.

Shapes: B crops, S their side [px].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.network.efficientnet import EfficientNetEncoder

SHALLOW_CHANNELS, SHALLOW_STRIDE_PX = 24, 4
_FIRST_DEEP, _FINE, _LAST = 3, 4, 10


def shallow_features(encoder: EfficientNetEncoder, pixels: Tensor) -> Tensor:
    """Run normalised crops (B, 3, S, S) through the stem and three blocks: (B, 24, S / 4, S / 4)."""
    x = F.relu6(encoder.stem(pixels))
    for block in encoder.blocks[:_FIRST_DEEP]:
        x = block(x)
    return x


def deep_features(encoder: EfficientNetEncoder, shallow: Tensor) -> Tensor:
    """What ``encoder.crop_features`` gives of the crops that the shallow features (B, 24, S / 4, S / 4) are of."""
    x = fine = shallow
    for number in range(_FIRST_DEEP, _LAST + 1):
        x = encoder.blocks[number](x)
        if number == _FINE:
            fine = x
    coarse = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return torch.cat([fine, coarse], 1)


def deep_blocks(encoder: EfficientNetEncoder) -> nn.ModuleList:
    """The blocks of the deep half, which may be trained."""
    return nn.ModuleList(encoder.blocks[_FIRST_DEEP : _LAST + 1])
