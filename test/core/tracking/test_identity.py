from __future__ import annotations

import numpy as np
import pytest

from elysium_core.errors import ExpressionError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import PerceptionModel, Tracker, TrackingConfig, TrackState

BOX = Box(0.1, 0.2, 0.3, 0.4)


def frame(index: int = 0) -> Frame:
    return Frame(np.zeros((4, 4, 3), np.uint8), stamp_ns=index * 10, index=index)


def test_it_fills_the_protocols():
    model: PerceptionModel = IdentityModel()
    tracker: Tracker = model.tracker()
    assert tracker.target_ids == []
    assert model.info.name == "identity"


def test_a_box_stands_still():
    tracker = IdentityTracker()
    target_id = tracker.add(box=BOX)
    for index in range(3):
        (update,) = tracker.step(frame(index))
        assert (update.target_id, update.box, update.state) == (target_id, BOX, TrackState.TRACKED)
        assert (update.frame_index, update.stamp_ns, update.age) == (index, index * 10, index)
    assert tracker.stats.frames == 3


def test_words_are_cleaned_and_answered_with_the_whole_frame():
    tracker = IdentityTracker()
    tracker.add("the  red\nmug")
    (update,) = tracker.step(frame())
    assert (update.expression, update.box) == ("the red mug", Box(0, 0, 1, 1))


def test_a_removed_target_is_reported_once_and_its_id_is_not_used_again():
    tracker = IdentityTracker()
    first, second = tracker.add(box=BOX), tracker.add(box=BOX)
    tracker.remove(first)
    states = [{u.target_id: u.state for u in tracker.step(frame(index))} for index in range(2)]
    assert states == [{first: TrackState.REMOVED, second: TrackState.TRACKED}, {second: TrackState.TRACKED}]
    tracker.reset()
    assert tracker.target_ids == []
    assert tracker.add(box=BOX) not in (first, second)


def test_what_cannot_be_followed_is_refused():
    tracker = IdentityTracker(TrackingConfig(max_targets=1))
    with pytest.raises(TargetError, match="expression, a box, or both"):
        tracker.add()
    with pytest.raises(ExpressionError):
        tracker.add("<image>", BOX)
    tracker.add(box=BOX)
    with pytest.raises(TargetError, match="already 1 targets") as error:
        tracker.add(box=BOX)
    assert error.value.code == "TARGET_LIMIT"
    with pytest.raises(TargetError, match="no target '9'"):
        tracker.remove("9")


def test_new_settings_hold_from_then_on():
    tracker = IdentityTracker(TrackingConfig(max_targets=1))
    tracker.add(box=BOX)
    tracker.configure(TrackingConfig(max_targets=2))
    assert tracker.add(box=BOX) == "2"


def test_the_tracker_has_the_mode_that_was_asked_for():
    assert IdentityModel().tracker(mode="clip", config=TrackingConfig(max_targets=2)).config == TrackingConfig(
        mode="clip", max_targets=2
    )


def test_the_answers_without_a_model_say_so():
    model = IdentityModel()
    assert model.ground(frame(), "the mug").box == Box(0, 0, 1, 1)
    assert model.describe(frame(), BOX) == "something at 10,20,30,40"
    assert model.ask(frame(), "what is it?") == model.caption(frame()) == "no model is loaded"
    with pytest.raises(ExpressionError):
        model.ground(frame(), "ASSISTANT: yes")
