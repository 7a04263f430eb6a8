"""The features of YOLOX-nano, a small detector: CSPDarknet backbone, feature pyramid and towers, without predictions.

Each of three levels, with cells of 8, 16 and 32 px, gives every cell features for its kind, features for its box, and a
score for an object (arXiv 2107.08430). The modules stand in the order in which they run. Batch norms are folded into
the convolutions.

Shapes: B images, S their side [px].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVEL_STRIDES_PX = (8, 16, 32)
"""Side of a cell of each level [px]."""
TOWER_WIDTH = 64
"""Width of each of a level's two towers."""

_STEM, _DARK = 16, (32, 64, 128, 256)
_POOLS = (5, 9, 13)


class _Conv(nn.Sequential):
    """Convolution and SiLU."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups), nn.SiLU())


class _Separable(nn.Sequential):
    """A 3x3 convolution of each channel by itself, then one across channels."""

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__(_Conv(width, width, 3, stride, width), _Conv(width, out, 1))


class _Bottleneck(nn.Module):
    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.reduce, self.conv = _Conv(width, width, 1), _Separable(width, width)
        self._shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.reduce(x))
        return x + y if self._shortcut else y


class _CspBlock(nn.Module):
    """Bottlenecks on one half of the channels, beside the other half (cross-stage partial)."""

    def __init__(self, width: int, out: int, blocks: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.main, self.beside = _Conv(width, out // 2, 1), _Conv(width, out // 2, 1)
        self.blocks = nn.Sequential(*(_Bottleneck(out // 2, shortcut=shortcut) for _ in range(blocks)))
        self.merge = _Conv(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.merge(torch.cat([self.blocks(self.main(x)), self.beside(x)], 1))
        return merged


class _PyramidPooling(nn.Module):
    """Maxima of several surroundings side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.merge = _Conv(width, width // 2, 1), _Conv(width // 2 * (len(_POOLS) + 1), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        merged: Tensor = self.merge(torch.cat([x, *(F.max_pool2d(x, side, 1, side // 2) for side in _POOLS)], 1))
        return merged


class _Towers(nn.Module):
    """What one level tells of its cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = _Conv(width, TOWER_WIDTH, 1)
        self.kind = nn.Sequential(*(_Separable(TOWER_WIDTH, TOWER_WIDTH) for _ in range(2)))
        self.box = nn.Sequential(*(_Separable(TOWER_WIDTH, TOWER_WIDTH) for _ in range(2)))
        self.object_score = nn.Conv2d(TOWER_WIDTH, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        box = self.box(x)
        return torch.cat([self.kind(x), box], 1), self.object_score(box)


class YoloxFeatures(nn.Module):
    """Features of three levels."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = _DARK
        self.stem = _Conv(12, _STEM, 3)
        self.dark2 = nn.Sequential(_Separable(_STEM, first, 2), _CspBlock(first, first, 1))
        self.dark3 = nn.Sequential(_Separable(first, second, 2), _CspBlock(second, second, 3))
        self.dark4 = nn.Sequential(_Separable(second, third, 2), _CspBlock(third, third, 3))
        self.dark5 = nn.Sequential(
            _Separable(third, fourth, 2), _PyramidPooling(fourth), _CspBlock(fourth, fourth, 1, shortcut=False)
        )
        self.lateral = _Conv(fourth, third, 1)
        self.down_middle = _CspBlock(2 * third, third, 1, shortcut=False)
        self.reduce = _Conv(third, second, 1)
        self.down_fine = _CspBlock(2 * second, second, 1, shortcut=False)
        self.stride_fine = _Separable(second, second, 2)
        self.up_middle = _CspBlock(2 * second, third, 1, shortcut=False)
        self.stride_middle = _Separable(third, third, 2)
        self.up_coarse = _CspBlock(2 * third, fourth, 1, shortcut=False)
        self.towers = nn.ModuleList(_Towers(width) for width in (second, third, fourth))

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute the features of images.

        Args:
            pixels: (B, 3, S, S) BGR of 0..255; S is a multiple of 32.

        Returns:
            For each level of G cells a side: features (B, 2 * TOWER_WIDTH, G, G), and logits (B, 1, G, G) of an object.
        """
        # The stem sees each 2x2 pixels side by side; the published order is left column first.
        corners = [pixels[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        fine = self.dark3(self.dark2(self.stem(torch.cat(corners, 1))))
        middle = self.dark4(fine)
        lateral = self.lateral(self.dark5(middle))
        reduced = self.reduce(self.down_middle(torch.cat([_doubled(lateral), middle], 1)))
        fine = self.down_fine(torch.cat([_doubled(reduced), fine], 1))
        middle = self.up_middle(torch.cat([self.stride_fine(fine), reduced], 1))
        coarse = self.up_coarse(torch.cat([self.stride_middle(middle), lateral], 1))
        return [tower(level) for tower, level in zip(self.towers, (fine, middle, coarse), strict=True)]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
