from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.network.conv_layers import cell_centers
from elysium_core.training.real.box_measures import overlaps
from elysium_core.training.real.frame_features import NOTHING
from elysium_core.training.real.frame_readings import FrameReadingSource, draw_objects
from elysium_core.training.real.frame_truth import assign_cells

CELLS, NAMES = 16, 20


def test_cells_on_objects_tell_box_and_name():
    found = FrameReadingSource(CELLS, NAMES).features(1, 0, 60)
    truth = assign_cells(found.objects, cell_centers(CELLS, torch.device("cpu")))
    on = truth.is_on
    iou, _ = overlaps(found.read_boxes[on], truth.boxes[on])
    assert iou.median() > 0.7
    assert iou.quantile(0.05) < 0.7
    assert torch.equal(found.chances.argmax(-1)[on], truth.names[on])
    assert found.chances[on].amax(-1).min() >= 0.4
    assert found.chances[~on].max() <= 0.25
    assert found.gate[on].mean() > found.gate[~on].mean() + 3


def test_objects_lie_in_the_frame_and_none_hides_another():
    frames = draw_objects(np.random.default_rng(0), 200, NAMES)
    counts = (frames.names != NOTHING).sum(1)
    assert set(counts.tolist()) == {2, 3, 4, 5}
    assert torch.equal(frames.is_usable, frames.names != NOTHING)
    shown = frames.boxes[frames.is_usable]
    assert (shown >= 0).all()
    assert (shown <= 1).all()
    assert (shown[:, 2:] > shown[:, :2]).all()
    several = 0
    for names, boxes, count in zip(frames.names, frames.boxes, counts.tolist(), strict=True):
        several += len(set(names[:count].tolist())) < count
        for first in range(count):
            for second in range(first):
                low = torch.maximum(boxes[first, :2], boxes[second, :2])
                shared = (torch.minimum(boxes[first, 2:], boxes[second, 2:]) - low).clamp_min(0).prod()
                sides = boxes[[first, second], 2:] - boxes[[first, second], :2]
                assert shared <= 0.5 * sides.prod(-1).min() + 1e-6
    # Some frames show several objects of a name.
    assert 20 < several < 150


@pytest.mark.parametrize("names", [1, 2])
def test_there_may_be_fewer_names_than_objects(names):
    frames = draw_objects(np.random.default_rng(0), 50, names)
    assert set(frames.names[frames.is_usable].tolist()) == set(range(names))


def test_readings_depend_on_their_number_alone():
    source = FrameReadingSource(8, 4)
    first, again, other = source.features(1, 2, 3), source.features(1, 2, 3), source.features(1, 3, 3)
    assert all(torch.equal(value, again.tensors()[name]) for name, value in first.tensors().items())
    assert not torch.equal(first.read_boxes, other.read_boxes)
