"""Results as ``supervision.Detections``, for the annotators, zones and filters of the package supervision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from elysium_core.errors import packages_needed
from elysium_core.geometry import Box
from elysium_core.io.labels import target_name


class Found(Protocol):
    """What has a box: an update of a tracker, or the answer of ``ground``."""

    @property
    def box(self) -> Box | None:
        """The box; None if there is none."""

    @property
    def score(self) -> float:
        """0..1, how sure the box is."""


def as_detections(found: Found | Iterable[Found], width: int, height: int) -> Any:
    """Return the results about one frame as ``supervision.Detections``.

    Results without a box are left out. ``tracker_id`` is the number of the target, and -1 of a result that is of no
    target. ``data`` has ``class_name`` (the words) and ``state`` ("" of a result without one), as arrays of text.

    Args:
        found: Updates of one frame, or answers of ``ground``, or a single one of these.
        width: Frame width [px].
        height: Frame height [px].

    Raises:
        BackendError: The package ``supervision`` is not installed (``PACKAGE_MISSING``).

    Example:
        >>> detections = as_detections(tracker.step(frame), frame.width, frame.height)    # doctest: +SKIP
        >>> supervision.BoxAnnotator().annotate(frame.image.copy(), detections)           # doctest: +SKIP
    """
    with packages_needed():
        import supervision
    results = list(found) if isinstance(found, Iterable) else [found]
    boxes = [(result, result.box) for result in results if result.box is not None]
    if not boxes:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([box.to_px(width, height) for _, box in boxes], dtype=np.float32),
        confidence=np.array([result.score for result, _ in boxes], dtype=np.float32),
        tracker_id=np.array([_number(result) for result, _ in boxes]),
        data={
            "class_name": np.array([_name(result) for result, _ in boxes]),
            "state": np.array([_state(result) for result, _ in boxes]),
        },
    )


def _number(result: Found) -> int:
    target_id = str(getattr(result, "target_id", ""))
    return int(target_id) if target_id.isdecimal() else -1


def _name(result: Found) -> str:
    words, number = str(getattr(result, "expression", "")), _number(result)
    return target_name(number, words) if words or number >= 0 else ""


def _state(result: Found) -> str:
    state = getattr(result, "state", None)
    return "" if state is None else str(state.value)
