from __future__ import annotations

import numpy as np
import pytest

from elysium_core.curation.curation_rules import (
    DISAGREES,
    DRIFT,
    UNSURE,
    CurationRules,
    Detection,
    Trajectory,
    agrees,
    is_sure,
    place_positions,
    rejection,
    surest,
)
from elysium_core.curation.drift_gate import largest_jump
from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import sample_stored

FRAMES = 9


def moved(x: float, y: float = 0.2, side: float = 0.2) -> Box:
    return Box(x, y, x + side, y + side)


def smooth(count: int = FRAMES) -> list[Box]:
    """A box that moves a tenth of its side a frame."""
    return [moved(0.1 + 0.02 * t) for t in range(count)]


def track(boxes: list[Box | None], scores: list[float] | None = None) -> Trajectory:
    return Trajectory(tuple(boxes), tuple(scores or [0.9] * len(boxes)))


def hits(boxes: list[Box]) -> list[Detection]:
    return [Detection(boxes[position], 0.9) for position in place_positions(len(boxes))]


def test_the_defaults_are_those_of_the_paper():
    rules = CurationRules()
    assert (rules.detection_score, rules.track_score, rules.least_iou, rules.every) == (0.6, 0.8, 0.3, 1)


@pytest.mark.parametrize(
    "values",
    [{"detection_score": 1.1}, {"track_score": float("nan")}, {"least_iou": -0.1}, {"largest_jump": 0}, {"every": 0}],
)
def test_a_threshold_out_of_range_is_refused(values):
    with pytest.raises(ConfigError) as refused:
        CurationRules(**values)
    assert next(iter(values)) in str(refused.value)


def test_a_detection_needs_a_higher_score():
    weak, strong, sure = (Detection(moved(0.1), score) for score in (0.6, 0.61, 0.9))
    assert surest([]) is None
    assert surest([weak]) is None  # higher than 0.6, not equal
    assert surest([strong, sure, weak]) == sure
    assert surest([strong], 0.7) is None


def test_one_doubtful_frame_or_one_without_box_rejects_a_track():
    scores = [0.9] * FRAMES
    assert is_sure(track(smooth(), scores))
    assert not is_sure(track(smooth(), [*scores[:-1], 0.8]))  # higher than 0.8, not equal
    assert not is_sure(track([*smooth(FRAMES - 1), None], scores))
    assert not is_sure(Trajectory((), ()))


def test_smooth_motion_is_no_drift():
    assert largest_jump([]) == 0
    assert largest_jump([moved(0.3)]) == 0
    assert largest_jump([moved(0.3)] * FRAMES) < 0.01
    assert largest_jump(smooth()) < 0.2
    accelerating = [moved(0.05 + 0.004 * t * t) for t in range(FRAMES)]
    assert largest_jump(accelerating) < 0.5


def test_a_leap_is_drift_in_lengths_of_the_box():
    leap = [*smooth(5), moved(0.7), moved(0.72), moved(0.74)]
    assert 2 < largest_jump(leap) < 3  # 0.5 of the frame and a box of 0.2
    small = [Box(*(value / 4 for value in box)) for box in leap]
    assert largest_jump(small) == pytest.approx(largest_jump(leap))


def test_a_sudden_change_of_size_is_drift():
    grown = [*smooth(5), Box(0.0, 0.0, 1.0, 1.0)]
    assert largest_jump(grown) > 1


def test_motion_along_the_long_side_of_a_frame_counts_by_its_length():
    leap = [*smooth(5), moved(0.5)]
    wide = [Box(box.x1 / 2, box.y1, box.x2 / 2, box.y2) for box in leap]  # the same pixels in a frame twice as wide
    assert largest_jump(wide, aspect=2.0) == pytest.approx(largest_jump(leap))


def test_track_and_detection_agree_from_the_least_iou_on():
    box = Box(0.0, 0.0, 0.5, 0.5)
    assert agrees(box, Box(0.0, 0.0, 0.5, 0.15), 0.3)
    assert not agrees(box, Box(0.0, 0.0, 0.5, 0.14), 0.3)
    assert not agrees(None, box)
    assert not agrees(box, None)


def test_each_gate_rejects_what_it_should():
    boxes = smooth()
    rules = CurationRules()
    assert rejection(track(boxes), hits(boxes), rules) is None
    assert rejection(track(boxes, [0.9] * 8 + [0.5]), hits(boxes), rules) == UNSURE
    leap = [*boxes[:5], *(moved(0.7) for _ in range(4))]
    assert rejection(track(leap), hits(leap), rules) == DRIFT
    for number, place in ((1, "middle"), (2, "last")):
        elsewhere = hits(boxes)
        elsewhere[number] = Detection(moved(0.7, 0.7), 0.95)
        assert rejection(track(boxes), elsewhere, rules) == DISAGREES[place]


@pytest.mark.parametrize(("frames", "positions"), [(3, (0, 1, 2)), (4, (0, 2, 3)), (9, (0, 4, 8)), (24, (0, 12, 23))])
def test_places_are_those_of_the_frames_that_a_detector_is_shown(frames, positions):
    pictures = [Frame(np.zeros((2, 2, 3), np.uint8), index=index) for index in range(frames)]
    shown = sample_stored(pictures, "pictures", 3, frames)
    assert place_positions(frames) == positions == tuple(frame.index for frame in shown)
