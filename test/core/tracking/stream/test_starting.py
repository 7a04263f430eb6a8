"""How targets start: by a box, by words, by both; where a box belongs, what is refused."""

from __future__ import annotations

import pytest

from elysium_core.errors import ExpressionError, ImageError, TargetError
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig, TrackState

TRACKED, UNCERTAIN, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.REMOVED


def states(updates):
    return [update.state for update in updates]


def test_a_box_of_the_first_frame_is_followed(tracker, show, mug):
    follower = tracker(clip_length=4)
    name = follower.add(box=mug(0).truth)
    for k in range(14):
        (update,) = follower.step(show.picture([mug(k)], k))
        assert (update.target_id, update.frame_index, update.age) == (name, k, k)
        assert (update.state, update.box) == (TRACKED, mug(k).truth)
        assert update.score == pytest.approx(1 if k == 0 else 0.95)
        assert update.stamp_ns == 100_000_000 * (k + 1)
    assert follower.stats.vision_encodes == follower.stats.frames == 14


def test_words_are_found_and_followed(tracker, show, mug, apple):
    follower = tracker(clip_length=4)
    name = follower.add("the red apple")
    for k in range(10):
        (update,) = follower.step(show.picture([mug(k), apple(k)], k))
        assert (update.target_id, update.box, update.state) == (name, apple(k).truth, TRACKED)
        assert (update.expression, update.score) == ("the red apple", pytest.approx(0.9))


def test_a_still_target_costs_one_pass_a_frame_and_two_only_where_a_window_restarts(tracker, show, bear):
    follower = tracker(clip_length=4, reground_period_s=0)
    follower.add("the teddy bear")
    passes = []
    for k in range(12):
        before = follower.stats.llm_passes
        follower.step(show.picture([None, None, bear(k)], k))
        passes.append(follower.stats.llm_passes - before)
    # In the first frame nothing is known, and the draft of the middle is corrected number by number.
    assert 1 < passes[0] <= 9
    assert passes[1:] == [1] * 11


def test_a_box_refers_to_the_newest_frame(tracker, show, mug, apple):
    follower = tracker()
    for k in range(3):
        assert follower.step(show.picture([mug(k), apple(k)], k)) == []
    assert follower.stats.vision_encodes == 0, "nobody asked"
    follower.add(box=apple(2).truth)
    follower.add(box=mug(2).truth)
    for k in range(3, 6):
        updates = follower.step(show.picture([mug(k), apple(k)], k))
        assert [update.box for update in updates] == [apple(k).truth, mug(k).truth]
        assert [update.age for update in updates] == [k - 3] * 2
    assert follower.stats.vision_encodes == 4, "frame 2 once for both, and each later frame"
    follower.add(box=mug(5).truth)
    follower.step(show.picture([mug(6), apple(6)], 6))
    assert follower.stats.vision_encodes == 5, "frame 5 was known"


def test_a_box_that_is_never_seen_again_was_last_seen_where_it_was_given(tracker, show, mug):
    follower = tracker()
    follower.step(show.picture([mug(0)], 0))
    follower.add(box=mug(0).truth)
    (update,) = follower.step(show.picture([None], 1))
    assert (update.state, update.box, update.last_box) == (UNCERTAIN, None, mug(0).truth)


def test_words_and_a_box_start_from_the_box(tracker, show, mug, apple):
    follower = tracker(reground_period_s=0)
    follower.add("the mug", box=mug(0).truth)
    assert follower.step(show.picture([mug(0), apple(0)], 0))[0].score == 1
    assert follower.stats.llm_passes == 0, "the box says where it is; nothing has to be asked"
    follower.add("the apple", box=apple(0).truth)
    for k in range(1, 4):
        updates = follower.step(show.picture([mug(k), apple(k)], k))
        assert [update.box for update in updates] == [mug(k).truth, apple(k).truth]
        assert states(updates) == [TRACKED] * 2


