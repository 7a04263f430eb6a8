"""EfficientNet-Lite0 as a vision encoder for small machines: a convolutional network whose grid cells are the tokens.

A whole frame runs through all sixteen blocks: its tokens are the features of block 10 beside the upsampled ones of
block 15. A crop runs through the first eleven blocks only and gives features of half that cell size: those of block 4
beside the upsampled ones of block 10. So the blocks behind them can be trained on frames, and crops stay what they
are. Batch norms are folded into the convolutions, so training changes weights and
biases only.

Shapes: B images, S the side of a frame [px], G = S / 16 cells a side, N = G * G tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.network.crop_config import CROP_STRIDE_PX
from elysium_core.network.image_encoder import CropEncoder

CROP_BLOCKS = 11
"""Blocks that crops run through."""
FRAME_STRIDE_PX = 16
"""Side of the cell that a token of a frame stands for [px]."""

# Kernel, stride, expansion, output channels of each block.
_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (5, 1, 6, 192),
    (3, 1, 6, 320),
)
_STEM_WIDTH = 32
_FINE_BLOCK, _MIDDLE_BLOCK, _LAST_BLOCK = 4, CROP_BLOCKS - 1, 15
_SIDE_STEP_PX = 32
_LARGEST_SIDE_PX = 2048
_MEAN, _STD = 0.449, 0.226
# Flat pictures are brought to a middling brightness [of 255], with at most this gain.
_MIDDLE, _MOST_GAIN = 115.0, 16.0


@dataclass(frozen=True, slots=True)
class EfficientNetConfig:
    """Settings of the encoder, as in its ``config.json``.

    Attributes:
        image_size: Side S of a frame [px], a multiple of 32.
        contrast: Least standard deviation of a picture [of 255]; flatter pictures are stretched to it before they are
            encoded, so that the dark is seen. 0 = pictures stay as they are.

    Raises:
        ValueError: A value is out of range.
    """

    image_size: int = 256
    contrast: float = 40.0

    model_type: ClassVar[str] = "efficientnet_lite0"

    def __post_init__(self) -> None:
        if self.image_size % _SIDE_STEP_PX or not _SIDE_STEP_PX <= self.image_size <= _LARGEST_SIDE_PX:
            raise ValueError(
                f"image_size = {self.image_size} is not a multiple of {_SIDE_STEP_PX} "
                f"in {_SIDE_STEP_PX}..{_LARGEST_SIDE_PX} px"
            )
        if not 0 <= self.contrast <= 127:
            raise ValueError(f"contrast = {self.contrast:g} is not in 0..127")

    @property
    def grid(self) -> int:
        """Cells a side of a frame, G."""
        return self.image_size // FRAME_STRIDE_PX

    def to_dict(self) -> dict[str, Any]:
        """Content of the encoder's ``config.json``."""
        return {"model_type": self.model_type, **asdict(self)}


class ContrastNormalization:
    """Gives pictures of little contrast more of it and a middling brightness; then subtracts a mean, divides by a std.

    Args:
        contrast: See :class:`EfficientNetConfig`.
    """

    def __init__(self, contrast: float) -> None:
        self._contrast = contrast

    def __call__(self, pixels: Tensor) -> Tensor:
        """See :class:`elysium_core.network.image_transform.PixelNormalization`."""
        if self._contrast > 0:
            mean = pixels.mean((1, 2, 3), keepdim=True)
            # Of less than one grey level, contrast is noise.
            gain = (self._contrast / pixels.std((1, 2, 3), keepdim=True).clamp_min(1.0)).clamp(1.0, _MOST_GAIN)
            pixels = (pixels - mean) * gain + mean + (_MIDDLE - mean) * (1 - 1 / gain)
        return (pixels / 255 - _MEAN) / _STD


def unnormalized(pixels: Tensor) -> Tensor:
    """Pixels of 0..255 of those with the encoder's mean subtracted and divided by its standard deviation."""
    return pixels * (_STD * 255) + _MEAN * 255


