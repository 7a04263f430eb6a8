"""The paper's clips in a live stream, with a model that knows the truth."""

from __future__ import annotations

import pytest

from elysium_core.errors import ConfigError, TargetError
from elysium_core.geometry import Box
from elysium_core.tracking.live_clip import LiveClipTracker
from elysium_core.types import TrackingConfig, TrackState

CLIP = 4


@pytest.fixture
def tracker(oracle):
    return lambda **settings: LiveClipTracker(oracle(), TrackingConfig(mode="paper", clip_length=CLIP, **settings))


@pytest.fixture
def scene(show):
    """Frame k of a mug that moves to the right, and an apple that stands still."""
    return lambda k: show.picture([show.Sight((10 + k, 20, 40 + k, 50)), show.Sight((60, 60, 90, 90))], k)


def mug(k):
    return Box((10 + k) / 100, 0.2, (40 + k) / 100, 0.5)


def indices(updates):
    return [update.frame_index for update in updates]


def test_each_clip_is_answered_once_with_its_last_frame(tracker, scene):
    follower = tracker()
    follower.add("the mug")
    answered = [follower.step(scene(k)) for k in range(8)]
    assert [indices(updates) for updates in answered] == [[], [], [], [0, 1, 2, 3], [], [], [4, 5, 6], []]
    every = [update for updates in answered for update in updates]
    assert [update.box for update in every] == [mug(k) for k in range(7)]
    assert [update.stamp_ns for update in every] == [scene(k).stamp_ns for k in range(7)]
    assert follower.stats.vision_encodes == 7, "the frame that two clips share is encoded once"
    assert indices(follower.flush()) == [7]
    assert follower.flush() == []


def test_it_says_from_which_frame_on_updates_are_to_come(tracker, scene):
    follower = tracker()
    follower.step(scene(0))
    assert follower.oldest_waiting is None, "without a target nothing is waited for"
    follower.add("the mug")
    assert follower.oldest_waiting is None
    waits = []
    for k in range(1, 6):
        follower.step(scene(k))
        waits.append(follower.oldest_waiting)
    assert waits == [1, 1, None, 4, 4]


def test_a_box_is_about_the_newest_frame_also_in_the_middle_of_a_clip(tracker, scene):
    follower = tracker()
    first = follower.add("the apple")
    for k in range(2):
        assert follower.step(scene(k)) == []
    second = follower.add(box=mug(1))
    updates = follower.step(scene(2))
    assert [(update.target_id, update.frame_index) for update in updates] == [(first, 0), (first, 1)]
    assert follower.target_ids == [first, second]
    updates = [update for k in (3, 4) for update in follower.step(scene(k))]
    assert [(update.frame_index, update.box) for update in updates if update.target_id == second] == [
        (k, mug(k)) for k in (2, 3, 4)
    ]


def test_a_target_can_be_stopped_in_a_clip_and_before_its_first_one(tracker, scene):
    follower = tracker()
    first = follower.add("the apple")
    follower.step(scene(0))
    second = follower.add("the mug")
    follower.remove(second)
    updates = [update for k in range(1, 4) for update in follower.step(scene(k))]
    ends = [(update.target_id, update.frame_index) for update in updates if update.state is TrackState.REMOVED]
    assert ends == [(second, 3)]
    follower.remove(first)
    assert [(update.target_id, update.state) for update in follower.step(scene(4))] == [(first, TrackState.REMOVED)]
    assert follower.step(scene(5)) == []


def test_targets_that_wait_for_their_clip_count(tracker, scene):
    follower = tracker(max_targets=2)
    follower.add("the mug")
    follower.step(scene(0))
    follower.add("the apple")
    with pytest.raises(TargetError) as caught:
        follower.add("the mug")
    assert caught.value.code == "TARGET_LIMIT"
    follower.reset()
    assert follower.target_ids == []


def test_a_model_that_follows_in_crops_does_not_do_clips():
    from elysium_core import Elysium

    with pytest.raises(ConfigError) as caught:
        Elysium.from_pretrained("real", device="cpu", vision_backend="torch").tracker(mode="paper")
    assert caught.value.code == "MODE"
