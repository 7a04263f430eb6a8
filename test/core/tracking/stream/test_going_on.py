"""Windows that targets share, settings and time that change, memory that does not."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig, TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED


def states(updates):
    return [update.state for update in updates]


def test_targets_added_at_different_times_come_to_share_a_window(tracker, show, mug, apple, bear):
    follower = tracker(clip_length=4, reground_period_s=0.5)
    passes = []
    for k in range(14):
        if k in (0, 1, 2):
            follower.add(("the mug", "the apple", "the teddy bear")[k])
        before = follower.stats.llm_passes
        updates = follower.step(show.picture([mug(0), apple(0), bear(0)], k))
        assert [u.box for u in updates] == [mug(0).truth, apple(0).truth, bear(0).truth][: k + 1]
        passes.append(follower.stats.llm_passes - before)
    assert len(follower._windows) == 1
    assert passes[-1] == 1


def test_targets_stay_in_their_order_when_a_window_restarts(oracle, show, mug, apple, bear):
    follower = StreamTracker(oracle("growing"), TrackingConfig(clip_length=3, reground_period_s=0))
    names = [follower.add(box=sight(0).truth) for sight in (bear, apple, mug)]
    for k in range(8):
        follower.step(show.picture([mug(k), apple(k), bear(k)], k))
        assert [window.members for window in follower._windows] == [names]


def test_boxes_and_words_of_the_first_frame_share_a_window(tracker, show, mug, apple, bear):
    follower = tracker()
    follower.add("the mug")
    follower.add(box=apple(0).truth)
    follower.add("the teddy bear", box=bear(0).truth)
    follower.step(show.picture([mug(0), apple(0), bear(0)], 0))
    assert [window.members for window in follower._windows] == [["2", "3", "1"]]
    before = follower.stats.llm_passes
    follower.step(show.picture([mug(0), apple(0), bear(0)], 1))
    assert follower.stats.llm_passes == before + 1


def test_memory_does_not_grow(tracker, show, mug, apple):
    follower = tracker(clip_length=4, reground_period_s=1.0)
    follower.add("the mug")
    follower.add(box=apple(0).truth)
    held = []
    scene = [show.picture([mug(k), apple(k)]).image for k in range(8)]
    for k in range(84):
        # There and back, so that the model's own thoughts repeat.
        updates = follower.step(Frame(scene[min(k % 14, 14 - k % 14)], (k + 1) * 100_000_000, k))
        assert states(updates) == [TRACKED] * 2
        engines = [window._engine for window in follower._windows]
        held.append((len(engines), max(e.capacity for e in engines), max(e.prefix_length for e in engines)))
    early, late = [tuple(max(column) for column in zip(*part, strict=True)) for part in (held[:28], held[28:])]
    assert late == early
    assert late[0] <= 2
    assert follower.stats.vision_encodes == 84


def test_settings_can_change_between_frames(tracker, show, bear):
    follower = tracker(score_threshold=0.3)
    follower.add(box=bear(0).truth)
    follower.step(show.picture([None, None, bear(0)], 0))
    assert follower.step(show.picture([None, None, bear(1, 60)], 1))[0].state is TRACKED
    follower.configure(TrackingConfig(score_threshold=0.7, window="growing", clip_length=3))
    assert follower.config.score_threshold == 0.7
    assert follower.step(show.picture([None, None, bear(2, 60)], 2))[0].state is UNCERTAIN
    assert states([follower.step(show.picture([None, None, bear(k)], k))[0] for k in range(3, 10)]) == [TRACKED] * 7


def test_an_answer_is_no_longer_than_allowed(tracker, show, mug):
    follower = tracker(max_new_tokens=16)
    follower.add(box=mug(0).truth)
    follower.step(show.picture([mug(0)], 0))
    tokens_before = follower.stats.llm_tokens
    (update,) = follower.step(show.picture([show.Sight((10, 20, 100, 100))], 1))
    assert update.state is UNCERTAIN, "the box was cut off"
    assert "(unclosed)" in update.reason
    assert follower.stats.llm_tokens > tokens_before


@pytest.mark.parametrize("stamp_ns", [0, 5_000_000_000])
def test_frames_without_time(tracker, show, bear, stamp_ns):
    follower = tracker(lost_after_s=1.01, remove_after_s=1.99)
    follower.add(box=bear(0).truth)
    follower.step(show.picture([None, None, bear(0)], 0, stamp_ns))
    seen = states([u for k in range(1, 100) for u in follower.step(show.picture([None], k, stamp_ns))])
    if stamp_ns:  # always the same: no time passes
        assert seen == [UNCERTAIN] * 99
    else:  # none: 30 Hz
        assert Counter(seen) == {UNCERTAIN: 30, LOST: 60, REMOVED: 1}


def test_a_source_that_starts_again_does_no_harm(tracker, show, mug):
    follower = tracker()
    follower.add("the mug")
    stamps = [*range(10**9, 2 * 10**9, 10**8)] * 3
    for k, stamp_ns in enumerate(stamps):
        assert follower.step(show.picture([mug(k)], k, stamp_ns))[0].box == mug(k).truth


class TestRandomModel:
    """A model that has learnt nothing: its answers have no form."""

    def test_every_target_is_reported_once_a_frame(self, tiny, frames, window_kind):
        settings = TrackingConfig(window=window_kind, lost_after_s=0.45, remove_after_s=1.05, max_new_tokens=24)
        follower = tiny.tracker(config=settings)
        names = [follower.add("the mug"), follower.add(box=Box(0.1, 0.2, 0.5, 0.6))]
        names.append(follower.add("the apple", box=Box(0.3, 0.3, 0.5, 0.6)))
        life = {name: [] for name in names}
        for frame in frames[:18]:
            updates = follower.step(frame)
            assert [u.target_id for u in updates] == [n for n in names if REMOVED not in life[n]]
            for update in updates:
                life[update.target_id].append(update.state)
                assert (update.box is None) == (update.state not in (TRACKED,))
                assert update.frame_index == frame.index
                assert math.isfinite(update.score)
        # Never found: lost at once, and given up after a second. Given by a box: sure of the first frame alone.
        assert life[names[0]] == [LOST] * 11 + [REMOVED]
        assert life[names[1]] == life[names[2]] == [TRACKED] + [UNCERTAIN] * 4 + [LOST] * 11 + [REMOVED]
        assert follower.stats.frames == 18
        assert follower.stats.llm_passes > 0
        assert "the answer has no box for this frame" in " ".join(follower.stats.parse_failures)
