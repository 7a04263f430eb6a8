"""A picture of many training pairs, to see what training sees."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.pair_generator import StillPair

_TRUTH, _LIKE, _GAP = (0, 255, 0), (255, 0, 0), 255
_GAP_PX = 4


def pair_sheet(pairs: Iterable[StillPair], columns: int = 6) -> NDArray[np.uint8]:
    """Lay pairs out in rows: anchor and live crop side by side, at the size of the live crop.

    The object's box is green, boxes of look-alikes are red. A live crop without a green box does not show the object.

    Args:
        pairs: The pairs; at least one.
        columns: Pairs a row.

    Returns:
        RGB uint8 (H, W, 3).
    """
    tiles = [_tile(pair) for pair in pairs]
    blank = np.full_like(tiles[0], _GAP)
    rows = []
    for first in range(0, len(tiles), columns):
        row = tiles[first : first + columns]
        rows.append(np.hstack(row + [blank] * (columns - len(row))))
    return np.vstack(rows)


def _tile(pair: StillPair) -> NDArray[np.uint8]:
    side = pair.live.shape[0]
    anchor = np.asarray(cv2.resize(pair.anchor, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
    live = pair.live.copy()
    _outline(anchor, pair.anchor_box, _TRUTH)
    for like in pair.like_boxes:
        _outline(live, like, _LIKE)
    _outline(live, pair.live_box, _TRUTH)
    tile = np.hstack([anchor, live])
    return np.pad(tile, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=_GAP)


def _outline(image: NDArray[np.uint8], box: NDArray[np.float32], color: tuple[int, int, int]) -> None:
    if box.any():
        x1, y1, x2, y2 = (round(float(value) * len(image)) for value in box)
        cv2.rectangle(image, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), color, 1)
