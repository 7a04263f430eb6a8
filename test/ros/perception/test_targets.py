"""What is followed: where a target starts, who shares a tracker, what is refused."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from elysium_core.errors import BoxError, ExpressionError, TargetError
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import TrackingConfig, TrackState, TrackUpdate
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.targets import Target


def test_every_frame_is_published_also_without_targets(scene):
    [result] = scene.see(1)
    assert (result.image.stamp_ns, result.frame.width, result.views) == (1, 64, ())


def test_a_target_by_words_and_one_by_a_box_share_the_frames(scene, at):
    first = scene.start("the red mug")
    scene.see(1)
    second = scene.start(place=at(16, 12, 32, 24), add=True)
    scene.see(2)
    assert scene.states() == [(first.id, "TRACKED"), (second.id, "TRACKED")]
    assert scene.results[-1].views[1].update.box == Box(0.25, 0.25, 0.5, 0.5)
    assert len(scene.perception.stream("").trackers) == 1


def test_a_box_on_the_newest_image_is_put_on_that_image_even_if_nobody_has_looked_at_it(scene, at):
    scene.see(1)
    scene.arrive(2)
    scene.start(place=at(0, 0, 32, 24))
    assert [result.image.stamp_ns for result in scene.results] == [1, 2]
    assert scene.mailboxes[""].take() is not None, "the image still waits for the thread"
    scene.see(3)
    assert scene.states() == [(1, "TRACKED")]


def test_an_image_that_was_looked_at_early_is_not_published_twice_and_its_skips_are_counted_once(scene, at):
    for stamp in (1, 2, 3):
        scene.arrive(stamp)
    scene.start(place=at(0, 0, 32, 24))
    scene.perception.look_at(scene.mailboxes[""].take())
    assert [(result.image.stamp_ns, result.skipped) for result in scene.results] == [(3, 2)]
    assert scene.see(4)[0].skipped == 0


def test_a_box_on_an_earlier_image_gets_a_tracker_of_its_own_that_starts_there(scene, at):
    scene.start("the red mug")
    for stamp in (1, 2, 3):
        scene.see(stamp)
    target = scene.start(place=at(0, 0, 32, 24), stamp=2, add=True)
    stream = scene.perception.stream("")
    assert len(stream.trackers) == 2
    scene.see(4)
    assert scene.states() == [(1, "TRACKED"), (target.id, "TRACKED")]
    scene.perception.stop(target.id)
    scene.see(5)
    assert len(stream.trackers) == 1


def test_a_box_on_an_image_that_is_not_remembered_is_refused(scene, at):
    with pytest.raises(TargetError, match="no image has arrived") as caught:
        scene.start(place=at(0, 0, 32, 24))
    assert caught.value.code == "NO_IMAGE"
    for stamp in range(1, 7):
        scene.see(stamp)
    with pytest.raises(TargetError, match="from 3 to 6 ns") as caught:
        scene.start(place=at(0, 0, 32, 24), stamp=1)
    assert caught.value.code == "BOX_STAMP"


def test_a_new_target_replaces_the_camera_s_others_unless_it_is_added(make_scene):
    scene = make_scene(("a", "b"))
    scene.see(1, "a")
    ends = []
    scene.start("one", camera="a", listener=lambda event: ends.append(event.end) is None)
    scene.start("two", camera="b")
    scene.start("three", camera="a", add=True)
    four = scene.start("four", camera="a")
    assert scene.perception.active_ids == [2, four.id]
    assert ends == [EndReason.REPLACED]
    scene.see(2, "a")
    assert scene.states() == [(1, "REMOVED"), (3, "REMOVED"), (4, "TRACKED")]
    scene.see(3, "a")
    assert scene.states() == [(4, "TRACKED")], "REMOVED is said once"


class ScriptedModel(IdentityModel):
    """Follows its targets in the state that the test says."""

    state, reason = TrackState.TRACKED, ""

    def tracker(self, mode="stream", config=None):
        model, tracker = self, super().tracker(mode, config)
        step = tracker.step
        tracker.step = lambda frame: [
            replace(update, state=model.state, score=0.625, reason=model.reason) for update in step(frame)
        ]
        return tracker


class ModelOfMugs(IdentityModel):
    def clean_words(self, expression):
        if "mug" not in expression:
            raise ExpressionError(f"this model knows no object in {expression!r}", code="EXPR_UNKNOWN")
        return super().clean_words(expression)


def test_a_refused_request_leaves_the_other_targets_alone(make_scene, at):
    scene = make_scene(model=ModelOfMugs())
    scene.see(1)
    scene.start("the red mug")
    for arguments, error in [
        ({"expression": ""}, ExpressionError),
        ({"expression": "the mug <image>"}, ExpressionError),
        ({"expression": "the person in red"}, ExpressionError),
        ({"place": at(100, 100, 200, 200)}, BoxError),
        ({"expression": "a mug", "camera": "rear"}, TargetError),
        ({"place": at(0, 0, 9, 9), "stamp": 77}, TargetError),
    ]:
        with pytest.raises(error):
            scene.start(**arguments)
    assert scene.perception.active_ids == [1]


def test_there_is_a_limit_over_all_cameras(make_scene):
    scene = make_scene(("a", "b"), config=TrackingConfig(max_targets=2))
    scene.start("one", camera="a")
    scene.start("two", camera="b")
    with pytest.raises(TargetError, match="already 2 targets") as caught:
        scene.start("three", camera="a", add=True)
    assert caught.value.code == "TARGET_LIMIT"
    scene.start("four", camera="a")
    assert scene.perception.active_ids == [2, 3]


def test_an_image_that_was_seen_already_is_ignored(scene):
    scene.see(1)
    scene.perception.look_at(scene.mailboxes[""].newest())
    assert len(scene.results) == 1


def test_a_result_says_how_long_its_image_waited_and_took_to_decode(make_scene):
    scene = make_scene()
    scene.arrive(1)
    image = scene.mailboxes[""].take()
    scene.perception.look_at(replace(image, arrived_s=time.monotonic() - 5.0))
    [result] = scene.results
    assert 5.0 <= result.taken_s - result.image.arrived_s < 10.0
    assert 0.0 <= result.decode_s < 5.0
    assert (result.encode_s, result.generate_s) == (0.0, 0.0)


def test_a_box_is_published_before_anything_else_is_done_with_it(make_scene):
    scene = make_scene()
    published = []
    scene.start("the red mug", listener=lambda event: published.append(len(scene.results)) is None)
    scene.see(1)
    scene.see(2)
    assert published == [1, 2]


def test_views_say_what_is_new_of_a_target_and_nothing_when_nothing_is(make_scene):
    scene = make_scene(model=(model := ScriptedModel()))
    scene.start("the red mug")

    def news(stamp, state, reason=""):
        model.state, model.reason = state, reason
        return [view.news for view in scene.see(stamp)[0].views]

    assert news(1, TrackState.LOST, "not found yet") == [""]
    assert news(2, TrackState.UNCERTAIN) == [""]
    assert news(3, TrackState.TRACKED) == ["found, score 0.62"]
    assert news(4, TrackState.TRACKED) == news(5, TrackState.UNCERTAIN) == [""]
    assert news(6, TrackState.LOST, "no box") == ["lost, no box"]
    assert news(7, TrackState.LOST, "no box") == [""]
    assert news(8, TrackState.TRACKED) == ["found again, score 0.62"]
    scene.perception.stop(1)
    assert news(9, TrackState.TRACKED) == ["ended, it was stopped"]


def test_a_job_says_whether_the_targets_have_changed(scene):
    changed = [scene.see(1)[0].targets_changed]
    scene.start("one")
    changed += [scene.see(stamp)[0].targets_changed for stamp in (2, 3)]
    scene.perception.stop(0)
    changed += [scene.see(stamp)[0].targets_changed for stamp in (4, 5)]
    assert changed == [False, True, False, True, False]


def test_labels_are_short(scene, at):
    scene.see(1)
    assert scene.start(place=at(0, 0, 9, 9)).label == "target 1"
    assert scene.start("the red mug").label == "the red mug"
    long = scene.start("a person with " + "very " * 15 + "long hair").label
    assert len(long) <= 43
    assert long.endswith("very...")


def test_news_of_a_box_tell_the_words_that_it_is_followed_by():
    """Some models describe a box once and then follow the description."""
    target, job = Target(1, "", "", None, "1", None), SimpleNamespace(image=None, frame=None)
    update = TrackUpdate("1", 0, Box(0.1, 0.1, 0.5, 0.5), 0.62, TrackState.TRACKED, described="a red mug")
    update = replace(update, stamp_ns=7)
    view = target.take(update, job)
    assert view.news == "found, score 0.62, followed by the words 'a red mug'"
    assert (view.description, view.description_stamp_ns) == ("a red mug", 7)
    assert target.take(update, job).news == ""
    target.describe("a red mug with a crack", 9)
    assert target.take(update, job).description == "a red mug with a crack", "the newest one counts"
