"""Trackers that follow boxes through a video: OpenCV's, a ViT tracker in ONNX, or any model of elysium."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.curation.chunk_detectors import PLUGIN, make_plugin
from elysium_core.curation.curation_rules import Trajectory
from elysium_core.errors import BackendError, BoxError, ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import RANGES, LoadOptions, TrackingConfig
from elysium_core.types import PerceptionModel

OPENCV, VIT, SAM2 = "opencv:", "vit:", "sam2:"
"""Prefixes of other trackers: ``opencv:CSRT``, ``vit:FILE.onnx`` with the weights of OpenCV's ViT tracker, and
``sam2:MODEL`` with a folder or hub id of SAM 2."""

DEFAULT_FOLLOWER = LoadOptions().model
"""The default model of the package."""

# MIL draws samples inside and around the box, and without room for them loops forever.
_MIN_AREA_PX, _MIN_MARGIN_PX = 25, 10


class BoxFollower(Protocol):
    """Follows boxes from the first frame of a video to its last."""

    @property
    def name(self) -> str:
        """Name, for the record of a run."""
        ...

    def follow(self, frames: Iterable[Frame], boxes: Sequence[Box]) -> list[Trajectory]:
        """Return the trajectory of each box, in their order.

        Args:
            frames: The frames in order of time; they are read once.
            boxes: Boxes in the first frame; at least one.
        """
        ...


class OpenCvFollower:
    """One tracker of OpenCV for each box.

    A tracker with a score of its own (ViT) reports that. The others have none: their score is 1 while they report a box
    and 0 otherwise, so that only the gates behind the tracker sort out drift.

    Args:
        name: For the record.
        make: Makes a new tracker.
        has_scores: The tracker has scores of its own; OpenCV's others answer 0 when asked.
    """

    def __init__(self, name: str, make: Callable[[], Any], *, has_scores: bool = False) -> None:
        self.name, self._make, self._has_scores = name, make, has_scores

    def follow(self, frames: Iterable[Frame], boxes: Sequence[Box]) -> list[Trajectory]:
        """Return the trajectory of each box, in their order."""
        rows: list[list[tuple[Box | None, float]]] = [[] for _ in boxes]
        trackers: list[Any] = []
        for frame in frames:
            picture = np.ascontiguousarray(frame.image[:, :, ::-1])
            if not trackers:
                trackers = [self._started(picture, box) for box in boxes]
                for row, tracker, box in zip(rows, trackers, boxes, strict=True):
                    row.append((box, 1.0) if tracker is not None else (None, 0.0))
                continue
            for row, tracker in zip(rows, trackers, strict=True):
                row.append(_seen(tracker, picture, self._has_scores))
        return [_trajectory(row) for row in rows]

    def _started(self, picture: NDArray[np.uint8], box: Box) -> Any:
        height, width = picture.shape[:2]
        x1, y1, x2, y2 = (round(value) for value in box.to_px(width, height))
        across, down = max(1, x2 - x1), max(1, y2 - y1)
        if across > width - _MIN_MARGIN_PX or down > height - _MIN_MARGIN_PX or across * down < _MIN_AREA_PX:
            return None
        tracker = self._make()
        try:
            tracker.init(picture, (min(x1, width - 1), min(y1, height - 1), across, down))
        except cv2.error:
            return None
        return tracker


class ModelFollower:
    """A model of elysium, or another that fills the same protocol; its scores are those of its boxes.

    Args:
        model: The model.
    """

    def __init__(self, model: PerceptionModel) -> None:
        self.name = f"{model.info.name} {model.info.weights}".strip()
        self._model = model

    def follow(self, frames: Iterable[Frame], boxes: Sequence[Box]) -> list[Trajectory]:
        """Return the trajectory of each box, in their order."""
        rows: list[list[tuple[Box | None, float]]] = [[] for _ in boxes]
        most = int(RANGES["max_targets"][1])
        # A target never ends here: all frames of a kept track need a box.
        config = TrackingConfig(max_targets=most, score_threshold=0.0, lost_after_s=60.0, remove_after_s=0.0)
        trackers = [self._model.tracker(config=config) for _ in range(0, len(boxes), most)]
        ids = [trackers[number // most].add(box=box) for number, box in enumerate(boxes)]
        for frame in frames:
            updates = [{update.target_id: update for update in tracker.step(frame)} for tracker in trackers]
            for number, row in enumerate(rows):
                update = updates[number // most].get(ids[number])
                box = update.box if update is not None else None
                row.append((box, update.score if update is not None and box is not None else 0.0))
        return [_trajectory(row) for row in rows]


def load_follower(spec: str = DEFAULT_FOLLOWER, device: str = "auto") -> BoxFollower:
    """Load a tracker by its name on the command line.

    Args:
        spec: ``opencv:NAME``, ``vit:FILE.onnx``, ``sam2:MODEL``, ``plugin:module:function``, or a model of elysium:
            ``real``, ``nano``, a folder or a hub id.
        device: For a model of elysium or SAM 2.

    Raises:
        BackendError: The installed OpenCV has no such tracker.
        ConfigError: There is no such plugin.
        ModelFileError: The model is not there or cannot be loaded.
    """
    if spec.startswith(PLUGIN):
        follower: BoxFollower = make_plugin(spec)
        return follower
    if spec.startswith(OPENCV):
        return OpenCvFollower(spec, _opencv_tracker(spec.removeprefix(OPENCV)))
    if spec.startswith(VIT):
        return OpenCvFollower(spec, _vit_tracker(Path(spec.removeprefix(VIT))), has_scores=True)
    # torch takes seconds to import, and OpenCV's trackers do not need it.
    if spec.startswith(SAM2):
        from elysium_core.curation.sam2_follower import Sam2Follower

        return Sam2Follower(spec.removeprefix(SAM2), device)
    from elysium_core.api import Elysium

    return ModelFollower(Elysium.from_pretrained(LoadOptions(spec, device=device)))


def opencv_names() -> list[str]:
    """Return the names of the installed OpenCV's trackers that work without weights."""
    return [name for name in ("CSRT", "KCF", "MIL") if _factory(name) is not None]


