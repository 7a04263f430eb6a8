"""Finding expressions in a whole picture and in its quarters, for models that see a picture at a low resolution.

What is small in a picture is larger in a quarter of it. A model asks for this by ``find: parts`` in its config.
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
    """Find expressions in a picture as it suits the model best: in the whole of it, or also in its quarters.

    The quarters overlap. An answer in a quarter counts if its score, reduced, is above that of the whole picture, and
    if no edge of the quarter cuts its box.

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
    return best


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
