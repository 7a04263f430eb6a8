"""The released scorer's way with boxes, defects included; used by protocol ``elysium-ref`` only.

It scores the *text*: truth and prediction are both boxes of whole hundredths, scaled
to pixels, and then every one of x, y, w, h is limited to 1..100 px, a limit that was
meant for hundredths. Boxes are matched by order, so a frame without an answer moves
all later answers one frame forward and the end is filled with zeros.
"""

from __future__ import annotations

import numpy as np

from elysium_core.evaluation.metrics import Floats, xywh_to_xyxy, xyxy_to_xywh

_LEVELS = 100


def round_to_text(boxes_xywh: Floats, frame_size: tuple[int, int], levels: int = _LEVELS) -> Floats:
    """Return the boxes as they come back from text with coordinates ``0..levels``.

    Args:
        boxes_xywh: Shape (N, 4) [px]; NaN rows stay NaN.
        frame_size: Width and height [px].
        levels: Steps of the text grid along each side.

    Returns:
        Shape (N, 4) [px].
    """
    scale = np.asarray([*frame_size, *frame_size], dtype=np.float64)
    # numpy and Python both round halves to even, as the reference's int(round(value * 100)) does.
    grid = np.round(xywh_to_xyxy(boxes_xywh) / scale * levels) / levels
    return xyxy_to_xywh(grid * scale)


def reference_boxes(predicted_xywh: Floats, truth_xywh: Floats, frame_size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return prediction and truth as the released scorer sees them.

    Args:
        predicted_xywh: Shape (N, 4) [px]; a NaN row is a frame without an answer.
        truth_xywh: Shape (N, 4) [px].
        frame_size: Width and height [px].

    Returns:
        Two arrays of shape (N, 4) [px].
    """
    text = round_to_text(predicted_xywh, frame_size)
    answered = text[np.isfinite(text).all(axis=1)]
    by_order = np.zeros_like(text)
    by_order[: len(answered)] = answered
    truth = np.nan_to_num(round_to_text(truth_xywh, frame_size), nan=0.0)
    return by_order.clip(1, 100), truth.clip(1, 100)
