"""Sample images of a training: answers of the model to questions of a batch, drawn with the true answers.

The answers are generated greedily, as in inference. Teacher forcing would make them look better than they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.engine.engine import Request
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.geometry import Box
from elysium_core.io.overlay import draw_boxes, draw_tracks
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.prompt.box_text import LEVELS, parse_answer
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.types import TrackState, TrackUpdate
from elysium_core.vision.torch_vision import TorchVision

_PICTURE_PX = 256
_MOST_QUESTIONS = 4
_MOST_FRAMES = 4
_SPARE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """A question of a batch with the true answer and the answer of the model.

    Attributes:
        question: The question.
        wanted: The true answer.
        given: The answer of the model.
        scores: Scores of the model's boxes, one per frame.
    """

    question: str
    wanted: str
    given: str
    scores: tuple[float, ...]


def training_runtime(network: ElysiumNetwork, tokenizer: TextTokenizer) -> Runtime:
    """Return an inference runtime for a network in training, with the torch backend, which uses current weights."""
    return Runtime(ElysiumFamily(network, tokenizer, TorchVision(network)))


def answer_questions(
    runtime: Runtime, images: NDArray[np.uint8], token_ids: Tensor, branch: Tensor, label_weight: Tensor
) -> list[SampleAnswer]:
    """Let the model answer the first question of each branch of one row of a batch.

    Args:
        runtime: The model.
        images: (T, S, S, 3) RGB, the row's frames; T may be 0.
        token_ids: (L,) of the row.
        branch: (L,) of the row.
        label_weight: (L,) of the row.

    Returns:
        At most four answers.
    """
    seen = runtime.encode_frames(list(images)) if len(images) else []
    prefix = runtime.family.opening(seen) if seen else None
    steps = seen[0].steps if seen else (LEVELS, LEVELS)
    pairs = list(_first_rounds(token_ids, branch, label_weight))[:_MOST_QUESTIONS]
    decode = runtime.tokenizer.decode
    answers = []
    for question, wanted in pairs:
        request = Request(runtime.family.embed(question), None, len(wanted) + _SPARE_TOKENS)
        generation = runtime.new_engine().answer([request], prefix)[0]
        answer = runtime.read(generation, max(1, len(images)), steps)
        answers.append(SampleAnswer(decode(question), decode(wanted), answer.text, answer.scores))
    return answers


def _first_rounds(token_ids: Tensor, branch: Tensor, label_weight: Tensor) -> Iterator[tuple[list[int], list[int]]]:
    """Yield question and answer token ids of the first round of each branch."""
    for number in range(1, int(branch.max()) + 1):
        places = torch.nonzero(branch == number)[:, 0]
        labelled = (label_weight[places] > 0).tolist()
        ids = token_ids[places].tolist()
        if True in labelled:
            start = labelled.index(True)
            end = labelled.index(False, start) if False in labelled[start:] else len(ids)
            yield ids[:start], ids[start:end]


def draw_sample(images: Sequence[NDArray[np.uint8]], answers: Sequence[SampleAnswer]) -> NDArray[np.uint8]:
    """Draw answers on the frames of a clip, side by side: the truth thin and white, the model's in colour.

    Args:
        images: RGB, all of one size, at least one; the first four are drawn.
        answers: Answers about these images.
    """
    count = len(images)
    wanted = [parse_answer(answer.wanted, count).boxes for answer in answers]
    given = [parse_answer(answer.given, count).boxes for answer in answers]
    drawn = []
    for frame, image in enumerate(images[:_MOST_FRAMES]):
        updates = [
            _update(str(number), frame, boxes[frame], answer)
            for number, (answer, boxes) in enumerate(zip(answers, given, strict=True), 1)
            if boxes[frame] is not None
        ]
        picture = draw_tracks(image, updates, scale=_PICTURE_PX / image.shape[0])
        for number, boxes in enumerate(wanted, 1):
            picture = draw_boxes(picture, [boxes[frame]], label=str(number))
        drawn.append(picture)
    return np.concatenate(drawn, axis=1)


def _update(target: str, frame: int, box: Box | None, answer: SampleAnswer) -> TrackUpdate:
    score = answer.scores[frame] if frame < len(answer.scores) else 0.0
    return TrackUpdate(target, frame, box, score, TrackState.TRACKED, expression=answer.question)