class _SameConv(nn.Conv2d):
    """A convolution padded as the weights' authors padded: of an odd amount, the larger half is behind."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        total = kernel - stride
        self._pad = (total // 2, total - total // 2) * 2 if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self._pad is None else F.pad(x, self._pad))


class _Block(nn.Module):
    """Inverted bottleneck: expand, convolve each channel by itself, project; with a shortcut where shapes allow it."""

    def __init__(self, width: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        inner = width * expansion
        convs = [_SameConv(inner, inner, kernel, stride, groups=inner), _SameConv(inner, out, 1)]
        if expansion > 1:
            convs.insert(0, _SameConv(width, inner, 1))
        self.convs = nn.ModuleList(convs)
        self._shortcut = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs[:-1]:
            y = F.relu6(conv(y))
        y = self.convs[-1](y)
        return x + y if self._shortcut else y


class EfficientNetEncoder(CropEncoder):
    """Frames to tokens, and crops to finer features.

    Args:
        config: Settings.
    """

    SHARED_WIDTH = _BLOCKS[_MIDDLE_BLOCK][3]
    """Width C of what the blocks that frames share with crops make of a frame."""
    WIDTH = SHARED_WIDTH + _BLOCKS[_LAST_BLOCK][3]
    """Width of a frame's tokens."""
    FRAME_BLOCKS = tuple(f"blocks.{number}." for number in range(_MIDDLE_BLOCK + 1, _LAST_BLOCK + 1))
    """Beginnings of the names of the weights that only frames run through, of those that can be trained."""
    BLOCK_COUNT = len(_BLOCKS)
    """Blocks that it has."""

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        self.side_px, self.grid, self.width = config.image_size, config.grid, self.WIDTH
        self.crop_width = _BLOCKS[_FINE_BLOCK][3] + _BLOCKS[_MIDDLE_BLOCK][3]
        self.crop_stride_px = CROP_STRIDE_PX
        self.stem = _SameConv(3, _STEM_WIDTH, 3, 2)
        width, blocks = _STEM_WIDTH, []
        for kernel, stride, expansion, out in _BLOCKS[: self.BLOCK_COUNT]:
            blocks.append(_Block(width, kernel, stride, expansion, out))
            width = out
        self.blocks = nn.ModuleList(blocks)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.stem.weight.dtype

    @property
    def normalization(self) -> ContrastNormalization:
        """The encoder's mean and standard deviation, behind its stretch of contrast."""
        return ContrastNormalization(self.config.contrast)

    def settings(self) -> dict[str, Any]:
        """See :class:`elysium_core.network.image_encoder.ImageEncoder`."""
        return self.config.to_dict()

    def layers(self) -> Iterable[nn.Module]:
        """See :class:`elysium_core.network.image_encoder.ImageEncoder`."""
        return self.blocks

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode frames.

        Args:
            pixels: (B, 3, S, S), normalised; S may be another multiple of 32 than the configured side.

        Returns:
            (B, N, width) tokens in row-major order, in the weights' dtype.
        """
        return self.frame_tokens(self.shared_features(pixels))

    def shared_features(self, pixels: Tensor) -> Tensor:
        """What the blocks that frames share with crops make of frames: (B, C, G, G) of (B, 3, S, S)."""
        return self._features(pixels, _MIDDLE_BLOCK, _MIDDLE_BLOCK)[1]

    def frame_tokens(self, shared: Tensor) -> Tensor:
        """Tokens (B, N, width) of frames, of :meth:`shared_features` (B, C, G, G)."""
        last = shared
        for block in self.blocks[_MIDDLE_BLOCK + 1 :]:
            last = block(last)
        return _side_by_side(shared, last).flatten(2).transpose(1, 2)

    def crop_features(self, pixels: Tensor) -> Tensor:
        """See :class:`elysium_core.network.image_encoder.CropEncoder`."""
        fine, middle = self._features(pixels, _FINE_BLOCK, _MIDDLE_BLOCK)
        return _side_by_side(fine, middle)

    def _features(self, pixels: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Outputs of two blocks; those behind the last are not run."""
        x = F.relu6(self.stem(pixels.to(self.dtype)))
        earlier = x
        for number, block in enumerate(self.blocks[: last + 1]):
            x = block(x)
            if number == first:
                earlier = x
        return earlier, x


def _side_by_side(fine: Tensor, coarse: Tensor) -> Tensor:
    """Features (B, C1, H, W) beside upsampled ones (B, C2, H / 2, W / 2): (B, C1 + C2, H, W)."""
    return torch.cat([fine, F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)], 1)