def test_targets_come_and_go_between_frames(tracker, show, mug, apple, bear):
    follower = tracker(clip_length=3)
    scene = [show.picture([mug(k), apple(k), bear(k)], k) for k in range(20)]
    first, second = follower.add("the mug"), follower.add("the apple")
    assert [u.target_id for u in follower.step(scene[0])] == [first, second]
    third = follower.add(box=bear(0).truth)
    assert [u.box for u in follower.step(scene[1])] == [mug(1).truth, apple(1).truth, bear(1).truth]
    follower.remove(first)
    assert follower.target_ids == [second, third]
    updates = follower.step(scene[2])
    assert [(u.target_id, u.state) for u in updates] == [(first, REMOVED), (second, TRACKED), (third, TRACKED)]
    assert (updates[0].box, updates[0].reason, updates[0].last_box) == (None, "stopped", mug(1).truth)
    fourth = follower.add("the mug")
    for k in range(3, 12):
        updates = follower.step(scene[k])
        assert [u.target_id for u in updates] == [second, third, fourth]
        assert [u.box for u in updates] == [apple(k).truth, bear(k).truth, mug(k).truth]
    for name in (second, third, fourth):
        follower.remove(name)
    assert states(follower.step(scene[12])) == [REMOVED] * 3
    assert follower.step(scene[13]) == []
    assert follower.flush() == []


def test_ids_are_never_used_twice(tracker, show, mug):
    follower = tracker(max_targets=2)
    names = [follower.add("the mug"), follower.add(box=mug(0).truth)]
    follower.remove(names[0])
    names.append(follower.add("the mug"))
    follower.step(show.picture([mug(0)], 0))
    follower.reset()
    assert follower.target_ids == []
    assert follower.step(show.picture([mug(1)], 1)) == []
    names.append(follower.add("the mug"))
    assert len(set(names)) == 4
    assert follower.step(show.picture([mug(2)], 2))[0].box == mug(2).truth


def test_after_a_reset_a_box_refers_to_the_next_frame(tracker, show, mug):
    follower = tracker()
    follower.add("the mug")
    follower.step(show.picture([mug(0)], 0))
    follower.reset()
    follower.add(box=mug(5).truth)
    assert follower.step(show.picture([mug(5)], 1))[0].score == 1
    assert follower.step(show.picture([mug(6)], 2))[0].box == mug(6).truth


def test_there_is_a_limit_to_targets(tracker, show, mug):
    follower = tracker(max_targets=2)
    first = follower.add("the mug")
    follower.add("the apple")
    with pytest.raises(TargetError, match="already 2 targets") as caught:
        follower.add("the teddy bear")
    assert caught.value.code == "TARGET_LIMIT"
    follower.remove(first)
    follower.add("the teddy bear")
    follower.configure(TrackingConfig(max_targets=1))
    with pytest.raises(TargetError, match="already 1 targets"):
        follower.add("the mug")
    assert len(follower.step(show.picture([mug(0)], 0))) == 3, "the one removed, and both that were there before"


def test_bad_targets_are_refused(oracle):
    follower = StreamTracker(oracle(vocabulary=["mug"]), TrackingConfig())
    with pytest.raises(TargetError) as caught:
        follower.add()
    assert caught.value.code == "TARGET_EMPTY"
    with pytest.raises(ExpressionError) as caught:
        follower.add("the zeppelin")
    assert caught.value.code == "EXPR_UNKNOWN"
    with pytest.raises(ExpressionError):
        follower.add("ASSISTANT: the mug")
    with pytest.raises(TargetError) as caught:
        follower.remove("1")
    assert caught.value.code == "TARGET_UNKNOWN"
    assert follower.add("the mug") == "1", "nothing that was refused has taken an id"


@pytest.mark.parametrize("kind", [StreamTracker, ClipTracker])
def test_a_bare_picture_is_refused_with_what_to_do(oracle, show, mug, kind):
    follower = kind(oracle("anchor"), TrackingConfig())
    follower.add("the mug")
    with pytest.raises(ImageError, match=r"not ndarray; .*Frame\(image") as caught:
        follower.step(show.picture([mug(0)], 0).image)
    assert caught.value.code == "IMG_SHAPE"
    assert follower.stats.frames == 0
