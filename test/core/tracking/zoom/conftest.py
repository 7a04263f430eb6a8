"""A model with weak eyes: it sees what is large in the picture it is shown, and guesses where the rest is.

Objects are rectangles of one colour in real pictures, so that crops show them larger. The language model behind the
eyes is the one that knows the truth of what the eyes saw.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from elysium_core.frames import Frame

WIDTH, HEIGHT = 400, 300
COLORS = (50, 100, 150)
LEAST_SIDE = 15
SURE = 95


class WeakEyes:
    """One visual token a picture: where each colour is, if it is large enough; counts its pictures."""

    name = "weak eyes"

    def __init__(self, width: int) -> None:
        self._width = width
        self.guess = [40, 40, 50, 50, 20]
        self.pictures: list[tuple[int, int]] = []

    def encode(self, images):
        rows = torch.zeros(len(images), 1, self._width)
        rows[:, 0, 0] = 2
        for row, image in zip(rows, images, strict=True):
            self.pictures.append(image.shape[1::-1])
            row[0, 2:] = torch.tensor([value for color in COLORS for value in self._see(image, color)])
        return rows

    def _see(self, image, color):
        ys, xs = np.nonzero(image[..., 0] == color)
        if len(xs) == 0:
            return [0] * 5
        height, width = image.shape[:2]
        edges = xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height
        box = [round(100 * float(edge)) for edge in edges]
        if max(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
            return self.guess
        return [*box, SURE]


@pytest.fixture
def eyes(oracle):
    """Makes a runtime whose eyes are weak: ``eyes(window)``."""

    def make(window: str = "anchor"):
        runtime = oracle(window)
        runtime.family.vision = WeakEyes(2 + 5 * len(COLORS))
        return runtime

    return make


@pytest.fixture
def paint():
    """``paint(mug, apple, bear, index=0)``: a frame with rectangles [px]; None where there is nothing."""

    def make(*rectangles, index: int = 0) -> Frame:
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for color, rectangle in zip(COLORS, rectangles, strict=False):
            if rectangle is not None:
                x1, y1, x2, y2 = rectangle
                image[y1:y2, x1:x2] = color
        return Frame(image, stamp_ns=100_000_000 * (index + 1), index=index)

    return make


@pytest.fixture
def room():
    """Size of the frames [px]."""
    return SimpleNamespace(width=WIDTH, height=HEIGHT)
