"""All objects of given names in one picture.

A model answers a name with one box. Others of the name are found by what is added to the question: the one on the left,
at the top, and so on. A model that looks at quarters finds one more in each. A model that was not trained on places is
shown the picture with the known objects painted over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.find_parts import encode_parts, find_in_quarters
from elysium_core.tracking.newcomers import Known, same_object
from elysium_core.types import Grounding

_PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
# Width of the surroundings whose colour hides an object, as a share of its sides.
_RIM = 0.125


def find_instances(
    runtime: Runtime, image: NDArray[np.uint8], names: Sequence[str], known: Sequence[Known] = ()
) -> dict[str, list[Grounding]]:
    """Find the objects of some names in one picture, without those that are known.

    Args:
        runtime: The model.
        image: RGB uint8 (H, W, 3).
        names: Cleaned names.
        known: What is known already.

    Returns:
        For each name its objects, the most certain first; each with a box and a score.
    """
    settings = runtime.family.settings
    trained = settings.words if settings.vocabulary else tuple(_PLACES)
    places = ["", *(f" {words}" for place, words in _PLACES.items() if place in trained)]
    shown = image if len(places) > 1 else painted_over(image, [box for _, box in known])
    seen, quarters = encode_parts(runtime, shown)
    asked = {f"{name}\n{place}": f"{name}{place}" for name in names for place in places}
    answers = find_by_words(runtime, seen, asked)
    own = {name: [answers[f"{name}\n{place}"] for place in places] for name in names}
    for name, answer in find_in_quarters(runtime, quarters, {name: name for name in names}):
        own[name].append(answer)
    return {name: _apart(name, own[name], known) for name in names}


def _apart(name: str, answers: Iterable[Grounding], known: Sequence[Known]) -> list[Grounding]:
    """The answers about different objects, none of them known; the most certain first."""
    kept: list[Grounding] = []
    for answer in sorted(answers, key=lambda answer: -answer.score):
        taken = [*known, *((name, each.box) for each in kept if each.box is not None)]
        if answer.box is not None and not any(same_object((name, answer.box), other) for other in taken):
            kept.append(answer)
    return kept


def painted_over(image: NDArray[np.uint8], boxes: Iterable[Box]) -> NDArray[np.uint8]:
    """A picture in which each box has the mean colour of its surroundings.

    Args:
        image: RGB uint8 (H, W, 3); it is not changed.
        boxes: What is hidden.
    """
    height, width = image.shape[:2]
    painted = image.copy()
    for box in boxes:
        x1, y1, x2, y2 = (round(value) for value in box.to_px(width, height))
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        rim_x, rim_y = max(2, round(_RIM * (x2 - x1))), max(2, round(_RIM * (y2 - y1)))
        above, below = painted[max(0, y1 - rim_y) : y1, x1:x2], painted[y2 : y2 + rim_y, x1:x2]
        left, right = painted[y1:y2, max(0, x1 - rim_x) : x1], painted[y1:y2, x2 : x2 + rim_x]
        rim = np.concatenate([part.reshape(-1, 3) for part in (above, below, left, right)])
        # A box as large as the picture has no surroundings.
        painted[y1:y2, x1:x2] = (rim if len(rim) else painted.reshape(-1, 3)).mean(axis=0)
    return painted
