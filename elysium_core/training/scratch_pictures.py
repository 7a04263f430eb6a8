"""Sample pictures of the stages from scratch: each stage shows what it learns."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.geometry import Box
from elysium_core.io.overlay import draw_boxes
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.batches import Batch
from elysium_core.training.sample_answers import answer_questions, draw_sample, training_runtime
from elysium_core.training.stages import TrainingModel

_MOST_CLIPS = 4
_PICTURE_PX = 256
_SMALLEST_SIDE = 0.01


def draw_answers(
    model: TrainingModel, kind: str, batch: Batch, tokenizer: TextTokenizer
) -> dict[str, NDArray[np.uint8]]:
    """Draw what a model says about the first clips of a batch.

    ``vision`` and ``distil`` show the boxes that patches tell, ``joint`` answers to questions;
    ``language`` sees no pixels, so there is nothing to draw.

    Args:
        model: In evaluation mode.
        kind: The stage's kind.
        batch: On the model's device.
        tokenizer: Of the model.

    Returns:
        Pictures by name.
    """
    if kind in ("vision", "distil"):
        return _patch_pictures(model, batch)
    return _question_pictures(model, batch, tokenizer) if kind == "joint" else {}


def _question_pictures(model: TrainingModel, batch: Batch, tokenizer: TextTokenizer) -> dict[str, NDArray[np.uint8]]:
    runtime = training_runtime(model.network, tokenizer)
    pictures = {}
    for row in range(min(_MOST_CLIPS, len(batch.token_ids))):
        images = batch.images[row * batch.frames : (row + 1) * batch.frames].cpu().numpy()
        answers = answer_questions(runtime, images, batch.token_ids[row], batch.branch[row], batch.label_weight[row])
        pictures[f"answers-{row}"] = draw_sample(list(images), answers)
    return pictures


@torch.no_grad()
def _patch_pictures(model: TrainingModel, batch: Batch) -> dict[str, NDArray[np.uint8]]:
    frames = min(_MOST_CLIPS, len(batch.images))
    tokens = model.network.visual_encoder(model.transform.normalize(batch.images[:frames]))
    *_, told = model.patch_heads(tokens)
    pictures = {}
    for frame in range(frames):
        owners, truth = batch.patch_object[frame], batch.patch_box[frame]
        picture = batch.images[frame].cpu().numpy()
        scale = _PICTURE_PX / picture.shape[0]
        for number in sorted(set(owners.tolist()) - {-1}):
            own = owners == number
            boxes = [_box(truth[own][0].tolist()), _box(told[frame][own].mean(0).tolist())]
            for box, label in zip(boxes, (str(number), f"{number}?"), strict=True):
                picture = draw_boxes(picture, [box], label=label, scale=scale)
                scale = 1.0
        pictures[f"patches-{frame}"] = picture
    return pictures


def _box(values: list[float]) -> Box | None:
    """What a head says is any four numbers; what is no box is not drawn."""
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in values)
    return Box(x1, y1, x2, y2) if x2 - x1 > _SMALLEST_SIDE and y2 - y1 > _SMALLEST_SIDE else None
