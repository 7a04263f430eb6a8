"""What a model answers about pairs, as a tracker would get it; and a sheet of such answers.

Shapes: B pairs, K1 and K2 tokens of anchor and live crop, D the LLM's width.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.engine.engine import Request
from elysium_core.families.base import Seen
from elysium_core.prompt.box_text import LEVELS
from elysium_core.runtime import Runtime
from elysium_core.training.losses import Losses, Mean
from elysium_core.training.real.box_measures import overlaps, ranking
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.marked_rows import numbers_of
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.types import Grounding

# " Frame 2: [100,100,100,100]." and its end are fewer.
_MOST_TOKENS = 40
_HIGH = 0.95
_TRUTH, _TEXT, _HEAD = (0, 255, 0), (255, 64, 0), (64, 160, 255)
_GAP_PX, _TILE_PX = 4, 128
_GAP = 255


@torch.no_grad()
def answer_pairs(
    runtime: Runtime, prompts: FollowPrompts, anchors: Tensor, live: Tensor, boxes: Tensor
) -> list[Grounding]:
    """Ask about each pair alone.

    Args:
        runtime: The model.
        prompts: Writes its questions.
        anchors: (B, K1, D), tokens of anchor crops.
        live: (B, K2, D), tokens of live crops.
        boxes: (B, 4), the given boxes in the anchor crops.
    """
    family, steps = runtime.family, (LEVELS, LEVELS)
    answers = []
    for anchor, crop, box in zip(anchors, live, numbers_of(boxes).tolist(), strict=True):
        question, given = prompts.question(box)
        rows = [family.appended(Seen(anchor, steps), 1), family.appended(Seen(crop, steps), 2)]
        request = Request(torch.cat([*rows, family.embed([*question, *given])]), None, _MOST_TOKENS)
        (generation,) = runtime.new_engine().answer([request])
        answers.append(runtime.read(generation, 2, steps).at(1))
    return answers


def answer_measures(answers: list[Grounding], live_box: Tensor, is_present: Tensor) -> Losses:
    """How good answers are.

    Returns:
        ``text_iou`` and ``text_acc50`` (share of IoU > .5) where the object is present, ``score_present`` and
        ``score_absent`` (means), ``score_absent_95`` (95 of 100 absent ones score lower), ``auroc_text``.
    """
    device = live_box.device
    boxes = torch.tensor([list(answer.box) if answer.box else [0.0] * 4 for answer in answers], device=device)
    scores = torch.tensor([answer.score for answer in answers], device=device)
    iou, _ = overlaps(boxes, live_box)
    present, absent = is_present.float(), (~is_present).float()
    low = scores[~is_present]
    return {
        "text_iou": Mean((iou * present).sum(), present.sum()),
        "text_acc50": Mean(((iou > 0.5) * present).sum(), present.sum()),
        "score_present": Mean((scores * present).sum(), present.sum()),
        "score_absent": Mean((scores * absent).sum(), absent.sum()),
        "score_absent_95": Mean(low.quantile(_HIGH) if len(low) else scores.new_zeros(()), absent.sum().clamp(max=1)),
        "auroc_text": ranking(scores, is_present),
    }


def answer_sheet(
    batch: PairFeatures, heads: Tensor, answers: list[Grounding] | None, columns: int = 4
) -> NDArray[np.uint8]:
    """Pairs in rows, anchor beside live crop: truth green, the selector's box blue, the written one red.

    Args:
        batch: Pairs with their pixels; the live box of an absent object is zeros.
        heads: (B, 4), boxes of the selector's best cells.
        answers: What was written; None if the language model is not trained yet. The score stands in the corner.
        columns: Pairs a row.

    Returns:
        RGB uint8 (H, W, 3).
    """
    arrays = {name: tensor.cpu().numpy() for name, tensor in batch.tensors().items()} | {"head": heads.cpu().numpy()}
    tiles = []
    for row in range(len(heads)):
        anchor, live = _enlarged(arrays["anchor_pixels"][row]), _enlarged(arrays["live_pixels"][row])
        _outline(anchor, arrays["anchor_box"][row], _TRUTH)
        _outline(live, arrays["live_box"][row], _TRUTH)
        _outline(live, arrays["head"][row], _HEAD)
        if answers is not None and (box := answers[row].box) is not None:
            _outline(live, np.array(list(box), np.float32), _TEXT)
            place = (3, _TILE_PX - 4)
            cv2.putText(live, f"{answers[row].score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _TEXT, 1)
        tile = np.hstack([anchor, live])
        tiles.append(np.pad(tile, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=_GAP))
    blank = np.full_like(tiles[0], _GAP)
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    return np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_NEAREST), np.uint8)


def _outline(picture: NDArray[np.uint8], box: NDArray[np.float32], color: tuple[int, int, int]) -> None:
    if box.any():
        x1, y1, x2, y2 = (round(float(value) * _TILE_PX) for value in box)
        cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), color, 1)
