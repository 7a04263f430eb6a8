"""Small recordings on disk, and trackers whose answers are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elysium_core.evaluation import tracking_report
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import TrackState, TrackUpdate

SIZE = (64, 48)


def square(index: int) -> tuple[int, int, int, int]:
    """Where the target is in frame ``index``: x, y, w, h [px]."""
    return 4 + 5 * index, 10 + index, 16, 20


@pytest.fixture
def plots():
    """Ask for real plots; see ``_plots_only_where_asked``."""


@pytest.fixture(autouse=True)
def _plots_only_where_asked(request, monkeypatch):
    """Leave plots out of reports that a test makes for their figures: drawing takes longer than everything else."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr(tracking_report, "draw_plots", lambda *arguments: [])


@pytest.fixture
def make_recording(tmp_path):
    """Write a recording of a white square that moves to the right; in the ``folder`` layout."""

    def _make(name="mug", frames=6, expression="the white square", root="data", absent=()) -> Path:
        folder = tmp_path / root / name
        (folder / "frames").mkdir(parents=True)
        lines = []
        for index in range(frames):
            image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            x, y, w, h = square(index)
            image[y : y + h, x : x + w] = 255
            Image.fromarray(image).save(folder / "frames" / f"{index}.png")
            lines.append("NaN,NaN,NaN,NaN" if index in absent else f"{x},{y},{w},{h}")
        (folder / "gt.txt").write_text("\n".join(lines) + "\n")
        if expression:
            (folder / "expression.txt").write_text(expression)
        return tmp_path / root

    return _make


class ScriptedTracker(IdentityTracker):
    """Answers the true box of each frame, except where told to be silent; may hold answers back to the end."""

    def __init__(self, silent=(), hold_back=False):
        super().__init__()
        self.silent, self.hold_back, self.held = silent, hold_back, []
        self.told: list[tuple[str, Box | None]] = []

    def add(self, expression="", box=None):
        self.told.append((expression, box))
        return super().add(expression, box)

    def step(self, frame):
        x, y, w, h = square(frame.index)
        if frame.index in self.silent:
            self.stats.parse_failures["no label"] = self.stats.parse_failures.get("no label", 0) + 1
            update = TrackUpdate("1", frame.index, None, 0.0, TrackState.LOST, reason="the answer held no box")
        else:
            box = Box.from_xywh_px(x, y, w, h, *SIZE)
            update = TrackUpdate("1", frame.index, box, 1.0, TrackState.TRACKED)
        self.held.append(update)
        return [] if self.hold_back else [self.held.pop()]

    def flush(self):
        held, self.held = self.held, []
        return held


class ScriptedModel(IdentityModel):
    """A model whose trackers are :class:`ScriptedTracker`; remembers them."""

    def __init__(self, **settings):
        self.settings, self.trackers = settings, []

    def tracker(self, mode="stream", config=None):
        self.trackers.append(ScriptedTracker(**self.settings))
        return self.trackers[-1]


@pytest.fixture
def scripted_model():
    return ScriptedModel


@pytest.fixture
def scripted_tracker():
    return ScriptedTracker
