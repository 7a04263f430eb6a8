"""What a model answers about whole frames: names that are there once, and names that are not.

Shapes: B frames, K visual tokens, D the LLM's width, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.families.base import Seen
from elysium_core.prompt.box_text import LEVELS
from elysium_core.runtime import Runtime
from elysium_core.tracking.find import find_by_words
from elysium_core.training.losses import Losses, Mean
from elysium_core.training.real.box_measures import overlaps, ranking
from elysium_core.training.real.frame_features import NOTHING, FrameObjects
from elysium_core.types import Grounding

_ABSENT_NAMES = 4
_LEAST_SIDE = 0.1
_SEVERAL = (2, 3)
_LEAST_OVERLAP = 0.05
_HIGH = 0.9
_TRUTH, _SURE, _UNSURE = (0, 255, 0), (255, 64, 0), (160, 160, 160)


@torch.no_grad()
def answer_names(
    runtime: Runtime, names: Sequence[str], visual: Tensor, objects: FrameObjects
) -> list[dict[int, Grounding]]:
    """Ask about each frame for every name that it shows once, and for some that it does not show.

    Args:
        runtime: The model.
        names: The known names.
        visual: (B, K, D), tokens of frames.
        objects: The truth.

    Returns:
        For each frame, answers by number of the name.
    """
    found = []
    for row, tokens in enumerate(visual):
        answers = find_by_words(runtime, Seen(tokens, (LEVELS, LEVELS)), asked_names(names, objects, row))
        found.append({int(name): answer for name, answer in answers.items()})
    return found


def asked_names(names: Sequence[str], objects: FrameObjects, row: int) -> dict[str, str]:
    """Expressions for the names that a frame shows once, and for some that it does not show, by number of the name."""
    shown = objects.names[row][objects.names[row] != NOTHING].tolist()
    rng = np.random.default_rng(row)
    missing = [name for name in range(len(names)) if name not in shown]
    asked = [name for name in sorted(set(shown)) if name >= 0 and shown.count(name) == 1]
    asked += rng.permutation(missing)[:_ABSENT_NAMES].tolist()
    return {str(name): f"the {names[name]}" for name in asked}


def name_measures(answers: Sequence[dict[int, Grounding]], objects: FrameObjects) -> Losses:
    """How good answers are; of the shown objects those count that can be asked for and are no smaller than a tenth.

    Returns:
        ``find_iou`` and ``find_acc50`` (share of IoU > .5); ``find_right``, where two or three names are shown, the
        share of boxes that fit the asked object best; ``find_score``, ``find_score_absent`` (means),
        ``find_score_absent_90`` (90 of 100 absent names score lower) and ``auroc_find``.
    """
    ious, right, scores, present = [], [], [], []
    for row, found in enumerate(answers):
        for name, answer in found.items():
            (members,) = (objects.names[row] == name).nonzero(as_tuple=True)
            if not len(members):
                scores.append(answer.score)
                present.append(False)
                continue
            target = int(members[0])
            box = objects.boxes[row, target]
            if not objects.is_usable[row, target] or float((box[2:] - box[:2]).max()) < _LEAST_SIDE:
                continue
            scores.append(answer.score)
            present.append(True)
            overlap = _overlaps(answer, objects.boxes[row])
            ious.append(float(overlap[target]))
            shown = objects.names[row] >= 0
            if _SEVERAL[0] <= len(set(objects.names[row][shown].tolist())) <= _SEVERAL[1]:
                rivals = overlap[shown & (objects.names[row] != name)]
                best = float(rivals.max()) if len(rivals) else 0.0
                right.append(float(overlap[target] > max(best, _LEAST_OVERLAP)))
    device = objects.boxes.device
    iou, hit, score = (torch.tensor(values, device=device) for values in (ious, right, scores))
    there = torch.tensor(present, dtype=torch.bool, device=device)
    low = score[~there]
    return {
        "find_iou": _mean(iou),
        "find_acc50": _mean((iou > 0.5).float()),
        "find_right": _mean(hit),
        "find_score": _mean(score[there]),
        "find_score_absent": _mean(low),
        "find_score_absent_90": _mean(low.quantile(_HIGH)[None] if len(low) else low),
        "auroc_find": ranking(score, there),
    }


def _overlaps(answer: Grounding, boxes: Tensor) -> Tensor:
    if answer.box is None:
        return boxes.new_zeros(len(boxes))
    iou, _ = overlaps(boxes.new_tensor(list(answer.box)).expand_as(boxes), boxes)
    return iou


def _mean(values: Tensor) -> Mean:
    return Mean(values.sum(), values.new_tensor(float(len(values))))


def name_sheet(
    pixels: Tensor,
    objects: FrameObjects,
    answers: Sequence[dict[int, Grounding]],
    names: Sequence[str],
    threshold: float,
    columns: int = 6,
) -> NDArray[np.uint8]:
    """Frames with their true boxes (green) and the answers: red from the threshold on, grey below it.

    Args:
        pixels: (B, S, S, 3) uint8 RGB.
        objects: The truth.
        answers: For each frame, answers by number of the name.
        names: The known names.
        threshold: Least score of a sure answer.
        columns: Frames a row.

    Returns:
        RGB uint8 (H, W, 3).
    """
    tiles = []
    for row, found in enumerate(answers):
        picture = pixels[row].cpu().numpy().copy()
        side = len(picture)
        for box in objects.boxes[row][objects.is_usable[row]].tolist():
            _outline(picture, box, side, _TRUTH)
        for name, answer in found.items():
            if answer.box is None:
                continue
            color = _SURE if answer.score >= threshold else _UNSURE
            _outline(picture, list(answer.box), side, color)
            place = (round(answer.box.x1 * side) + 2, min(side - 3, round(answer.box.y1 * side) + 11))
            cv2.putText(picture, f"{names[name]} {answer.score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, color, 1)
        tiles.append(picture)
    blank = np.zeros_like(tiles[0])
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    return np.vstack([np.hstack(row + [blank] * (columns - len(row))) for row in rows])


def _outline(picture: NDArray[np.uint8], box: Sequence[float], side: int, color: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = (round(value * side) for value in box)
    cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), color, 1)
