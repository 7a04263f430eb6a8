from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.data.photos.frame_views import OTHER_NAME
from elysium_core.geometry import Box
from elysium_core.training.real import word_answers
from elysium_core.training.real.frame_features import NOTHING, FrameObjects
from elysium_core.training.real.word_answers import answer_names, name_measures, name_sheet
from elysium_core.types import Grounding

NAMES = ("mug", "apple", "teddy bear", "owl", "cup", "sky")
LEFT, RIGHT, TINY = [0.0, 0.0, 0.4, 0.8], [0.6, 0.0, 1.0, 0.8], [0.5, 0.9, 0.55, 0.95]
NOWHERE = [0.0, 0.0, 0.0, 0.0]


def frames(*rows) -> FrameObjects:
    """Frames with objects: name, box, whether it can be asked for."""
    empty = (NOTHING, NOWHERE, False)
    padded = [[*row, *[empty] * (4 - len(row))] for row in rows]
    names, boxes, usable = ([[each[column] for each in row] for row in padded] for column in range(3))
    return FrameObjects(torch.tensor(names), torch.tensor(boxes), torch.tensor(usable))


def said(box, score: float) -> Grounding:
    return Grounding(None if box is None else Box(*box), score)


def values(measures) -> dict[str, float]:
    return {name: float(mean.value) for name, mean in measures.items() if float(mean.weight)}


def test_measures_of_answers_made_by_hand():
    objects = frames(
        [(0, LEFT, True), (1, RIGHT, True)],
        [(0, LEFT, True), (1, RIGHT, True), (2, TINY, True), (3, [0.4, 0.0, 0.6, 0.5], False)],
    )
    narrow = [0.0, 0.0, 0.16, 0.8]
    answers = [
        # Right and too narrow, then the other one's box; the owl is not there.
        {0: said(narrow, 0.8), 1: said(LEFT, 0.6), 3: said(LEFT, 0.7)},
        # Exact; no box; too small to count; not to be asked for; not there.
        {0: said(LEFT, 0.9), 1: said(None, 0.0), 2: said(LEFT, 0.95), 3: said(LEFT, 0.99), 4: said(RIGHT, 0.1)},
    ]
    found = values(name_measures(answers, objects))
    assert found["find_iou"] == pytest.approx((0.4 + 0 + 1 + 0) / 4)
    assert found["find_acc50"] == 0.25
    # The second frame shows four names.
    assert found["find_right"] == 0.5
    assert found["find_score"] == pytest.approx((0.8 + 0.6 + 0.9 + 0.0) / 4)
    assert found["find_score_absent"] == pytest.approx(0.4)
    assert found["find_score_absent_90"] == pytest.approx(0.64)
    assert found["auroc_find"] == pytest.approx((2 + 1 + 2 + 0) / 8)


def test_without_answers_nothing_is_measured():
    measures = name_measures([{}], frames([(0, LEFT, True)]))
    assert values(measures) == {}
    assert set(measures) == set(name_measures([{0: said(LEFT, 0.5)}], frames([(0, LEFT, True)])))


def test_names_that_are_shown_once_are_asked_for_and_some_that_are_not(crop_folder, monkeypatch):
    asked = []

    def listening(runtime, seen, expressions):
        asked.append(expressions)
        return {key: said(LEFT, 0.5) for key in expressions}

    monkeypatch.setattr(word_answers, "find_by_words", listening)
    model = Elysium.from_pretrained(crop_folder, device="cpu")
    objects = frames([(0, LEFT, True), (1, RIGHT, True), (1, TINY, True), (OTHER_NAME, TINY, False)], [])
    answers = answer_names(model.runtime, NAMES, torch.zeros(2, 6, 32), objects)
    assert asked[0]["0"] == "the mug"
    assert "1" not in asked[0]
    assert [set(found) & {0, 1} for found in answers] == [{0}, set(answers[1]) & {0, 1}]
    assert [len(found) for found in answers] == [1 + 4, 4]
    assert asked[1] == {str(name): f"the {NAMES[name]}" for name in answers[1]}


def test_answers_are_written_by_the_model(crop_folder):
    model = Elysium.from_pretrained(crop_folder, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    (seen,) = model.runtime.encode_frames([image])
    (found,) = answer_names(model.runtime, NAMES[:3], seen.rows[None], frames([(1, LEFT, True)]))
    expected = model.ground(image, "the apple")
    assert (found[1].box, found[1].score) == (expected.box, pytest.approx(expected.score))


def test_a_sheet_shows_truth_and_answers():
    pixels = torch.full((2, 64, 64, 3), 90, dtype=torch.uint8)
    objects = frames([(0, LEFT, True)], [(0, RIGHT, False)])
    answers = [{0: said(RIGHT, 0.8), 1: said(None, 0.0)}, {1: said(LEFT, 0.1)}]
    sheet = name_sheet(pixels, objects, answers, NAMES, threshold=0.3, columns=3)
    assert sheet.shape == (64, 3 * 64, 3)
    truth, sure, unsure = (0, 255, 0), (255, 64, 0), (160, 160, 160)

    def colors(tile):
        return {tuple(color) for color in sheet[:, 64 * tile : 64 * (tile + 1)].reshape(-1, 3).tolist()}

    assert tuple(sheet[30, 0]) == truth
    assert tuple(sheet[45, round(0.6 * 64)]) == sure
    # An object that cannot be asked for is not outlined, an unsure answer is grey, behind the last frame is nothing.
    assert truth not in colors(1)
    assert sure not in colors(1)
    assert tuple(sheet[45, 64]) == unsure
    assert colors(2) == {(0, 0, 0)}
