"""The truth of cells against a slow count; and how objects are packed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elysium_core.data.photos.frame_views import OTHER_NAME, FrameView
from elysium_core.network.conv_layers import cell_centers
from elysium_core.training.real.frame_features import MOST_OBJECTS, NOTHING, FrameObjects, packed_objects
from elysium_core.training.real.frame_truth import assign_cells, on_objects

corners = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(2, 40)] * 2)
objects = st.lists(st.tuples(st.integers(OTHER_NAME, 4), corners, st.booleans()), max_size=5)


def packed(*found) -> FrameObjects:
    """One frame with objects: name, x1 y1 x2 y2, whether it can be asked for."""
    names, boxes, usable = ([part[column] for part in found] for column in range(3))
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    view = FrameView(np.zeros((8, 8, 3), np.uint8), np.array(names, np.int64), boxes, np.array(usable, bool))
    return packed_objects([view])


def near_middle(box, center, part: float, cells: int) -> bool:
    middle, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    return bool((np.abs(center - middle) < np.maximum(part * side, 0.576 / cells)).all())


@settings(max_examples=60)
@given(objects, st.sampled_from([4, 8, 16]))
def test_cells_belong_to_the_smallest_object_whose_middle_they_are_in(found, cells):
    frame = packed(*[(name, np.array([x, y, x + w, y + h]) / 100, usable) for name, (x, y, w, h), usable in found])
    truth = assign_cells(frame, cell_centers(cells, torch.device("cpu")))
    centers = [np.array([(x + 0.5) / cells, (y + 0.5) / cells]) for y in range(cells) for x in range(cells)]
    names, boxes = frame.names[0].tolist(), frame.boxes[0].numpy()
    known = [row for row, name in enumerate(names) if name >= 0 and frame.is_usable[0, row]]
    other = [row for row, name in enumerate(names) if name != NOTHING and row not in known]
    for cell, center in enumerate(centers):
        owners = [row for row in known if near_middle(boxes[row], center, 0.25, cells)]
        assert bool(truth.is_on[0, cell]) == bool(owners)
        if owners:
            owner = int(truth.owner[0, cell])
            areas = {row: float((boxes[row, 2:] - boxes[row, :2]).prod()) for row in owners}
            assert areas[owner] == min(areas.values())
            assert int(truth.names[0, cell]) == names[owner]
            assert truth.boxes[0, cell].tolist() == boxes[owner].tolist()
        assert bool(truth.is_peak[0, cell]) == any(near_middle(boxes[row], center, 0.13, cells) for row in known)
        on_other = any(near_middle(boxes[row], center, 0.5, 1e9) for row in other)
        assert bool(truth.is_ignored[0, cell]) == (on_other and not owners)


@pytest.mark.parametrize("cells", [4, 8, 16])
def test_every_object_has_a_cell_however_small(cells):
    for place in np.random.default_rng(0).uniform(0.02, 0.96, (50, 2)):
        frame = packed((1, [*place, *(place + 0.02)], True))
        truth = assign_cells(frame, cell_centers(cells, torch.device("cpu")))
        assert truth.is_on.any()
        assert truth.is_peak.any()


def test_tokens_on_objects_are_those_in_their_middles():
    frame = packed((0, [0.0, 0.0, 0.5, 0.5], True), (OTHER_NAME, [0.5, 0.5, 0.9, 0.9], False))
    index = torch.tensor([[0, 9, 18, 27, 45]])  # on the diagonal of 8 x 8 cells, but for the last
    found = on_objects(frame, index, cell_centers(8, torch.device("cpu")))
    assert found.shape == (1, 5, MOST_OBJECTS)
    # Within 0.28 of the sides from (0.25, 0.25): the cells at 0.1875 and 0.3125; and at (0.6875, 0.6875), of the other.
    assert found[0, :, 0].tolist() == [False, True, True, False, False]
    assert found[0, :, 1].tolist() == [False, False, False, False, True]
    assert not found[..., 2:].any()


def test_objects_are_packed_the_largest_first_and_no_name_is_lost():
    many = [(0, [0.1, 0.1, 0.2 + 0.01 * number, 0.3], True) for number in range(30)]
    frame = packed(*many, (3, [0.5, 0.5, 0.52, 0.52], False))
    areas = (frame.boxes[0, :, 2:] - frame.boxes[0, :, :2]).prod(-1)
    assert (areas.diff() <= 0).all()
    assert frame.names[0].tolist() == [0] * (MOST_OBJECTS - 1) + [3]
    assert frame.is_usable[0].tolist() == [True] * (MOST_OBJECTS - 1) + [False]
    assert packed((2, [0, 0, 1, 1], True)).names[0].tolist() == [2] + [NOTHING] * (MOST_OBJECTS - 1)
