"""OpenCV's trackers as models for the benchmarks: those of the installed ``cv2`` that need no weight files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError, BoxError, TargetError
from elysium_core.evaluation.peers import OPENCV, PeerModel, PeerTarget, PeerTracker, Sighting
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import TrackingConfig
from elysium_core.types import ModelInfo

# These need weight files that OpenCV does not include.
_NEED_WEIGHTS = frozenset({"DaSiamRPN", "GOTURN", "Nano", "Vit"})
# MIL draws samples inside and around the box. Without room for them it loops forever.
_MIN_AREA_PX = 25
_MIN_MARGIN_PX = 10


def opencv_trackers() -> dict[str, Callable[[], Any]]:
    """Return the trackers of the installed OpenCV that work without weights: name -> factory."""
    found = {}
    # The contrib build has older trackers in cv2.legacy; those of the main module replace them.
    for module in (getattr(cv2, "legacy", None), cv2):
        for attribute in dir(module):
            name = attribute.removeprefix("Tracker").removesuffix("_create")
            if attribute == f"Tracker{name}_create" and name not in _NEED_WEIGHTS:
                found[name] = getattr(module, attribute)
    return found


class OpenCvTracker(PeerTracker):
    """Follows each box with one classical tracker.

    MIL draws random samples from a generator that all targets share and that cannot be
    seeded. Its boxes therefore vary by some pixels with what was tracked before.

    Args:
        make: Makes a new OpenCV tracker for a target.
        config: Settings.
    """

    def __init__(self, make: Callable[[], Any], config: TrackingConfig) -> None:
        super().__init__(config)
        self._make = make

    def check(self, expression: str, box: Box | None) -> None:
        """Refuse a target without a box, because these trackers cannot use words."""
        if box is None:
            raise TargetError("OpenCV's trackers start from a box, not from words; use --task sot", code="TARGET_EMPTY")

    def start(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Initialise a tracker with the box, and return that box."""
        if target.box is None:
            raise TargetError("an OpenCV tracker has no box to start from", code="TARGET_EMPTY")
        left, top, width, height = _pixel_box(target.box, frame)
        too_large = width > frame.width - _MIN_MARGIN_PX or height > frame.height - _MIN_MARGIN_PX
        if too_large or width * height < _MIN_AREA_PX:
            return Sighting(target.box)
        tracker = self._make()
        try:
            tracker.init(_as_bgr(frame), (left, top, width, height))
        except cv2.error as error:
            raise TargetError(f"OpenCV cannot start at the box {list(target.box)}: {_short(error)}") from error
        target.memory = tracker
        return Sighting(target.box)

    def follow(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Update the tracker of the target; it gives a box or none, and no score."""
        if target.memory is None:
            return Sighting(None, reason="OpenCV could not start with a box of this size")
        try:
            found, (x, y, w, h) = target.memory.update(_as_bgr(frame))
            if found:
                return Sighting(Box.from_xywh_px(x, y, w, h, frame.width, frame.height))
        except cv2.error as error:
            return Sighting(None, reason=f"OpenCV failed: {_short(error)}")
        except BoxError:
            return Sighting(None, reason="the tracker left the frame")
        return Sighting(None, reason="the tracker lost the target")


class OpenCvModel(PeerModel):
    """A model that tracks with one of OpenCV's trackers and has no other task.

    Args:
        name: Name of the tracker, such as ``MIL`` or ``CSRT``.

    Raises:
        BackendError: The installed OpenCV has no such tracker.
    """

    def __init__(self, name: str) -> None:
        trackers = opencv_trackers()
        if name not in trackers:
            raise BackendError(
                f"OpenCV {cv2.__version__} ships no tracker {name!r} that works without weights; "
                f"it has {', '.join(sorted(trackers)) or 'none'} (opencv-contrib-python has more)"
            )
        self._make = trackers[name]
        super().__init__(
            ModelInfo(name=f"{OPENCV}{name}", backend=f"opencv {cv2.__version__}", describes="none"),
            "it follows boxes only, not words: use it with --task sot",
        )

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> OpenCvTracker:
        """Make a tracker. It returns the boxes of each frame at once, in every mode."""
        return OpenCvTracker(self._make, config or TrackingConfig())


def _pixel_box(box: Box, frame: Frame) -> tuple[int, int, int, int]:
    """Return left, top, width, height in whole pixels, at least one each and inside the frame."""
    x1, y1, x2, y2 = box.to_px(frame.width, frame.height)
    left, top = min(round(x1), frame.width - 1), min(round(y1), frame.height - 1)
    width = max(1, min(round(x2 - x1), frame.width - left))
    return left, top, width, max(1, min(round(y2 - y1), frame.height - top))


def _as_bgr(frame: Frame) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.image[:, :, ::-1])


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
