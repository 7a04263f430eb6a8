"""What is lost, doubted, found again and asked for again."""

from __future__ import annotations

import pytest

from elysium_core.errors import TargetError
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig, TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED


def states(updates):
    return [update.state for update in updates]


def test_what_vanishes_is_uncertain_then_lost_then_removed(tracker, show, bear):
    follower = tracker(lost_after_s=0.45, remove_after_s=1.05, reground_period_s=0)
    name = follower.add(box=bear(0).truth)
    follower.step(show.picture([None, None, bear(0)], 0))
    seen = [follower.step(show.picture([None], k)) for k in range(1, 18)]
    assert [u.state for step in seen for u in step] == [UNCERTAIN] * 4 + [LOST] * 11 + [REMOVED]
    assert all(u.box is None and u.score == 0 and "no box" in u.reason for step in seen for u in step)
    assert all(u.last_box == bear(0).truth for step in seen for u in step)
    assert follower.target_ids == []
    with pytest.raises(TargetError):
        follower.remove(name)


@pytest.mark.parametrize("words", [True, False])
def test_what_comes_back_is_found_again(tracker, show, mug, bear, words):
    follower = tracker(lost_after_s=0.3, clip_length=4)
    follower.add("the teddy bear" if words else "", box=bear(0).truth)
    for k in range(3):
        follower.step(show.picture([mug(k), None, bear(k)], k))
    gone = [follower.step(show.picture([mug(k)], k))[0] for k in range(3, 9)]
    assert states(gone) == [UNCERTAIN] * 2 + [LOST] * 4
    back = [follower.step(show.picture([mug(k), None, bear(k)], k))[0] for k in range(9, 15)]
    assert states(back) == [TRACKED] * 6
    assert {update.box for update in back} == {bear(0).truth}


def test_a_doubtful_box_is_shown_until_it_is_lost(tracker, show, bear):
    follower = tracker(lost_after_s=0.3, score_threshold=0.5, reground_period_s=0)
    follower.add(box=bear(0).truth)
    follower.step(show.picture([None, None, bear(0)], 0))
    doubtful = [follower.step(show.picture([None, None, bear(k, 20)], k))[0] for k in range(1, 6)]
    assert states(doubtful) == [UNCERTAIN] * 2 + [LOST] * 3
    assert [update.box for update in doubtful] == [bear(0).truth] * 2 + [None] * 3
    assert [update.score for update in doubtful[:2]] == [pytest.approx(0.2)] * 2
    assert all("below 0.5" in update.reason for update in doubtful)
    assert follower.step(show.picture([None, None, bear(6)], 6))[0].state is TRACKED


def test_words_that_name_nothing_are_searched_for_in_every_frame(tracker, show, mug, bear):
    follower = tracker(remove_after_s=0)
    follower.add("the mug")
    for k in range(5):
        (update,) = follower.step(show.picture([None, None, bear(k)], k))
        assert (update.state, update.box, update.score) == (LOST, None, 0)
        assert update.reason.startswith("not found yet")
    assert follower.step(show.picture([mug(5), None, bear(5)], 5))[0].box == mug(5).truth
    assert sum(follower.stats.parse_failures.values()) == 5


def test_words_are_asked_again_on_schedule(oracle, show, mug, apple):
    follower = StreamTracker(oracle("anchor"), TrackingConfig(reground_period_s=0.5))
    follower.add("the apple", box=mug(0).truth)
    # The model is surer of what was asked for by its words.
    boxes = [follower.step(show.picture([mug(k, 70), apple(k, 90)], k))[0].box for k in range(12)]
    assert boxes[0] == mug(0).truth
    assert boxes[6] == apple(6).truth


def test_without_a_schedule_words_are_not_asked_again(oracle, show, bear):
    follower = StreamTracker(oracle("anchor"), TrackingConfig(reground_period_s=0))
    follower.add("the teddy bear")
    for k in range(100):
        follower.step(show.picture([None, None, bear(0)], k))
        if k == 0:
            first = follower.stats.llm_passes
    assert follower.stats.llm_passes == first + 99
