"""A model that looks closer in all it does, for benchmarks that compare it with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import Grounding, ModelInfo, PerceptionModel, Tracker, TrackingConfig


class ZoomedModel:
    """Grounds, describes and follows with ``zoom``; the rest is the model's own.

    Args:
        model: The model.
    """

    def __init__(self, model: PerceptionModel) -> None:
        self._model = model

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._model.info

    def clean_words(self, expression: str) -> str:
        """As the model does."""
        return self._model.clean_words(expression)

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = True) -> Grounding:
        """Find one expression in one image, with closer looks."""
        return self._model.ground(image, expression, zoom=zoom)

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = True) -> str:
        """Describe what is in a box from a closer look."""
        return self._model.describe(frames, box, frame_index, zoom=zoom)

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """As the model does."""
        return self._model.ask(frames, question, history=history)

    def caption(self, frames: Frame | Sequence[Frame]) -> str:
        """As the model does."""
        return self._model.caption(frames)

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker that looks closer."""
        return self._model.tracker(mode, replace(config or TrackingConfig(), zoom=True))

    def warm_up(self) -> None:
        """As the model does."""
        self._model.warm_up()

    def close(self) -> None:
        """As the model does."""
        self._model.close()
