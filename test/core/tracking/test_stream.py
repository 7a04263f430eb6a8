from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from elysium_core.errors import BackendError, ExpressionError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.config import TrackingConfig
from elysium_core.tracking.stream import StreamTracker
from elysium_core.tracking.types import TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED


@pytest.fixture
def mug(show):
    """The mug in frame ``k``: it wanders to the right."""
    return lambda k, certainty=95: show.Sight((10 + k % 30, 20, 40 + k % 30, 50), certainty)


@pytest.fixture
def apple(show):
    """The apple in frame ``k``: it sinks."""
    return lambda k, certainty=90: show.Sight((60, 10 + k % 40, 80, 30 + k % 40), certainty)


@pytest.fixture
def bear(show):
    """The teddy bear: it sits."""
    return lambda k, certainty=85: show.Sight((5, 70, 35, 98), certainty)


@pytest.fixture
def tracker(oracle, window_kind):
    """Makes a tracker over a model that knows the truth; both kinds of window."""
    return lambda **settings: StreamTracker(oracle(window_kind), TrackingConfig(**settings))


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
    for k in range(200):
        # There and back, so that the model's own thoughts repeat.
        updates = follower.step(Frame(scene[min(k % 14, 14 - k % 14)], (k + 1) * 100_000_000, k))
        assert states(updates) == [TRACKED] * 2
        engines = [window._engine for window in follower._windows]
        held.append((len(engines), max(e.capacity for e in engines), max(e.prefix_length for e in engines)))
    early, late = [tuple(max(column) for column in zip(*part, strict=True)) for part in (held[:40], held[40:])]
    assert late == early
    assert late[0] <= 2
    assert follower.stats.vision_encodes == 200


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
    seen = states([u for k in range(1, 200) for u in follower.step(show.picture([None], k, stamp_ns))])
    if stamp_ns:  # always the same: no time passes
        assert seen == [UNCERTAIN] * 199
    else:  # none: 30 Hz
        assert Counter(seen) == {UNCERTAIN: 30, LOST: 60, REMOVED: 1}


def test_a_source_that_starts_again_does_no_harm(tracker, show, mug):
    follower = tracker()
    follower.add("the mug")
    stamps = [*range(10**9, 2 * 10**9, 10**8)] * 3
    for k, stamp_ns in enumerate(stamps):
        assert follower.step(show.picture([mug(k)], k, stamp_ns))[0].box == mug(k).truth


class TestFailures:
    """Whatever fails in the model: an observation with a reason, and the next frame as if nothing had been."""

    @pytest.fixture
    def broken(self, monkeypatch):
        """Break a part of a tracker's model for one frame."""

        def step_broken(follower, part, error, frame):
            def fail(*arguments, **named):
                raise error

            with monkeypatch.context() as patch:
                runtime = follower._runtime
                owner, name = {
                    "vision": (runtime.vision, "encode"),
                    "logits": (runtime.network.llm, "logits"),
                    "memory": (runtime.network.llm, "new_cache"),
                }[part]
                patch.setattr(owner, name, fail)
                return follower.step(frame)

        return step_broken

    @pytest.mark.parametrize("part", ["vision", "logits"])
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (BackendError("the engine file is stale"), "the engine file is stale"),
            (RuntimeError("CUDA error: device lost"), "failed: CUDA error: device lost"),
            (torch.OutOfMemoryError("CUDA out of memory"), "ran out of memory"),
        ],
    )
    def test_in_the_middle_of_a_stream(self, tracker, broken, show, mug, apple, bear, part, error, reason):
        follower = tracker(clip_length=4)
        follower.add("the mug")
        follower.add(box=apple(0).truth)
        follower.add("the teddy bear", box=bear(0).truth)
        for k in range(3):
            follower.step(show.picture([mug(k), apple(k), bear(k)], k))
        updates = broken(follower, part, error, show.picture([mug(3), apple(3), bear(3)], 3))
        assert states(updates) == [UNCERTAIN] * 3
        assert all(update.box is None and update.score == 0 and reason in update.reason for update in updates)
        for k in range(4, 8):
            updates = follower.step(show.picture([mug(k), apple(k), bear(k)], k))
            assert states(updates) == [TRACKED] * 3
            assert [update.box for update in updates] == [mug(k).truth, apple(k).truth, bear(k).truth]
        assert sum(follower.stats.parse_failures.values()) == 3

    @pytest.mark.parametrize("part", ["vision", "logits"])
    def test_in_the_first_look_of_a_window(self, tracker, broken, show, mug, apple, part):
        follower = tracker(reground_period_s=0)
        follower.add(box=apple(0).truth)
        follower.add("the mug")
        follower.step(show.picture([mug(0), apple(0)], 0))
        updates = broken(follower, part, RuntimeError("no"), show.picture([mug(1), apple(1)], 1))
        assert states(updates) == [UNCERTAIN] * 2
        for k in range(2, 5):
            updates = follower.step(show.picture([mug(k), apple(k)], k))
            assert [update.box for update in updates] == [apple(k).truth, mug(k).truth]

    @pytest.mark.parametrize("part", ["vision", "logits"])
    def test_in_the_first_frame(self, tracker, broken, show, mug, apple, part):
        follower = tracker()
        follower.add("the mug")
        follower.add(box=apple(0).truth)
        updates = broken(follower, part, RuntimeError("no"), show.picture([mug(0), apple(0)], 0))
        assert states(updates) == [LOST] * 2
        updates = follower.step(show.picture([mug(1), apple(1)], 1))
        assert [update.box for update in updates] == [mug(1).truth, apple(1).truth]

    def test_while_a_window_is_opened(self, tracker, broken, show, mug):
        follower = tracker()
        follower.add(box=mug(0).truth)
        updates = broken(follower, "memory", BackendError("no memory"), show.picture([mug(0)], 0))
        assert states(updates) == [LOST]
        assert follower.step(show.picture([mug(1)], 1))[0].box == mug(1).truth

    def test_for_good(self, tracker, broken, show, mug):
        follower = tracker(lost_after_s=0.5, remove_after_s=1.0)
        follower.add(box=mug(0).truth)
        follower.step(show.picture([mug(0)], 0))
        seen = [
            update.state
            for k in range(1, 30)
            for update in broken(follower, "logits", RuntimeError("no"), show.picture([mug(k)], k))
        ]
        assert set(seen[:4]) == {UNCERTAIN}
        assert seen[-1] is REMOVED
        assert follower.target_ids == []


class TestRandomModel:
    """A model that has learnt nothing: its answers have no form."""

    def test_every_target_is_reported_once_a_frame(self, tiny, frames, window_kind):
        follower = tiny.tracker(config=TrackingConfig(window=window_kind, lost_after_s=0.45, remove_after_s=1.05))
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
