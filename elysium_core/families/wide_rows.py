"""Rows for decoders that need more of a token than its embedding and its place in the sequence.

Qwen-VL gives each visual token a place in time, height and width (M-RoPE), and adds features of early vision layers to
the hidden states behind its first decoder layers (DeepStack). Both travel through the engine inside the rows, which the
engine stores, joins and feeds without looking into them. A row is

    embedding (D) | DeepStack features (L x D) | four small integers (8)

The integers say how the (t, h, w) place of the token differs from its place in the sequence, and by how much all later
places shift: an image of h x w tokens takes max(h, w) places. Each integer is two digits to the base 128, which all
floating point types hold exactly (bfloat16 has no 257).

Shapes: T tokens, D width of the language model, L DeepStack layers, W = D + L * D + 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_BASE = 128
_INTEGERS = 4


@dataclass(frozen=True, slots=True, eq=False)
class SplitRows:
    """The parts of T rows.

    Attributes:
        embeddings: (T, D).
        deep: (L, T, D) features that are added behind the first L decoder layers; zero for words.
        offsets: (3, T) int64, place of each token in time, height and width, relative to its place in the sequence.
        shifts: (T,) int64, by how much all places after each token shift.
    """

    embeddings: Tensor
    deep: Tensor
    offsets: Tensor
    shifts: Tensor


class WideRows:
    """Packs and splits rows.

    Args:
        width: Width of the language model D.
        layers: DeepStack layers L, 0 for a model without.

    Attributes:
        row_width: Width of a row W.
    """

    def __init__(self, width: int, layers: int) -> None:
        self._width, self._layers = width, layers
        self.row_width = width * (1 + layers) + 2 * _INTEGERS

    def words(self, embeddings: Tensor) -> Tensor:
        """Rows (..., W) of words with embeddings (..., D): all else is zero."""
        return functional.pad(embeddings, (0, self.row_width - self._width))

    def image(self, embeddings: Tensor, deep: Sequence[Tensor], grid_hw: tuple[int, int]) -> Tensor:
        """Rows (h * w, W) of an image.

        Args:
            embeddings: (h * w, D), row by row.
            deep: L tensors (h * w, D).
            grid_hw: Rows h and columns w of visual tokens.
        """
        height, width = grid_hw
        index = torch.arange(height * width, device=embeddings.device)
        shifts = torch.zeros_like(index)
        shifts[-1] = max(height, width) - height * width
        integers = torch.stack([-index, index // width - index, index % width - index, shifts], 1)
        digits = torch.stack([integers.div(_BASE, rounding_mode="floor"), integers % _BASE], 2).flatten(1)
        return torch.cat([embeddings, *deep, digits.to(embeddings.dtype)], 1)

    def split(self, rows: Tensor) -> SplitRows:
        """The parts of rows (T, W)."""
        width, count = self._width, len(rows)
        digits = rows[:, -2 * _INTEGERS :].long().view(count, _INTEGERS, 2)
        integers = digits[..., 0] * _BASE + digits[..., 1]
        deep = rows[:, width : width * (1 + self._layers)].view(count, self._layers, width)
        return SplitRows(rows[:, :width], deep.transpose(0, 1), integers[:, :3].T, integers[:, 3])
