"""Tokens of one sample while they are laid out, and many of them as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

VISUAL_SLOT = -1
"""Token id that stands for one visual token."""
PADDING_BRANCH = -1
"""Branch of what fills a row up."""


@dataclass(slots=True)
class TokenRow:
    """Tokens of one sample while they are laid out; the lists are of one length."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    digit: list[bool] = field(default_factory=list)

    def extend(self, ids: Sequence[int], start: int, branch: int) -> None:
        """Append tokens that are no labels."""
        self.extend_labels(ids, start, branch, [0.0] * len(ids), [False] * len(ids))

    def extend_labels(
        self, ids: Sequence[int], start: int, branch: int, weights: Sequence[float], digits: Sequence[bool]
    ) -> None:
        """Append tokens with their weights in the loss."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.branch += [branch] * len(ids)
        self.weight += weights
        self.digit += digits


def row_tensors(rows: Sequence[TokenRow]) -> dict[str, Tensor]:
    """Rows as tensors of one length.

    Returns:
        ``token_ids``, ``positions``, ``branch`` (PADDING_BRANCH behind a row's end),
        ``label_weight`` and ``is_digit``, each (B, L).
    """
    length = max(len(row.ids) for row in rows)
    return {
        "token_ids": _pad([row.ids for row in rows], length, 0, torch.int64),
        "positions": _pad([row.positions for row in rows], length, 0, torch.int64),
        "branch": _pad([row.branch for row in rows], length, PADDING_BRANCH, torch.int64),
        "label_weight": _pad([row.weight for row in rows], length, 0.0, torch.float32),
        "is_digit": _pad([row.digit for row in rows], length, False, torch.bool),
    }


def _pad(rows: Sequence[Sequence[float]], length: int, value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=dtype)
