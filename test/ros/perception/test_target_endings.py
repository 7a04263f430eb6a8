"""What happens to targets in the course of time: ends, failures, settings; and who hears of it."""

from dataclasses import replace

import pytest

from elysium_core.errors import BackendError, TargetError
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import TrackingConfig, TrackState
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import StartRequest

SECOND = 1_000_000_000


class FaultyTracker(IdentityTracker):
    """Raises on the frames that it is told to."""

    broken = False

    def step(self, frame):
        updates = super().step(frame)
        if FaultyTracker.broken:
            raise RuntimeError("the model broke")
        return updates


class FaultyModel(IdentityModel):
    def tracker(self, mode="stream", config=None):
        return FaultyTracker(replace(config or TrackingConfig(), mode=mode))


def test_stopping_one_all_and_none(make_scene):
    scene = make_scene(("a", "b"))
    for camera in ("a", "a", "b"):
        scene.start("it", camera=camera, add=True)
    with pytest.raises(TargetError, match="no target 9; followed are: 1, 2, 3"):
        scene.perception.stop(9)
    with pytest.raises(TargetError, match="not in camera 'b' but in 'a'"):
        scene.perception.stop(1, "b")
    assert scene.perception.stop(2) == [2]
    assert scene.perception.stop(0, "b") == [3]
    assert scene.perception.stop(0) == [1]
    assert scene.perception.stop(0) == []


def test_a_target_stopped_between_two_frames_is_removed_in_the_next(scene, at):
    scene.see(1)
    scene.start(place=at(0, 0, 32, 24))
    scene.see(2)
    scene.perception.stop(1)
    [result] = scene.see(3)
    [view] = result.views
    assert view.update.state is TrackState.REMOVED
    assert (view.update.box, view.update.last_box, view.update.reason) == (None, Box(0, 0, 0.5, 0.5), "it was stopped")
    assert scene.see(4)[0].views == ()


def jump(scene, camera=""):
    """Set time back; return what is published of the first image that is believed."""
    assert scene.see(SECOND, camera) == scene.see(2 * SECOND, camera) == []
    return scene.see(3 * SECOND, camera)


def test_after_a_jump_back_in_time_words_are_searched_again_and_boxes_end(make_scene, at):
    scene = make_scene(("a", "b"))
    ends, word_ends = [], []
    scene.see(9 * SECOND, "a")
    scene.start("one", camera="a", listener=lambda event: word_ends.append(event.end) is None)
    scene.start(place=at(0, 0, 32, 24), camera="a", add=True, listener=lambda event: ends.append(event.end) is None)
    scene.start("three", camera="b")
    [result] = jump(scene, "a")
    assert result.image.stamp_ns == 3 * SECOND
    assert scene.states() == [(2, "REMOVED"), (1, "TRACKED")]
    assert (ends, word_ends) == ([EndReason.TIME_JUMP], [None])
    assert scene.perception.active_ids == [1, 3]
    scene.start("four", camera="a")
    scene.see(4 * SECOND, "a")
    assert scene.states() == [(1, "REMOVED"), (4, "TRACKED")]


def test_one_late_image_ends_nothing(scene, at):
    scene.see(9 * SECOND)
    scene.start(place=at(0, 0, 32, 24))
    assert scene.see(SECOND) == []
    scene.see(10 * SECOND)
    assert scene.states() == [(1, "TRACKED")]


def test_words_given_from_the_start_come_back_with_every_loop_of_a_bag_even_if_they_were_lost(scene):
    request = StartRequest("", "the red mug")
    scene.perception.start_standing(request)
    for loop in (1, 2, 3):
        scene.see(9 * SECOND)
        lose(scene)
        scene.see(10 * SECOND)
        assert scene.perception.active_ids == []
        jump(scene)
        assert scene.states()[-1] == (loop + 1, "TRACKED")


@pytest.mark.parametrize(
    "end",
    [
        lambda perception: perception.stop(1),
        lambda perception: perception.stop(0),
        lambda perception: perception.reset(EndReason.RESET),
        lambda perception: perception.stop(perception.start(StartRequest("", "instead")).id),
    ],
)
def test_words_given_from_the_start_do_not_come_back_once_someone_has_ended_them(scene, end):
    scene.perception.start_standing(StartRequest("", "the red mug"))
    scene.see(9 * SECOND)
    end(scene.perception)
    scene.see(10 * SECOND)
    jump(scene)
    assert scene.perception.active_ids == []


def lose(scene):
    """Have the tracker end its targets, as it does with what stayed lost."""
    [tracker] = scene.perception.stream("").trackers
    for target_id in list(tracker.target_ids):
        tracker.remove(target_id)


def test_an_image_that_cannot_be_read_is_reported_and_the_next_one_counts_it(scene):
    scene.start("the red mug")
    assert scene.see(1, size=None) == []
    assert len(scene.reports) == 1
    assert "no_such" in scene.reports[0]
    [result] = scene.see(2)
    assert result.skipped == 1
    assert scene.states() == [(1, "TRACKED")]


def test_a_failing_model_makes_its_targets_lost_and_never_repeats_a_box(make_scene):
    scene = make_scene(model=FaultyModel())
    scene.start("the red mug")
    scene.see(1)
    FaultyTracker.broken = True
    try:
        [result] = scene.see(2)
    finally:
        FaultyTracker.broken = False
    update = result.views[0].update
    assert (update.state, update.box, update.frame_index, update.stamp_ns) == (TrackState.LOST, None, 1, 2)
    assert "the model broke" in update.reason
    assert scene.perception.failures == 1
    assert "the model broke" in scene.perception.standing_failure
    scene.see(3)
    assert scene.states() == [(1, "TRACKED")]
    assert scene.perception.standing_failure == ""


def test_a_failure_that_the_tracker_has_survived_is_counted_and_reported(make_scene):
    scene = make_scene()
    scene.start("the red mug")
    scene.see(1)
    [tracker] = scene.perception.stream("").trackers
    tracker.stats.failure = BackendError("the vision encoder ran out of memory", code="MEMORY")
    scene.see(2)
    assert scene.perception.failures == 1
    assert "out of memory" in scene.perception.standing_failure
    assert scene.reports == ["the vision encoder ran out of memory"]
    tracker.stats.failure = None
    scene.see(3)
    assert (scene.perception.failures, scene.perception.standing_failure) == (1, "")


def test_a_listener_hears_each_frame_then_the_end_and_may_leave(scene):
    events, first = [], []
    target = scene.start("the red mug", listener=lambda event: events.append(event) is None)
    target.listen(lambda event: first.append(event) is not None)
    for stamp in (1, 2):
        scene.see(stamp)
    scene.perception.reset(EndReason.RESET)
    assert [event.image.stamp_ns if event.image else event.end for event in events] == [1, 2, EndReason.RESET]
    assert len(first) == 1


def test_a_reset_forgets_images_and_targets_and_ids_go_on(scene):
    scene.see(1)
    scene.start("one")
    assert scene.perception.reset(EndReason.RESET) == 1
    assert scene.mailboxes[""].newest() is None
    assert scene.start("two").id == 2
    scene.see(1)
    assert scene.states() == [(1, "REMOVED"), (2, "TRACKED")]


def test_new_settings_reach_all_trackers(scene):
    scene.start("one")
    scene.configure(max_targets=1)
    with pytest.raises(TargetError):
        scene.start("two", add=True)
    assert scene.perception.stream("").trackers[0].config.max_targets == 1
