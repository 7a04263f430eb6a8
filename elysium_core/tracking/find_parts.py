"""Finding expressions in a whole picture and in parts of it, for models that see a picture at a low resolution.

What is small in a picture is larger in a quarter of it. What was found is looked at once more, closer: its box becomes
more exact, and what is doubtful is seen better. A model asks for this by ``find: parts`` in its config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from elysium_core.calibration import ScoreCalibration
from elysium_core.engine.engine import EngineCounters
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.zoom import Encode, Image, ZoomView, tilings
from elysium_core.types import Grounding

# Most quarters do not show the thing, so that their answers are believed less: this shift of the log odds gave the most
# right answers on photos that elysium-real was not trained on.
_IN_A_QUARTER = ScoreCalibration(1.0, -1.5)

# The part of a closer look is this many times as long as the box.
_CLOSER = 2.0
# Boxes of both looks from this IoU on are of the same thing.
_SAME_FROM = 0.3

Quarter: TypeAlias = tuple[ZoomView, Seen]
"""A quarter, and what the encoder made of it."""


def find_in_picture(
    runtime: Runtime,
    image: Image,
    expressions: Mapping[str, str],
    guesses: Mapping[str, Box] | None = None,
    counters: EngineCounters | None = None,
    encode: Encode | None = None,
) -> dict[str, Grounding]:
    """Find expressions in a picture as it suits the model best: in the whole of it, or also in parts.

    The quarters overlap. An answer in a quarter counts if its score, reduced, is above that of the whole picture, and
    if no edge of the quarter cuts its box. The best answer is asked for again in a part around its box.

    Args:
        runtime: The model.
        image: RGB uint8 (H, W, 3).
        expressions: Cleaned expressions by key.
        guesses: Guessed boxes by key. They affect only the speed.
        counters: Counts passes and tokens.
        encode: Encodes images; by default :meth:`elysium_core.runtime.Runtime.encode_frames`.

    Returns:
        One answer for each key; boxes are boxes of the whole picture.
    """
    whole, quarters = encode_parts(runtime, image, encode)
    best = find_by_words(runtime, whole, expressions, guesses, counters)
    for key, found in find_in_quarters(runtime, quarters, expressions, counters):
        if found.score > best[key].score:
            best[key] = found
    if runtime.family.settings.find == "parts":
        best |= look_closer(runtime, image, best, expressions, counters, encode)
    return best


def look_closer(
    runtime: Runtime,
    image: Image,
    answers: Mapping[str, Grounding],
    expressions: Mapping[str, str],
    counters: EngineCounters | None = None,
    encode: Encode | None = None,
) -> dict[str, Grounding]:
    """Ask again in a part around each found box.

    Where both boxes overlap, the answer is their mean. Its score is the lower one.

    Args:
        runtime: The model.
        image: RGB uint8 (H, W, 3).
        answers: Answers by key; boxes are boxes of the whole picture.
        expressions: Cleaned expressions by key.
        counters: Counts passes and tokens.
        encode: Encodes images; by default :meth:`elysium_core.runtime.Runtime.encode_frames`.

    Returns:
        One answer for each key that has a box.
    """
    height, width = image.shape[:2]
    boxes = {key: found.box for key, found in answers.items() if found.box is not None}
    views = {key: ZoomView.around(box, width, height, _CLOSER) for key, box in boxes.items()}
    if not views:
        return {}
    images = (encode or runtime.encode_frames)([view.crop(image) for view in views.values()])
    closer = {}
    for (key, view), seen in zip(views.items(), images, strict=True):
        again = find_by_words(runtime, seen, {key: expressions[key]}, None, counters)[key]
        closer[key] = _agreed(answers[key], boxes[key], again, view)
    return closer


def _agreed(first: Grounding, box: Box, again: Grounding, view: ZoomView) -> Grounding:
    score = min(first.score, again.score)
    other = view.to_frame(again.box) if again.box is not None else None
    if other is None or box.iou(other) < _SAME_FROM:
        return replace(first, score=score)
    return replace(first, box=Box(*(sum(pair) / 2 for pair in zip(box, other, strict=True))), score=score)


def encode_parts(runtime: Runtime, image: Image, encode: Encode | None = None) -> tuple[Seen, list[Quarter]]:
    """Encode a picture (H, W, 3), and its quarters if the model looks at them, in one batch."""
    height, width = image.shape[:2]
    views = tilings(width, height)[0] if runtime.family.settings.find == "parts" else []
    whole, *parts = (encode or runtime.encode_frames)([image, *(view.crop(image) for view in views)])
    return whole, list(zip(views, parts, strict=True))


def find_in_quarters(
    runtime: Runtime,
    quarters: Sequence[Quarter],
    expressions: Mapping[str, str],
    counters: EngineCounters | None = None,
) -> Iterator[tuple[str, Grounding]]:
    """Find expressions in each quarter; yield keys and answers whose box, one of the whole picture, is not cut."""
    for view, seen in quarters:
        for key, answer in find_by_words(runtime, seen, expressions, None, counters).items():
            if (found := _of_quarter(answer, view)) is not None:
                yield key, found


def _of_quarter(answer: Grounding, view: ZoomView) -> Grounding | None:
    """An answer about a quarter as one about the picture; None if it has no whole box."""
    if answer.box is None or view.cuts(answer.box):
        return None
    return replace(answer, box=view.to_frame(answer.box), score=_IN_A_QUARTER(answer.score))
