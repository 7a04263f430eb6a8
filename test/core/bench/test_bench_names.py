from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bench.names import NameAnswers, ask_names, figures_of
from elysium_core.data.photos.photo_records import PhotoObject
from elysium_core.errors import ConfigError
from elysium_core.geometry import Box
from elysium_core.types import Grounding

LEFT, RIGHT, TINY = Box(0.0, 0.0, 0.4, 0.9), Box(0.6, 0.1, 1.0, 0.9), Box(0.5, 0.5, 0.55, 0.55)
PHOTOS = [
    [PhotoObject("dog", LEFT), PhotoObject("cat", RIGHT)],
    [PhotoObject("dog", LEFT), PhotoObject("dog", RIGHT)],
    [PhotoObject("tvmonitor", RIGHT), PhotoObject("cat", TINY), PhotoObject("dog", LEFT, difficult=True)],
    [],
]


class Photos:
    def __len__(self):
        return len(PHOTOS)

    def read(self, index):
        return np.full((10, 10, 3), index, np.uint8)

    def objects_of(self, index):
        return PHOTOS[index]


class Model:
    """Finds everything on the left; knows what it does not see."""

    def __init__(self, box=LEFT):
        self.asked = []
        self._box = box
        vocabulary = ("dog", "cat", "tv monitor", "bus")
        self.runtime = SimpleNamespace(family=SimpleNamespace(settings=SimpleNamespace(vocabulary=vocabulary)))

    def ground(self, image, expression):
        self.asked.append((int(image[0, 0, 0]), expression))
        return Grounding(self._box, 0.1 if expression == "the bus" else 0.9)

    def describe(self, image, box):
        return "dog."


def test_only_what_occurs_once_and_can_be_seen_is_asked_for():
    model = Model()
    answers = ask_names(model, Photos())
    once = [(0, "the dog"), (0, "the cat"), (2, "the tv monitor")]
    assert [asked for asked in model.asked if asked in once] == once
    assert (1, "the dog") not in model.asked
    assert (2, "the cat") not in model.asked
    twice = ["the dog on the left", "the dog on the right"]
    assert sorted(name for index, name in model.asked if index == 1) == ["the bus", "the cat", *twice, "the tv monitor"]
    assert len(answers.present) == 3
    assert len(answers.absent) == 2 + 3 + 1


def test_the_figures_are_those_of_the_answers():
    figures = figures_of(ask_names(Model(), Photos()))
    assert figures.asked == 3
    assert figures.accuracy == pytest.approx((1 / 3,) * 3)

    assert figures.right == pytest.approx(1 / 3)
    assert figures.kept == 1.0
    assert figures.doubted == pytest.approx(3 / 6)
    assert figures.named == pytest.approx(1 / 3)
    assert figures.placed == pytest.approx(1 / 2)


def test_without_a_box_nothing_is_right():
    figures = figures_of(ask_names(Model(None), Photos()))
    assert figures.accuracy == (0, 0, 0)
    assert figures.right == 0


def test_nothing_to_ask_is_said():
    with pytest.raises(ConfigError):
        figures_of(NameAnswers())


def test_some_names_can_be_asked_for_as_if_the_others_were_unknown():
    model = Model()
    answers = ask_names(model, Photos(), ["cat", "bus"])
    assert {expression for _, expression in model.asked} == {"the cat", "the bus"}
    assert len(answers.present) == 1
    assert answers.right == []