def _opencv_tracker(name: str) -> Callable[[], Any]:
    make = _factory(name) if name in ("CSRT", "KCF", "MIL") else None
    if make is None:
        raise BackendError(
            f"OpenCV {cv2.__version__} has no tracker {name!r} that works without weights; it has "
            f"{', '.join(opencv_names()) or 'none'} (CSRT and KCF are in opencv-contrib-python)"
        )
    return make


def _factory(name: str) -> Callable[[], Any] | None:
    for module in (cv2, getattr(cv2, "legacy", None)):
        make = getattr(module, f"Tracker{name}_create", None)
        if callable(make):
            factory: Callable[[], Any] = make
            return factory
    return None


def _vit_tracker(path: Path) -> Callable[[], Any]:
    if not path.is_file():
        raise ConfigError(f"there is no ONNX file {str(path)!r}; give the weights of OpenCV's ViT tracker")
    opencv: Any = cv2  # its types lack this tracker
    settings = opencv.TrackerVit_Params()
    settings.net = str(path)

    def make() -> Any:
        return opencv.TrackerVit_create(settings)

    try:
        make()
    except cv2.error as error:
        raise BackendError(f"OpenCV cannot use {str(path)!r} as a ViT tracker: {_short(error)}") from error
    return make


def _seen(tracker: Any, picture: NDArray[np.uint8], has_scores: bool) -> tuple[Box | None, float]:
    """The box of the next frame and its score."""
    if tracker is None:
        return None, 0.0
    try:
        found, (x, y, width, height) = tracker.update(picture)
        if not found:
            return None, 0.0
        box = Box.from_xywh_px(x, y, width, height, picture.shape[1], picture.shape[0])
    except (cv2.error, BoxError):
        return None, 0.0
    score = tracker.getTrackingScore() if has_scores else 1.0
    return box, min(1.0, max(0.0, float(score)))


def _trajectory(row: Sequence[tuple[Box | None, float]]) -> Trajectory:
    return Trajectory(tuple(box for box, _ in row), tuple(score for _, score in row))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
