from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from elysium_core.engine.engine import Request
from elysium_core.errors import BackendError, ExpressionError, TargetError
from elysium_core.frames import ClipWindow
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box
from elysium_core.prompt.conversation import build_prompt
from elysium_core.prompt.questions import PUBLISHED, RSOT, SOT, fill
from elysium_core.tracking import clip as clip_module
from elysium_core.tracking.clip import ClipTracker
from elysium_core.types import TrackingConfig, TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED


@pytest.fixture
def mug(show):
    return lambda k: show.Sight((10 + k % 40, 20, 40 + k % 40, 50))


@pytest.fixture
def bear(show):
    return lambda k: show.Sight((5, 70, 35, 98), 80)


@pytest.fixture
def tracker(oracle):
    return lambda **settings: ClipTracker(oracle(), TrackingConfig(mode="clip", **settings))


@pytest.fixture
def short_clips(monkeypatch):
    """A recording of up to 6 frames is one clip: the same cuts, in a tenth of the time."""
    monkeypatch.setattr(clip_module, "SINGLE_CLIP_FRAMES", 6)


@pytest.fixture
def questions(monkeypatch):
    """What a tracker asks, clip by clip: ``questions(tracker)`` is a list that fills."""

    def listen(follower):
        asked = []
        request = follower._runtime.request

        def hear(question, *rest):
            asked.append(question)
            return request(question, *rest)

        monkeypatch.setattr(follower._runtime, "request", hear)
        return asked

    return listen


def run(follower, scene):
    """All updates of a recording, in the order they came."""
    return [u for frame in scene for u in follower.step(frame)] + follower.flush()


@pytest.mark.parametrize("count", range(1, 15))
def test_each_frame_is_answered_exactly_once(tracker, short_clips, show, mug, bear, count):
    follower = tracker(clip_length=4)
    follower.add("the mug")
    follower.add(box=bear(0).truth)
    scene = [show.picture([mug(k), None, bear(k)], k) for k in range(count)]
    updates = run(follower, scene)
    assert [(u.frame_index, u.target_id) for u in updates] == [(k, name) for k in range(count) for name in "12"]
    for update in updates:
        k = update.frame_index
        assert (update.state, update.age, update.stamp_ns) == (TRACKED, k, scene[k].stamp_ns)
        assert update.box == (mug if update.target_id == "1" else bear)(k).truth
    assert (follower.stats.frames, follower.stats.vision_encodes) == (count, count)
    assert follower.flush() == []


@pytest.mark.parametrize(("count", "clips"), [(32, 1), (33, 5), (36, 5), (37, 6)])
def test_more_than_32_frames_are_clips_of_eight_that_share_a_frame(tracker, questions, show, bear, count, clips):
    follower = tracker()
    asked = questions(follower)
    follower.add("the teddy bear")
    updates = run(follower, [show.picture([None, None, bear(k)], k) for k in range(count)])
    # 7 m + 1 frames are m clips: the last one would hold nothing new.
    assert len(asked) == clips
    assert [update.frame_index for update in updates] == list(range(count))


@pytest.mark.parametrize(
    ("trained", "count", "clips"), [(4, 4, 1), (4, 5, 2), (4, 7, 2), (4, 8, 3), (4, 10, 3), (7, 7, 1), (7, 8, 2)]
)
def test_a_model_of_shorter_clips_is_never_shown_more(oracle, questions, show, bear, trained, count, clips):
    runtime = oracle()
    runtime.family.settings = replace(runtime.family.settings, clip_length=trained)
    follower = ClipTracker(runtime, TrackingConfig(mode="clip", clip_length=trained))
    asked = questions(follower)
    follower.add("the teddy bear")
    updates = run(follower, [show.picture([None, None, bear(k)], k) for k in range(count)])
    assert len(asked) == clips
    assert [(update.frame_index, update.box) for update in updates] == [(k, bear(k).truth) for k in range(count)]


def test_a_model_of_longer_clips_is_shown_no_longer_ones_either(oracle, questions, show, bear):
    runtime = oracle()
    runtime.family.settings = replace(runtime.family.settings, clip_length=40)
    follower = ClipTracker(runtime, TrackingConfig(mode="clip"))
    asked = questions(follower)
    follower.add("the teddy bear")
    run(follower, [show.picture([None, None, bear(k)], k) for k in range(33)])
    assert len(asked) == 5


def test_a_clip_in_which_nothing_moves_costs_few_passes(tracker, show, bear):
    follower = tracker()
    follower.add(box=bear(0).truth)
    run(follower, [show.picture([None, None, bear(k)], k) for k in range(32)])
    assert follower.stats.llm_passes == 1, "the box that was given is guessed for all frames"
    follower = tracker()
    follower.add("the teddy bear")
    run(follower, [show.picture([None, None, bear(k)], k) for k in range(32)])
    assert follower.stats.llm_passes <= 9, (
        "every digit of the first box may be new, but that box is guessed for the rest"
    )


@pytest.mark.parametrize("count", range(7, 20))
def test_the_cuts_are_those_of_the_protocol(tracker, short_clips, questions, show, bear, count):
    follower = tracker(clip_length=4)
    asked = questions(follower)
    follower.add("the teddy bear")
    run(follower, [show.picture([None, None, bear(k)], k) for k in range(count)])
    assert len(asked) == len(ClipWindow(4, 1).spans(count))


def test_updates_come_when_a_clip_is_complete(tracker, short_clips, show, bear):
    follower = tracker(clip_length=3)
    follower.add("the teddy bear")
    came = {}
    for k in range(13):
        for update in follower.step(show.picture([None, None, bear(k)], k)):
            came[update.frame_index] = k
    # The 7th frame shows that the recording is no single clip; from then on, the first frame of the next clip but one.
    assert came == {0: 6, 1: 6, 2: 6, 3: 6, 4: 6, 5: 7, 6: 7, 7: 9, 8: 9, 9: 11, 10: 11}
    assert [update.frame_index for update in follower.flush()] == [11, 12]


def test_the_box_of_the_last_frame_starts_the_next_clip(tracker, short_clips, questions, show, mug):
    follower = tracker(clip_length=4)
    asked = questions(follower)
    follower.add("the mug")
    run(follower, [show.picture([mug(k)], k) for k in range(10)])
    assert asked[0] == fill(PUBLISHED[RSOT], expression="the mug")
    assert asked[1:] == [fill(PUBLISHED[SOT], box=format_box(mug(k).truth)) for k in (3, 6)]


def test_what_is_gone_at_the_end_of_a_clip_is_asked_for_by_its_words_again(
    tracker, short_clips, questions, show, mug, bear
):
    follower = tracker(clip_length=4)
    asked = questions(follower)
    follower.add("the mug", box=mug(0).truth)
    follower.add(box=bear(0).truth)
    scene = [show.picture([mug(k) if k != 3 else None, None, bear(k)], k) for k in range(10)]
    updates = run(follower, scene)
    by_words, by_box = fill(PUBLISHED[RSOT], expression="the mug"), fill(PUBLISHED[SOT], box=format_box(bear(0).truth))
    assert asked[:6:2] == [fill(PUBLISHED[SOT], box=format_box(mug(0).truth)), by_words, asked[4]]
    assert asked[4] == fill(PUBLISHED[SOT], box=format_box(mug(6).truth))
    assert set(asked[1::2]) == {by_box}, "without words, the newest box there is"
    states = [u.state for u in updates if u.target_id == "1"]
    assert states == [TRACKED] * 3 + [UNCERTAIN] + [TRACKED] * 6


def test_a_box_goes_before_words(tracker, questions, show, mug, bear):
    follower = tracker()
    asked = questions(follower)
    follower.add("the teddy bear", box=mug(0).truth)
    updates = run(follower, [show.picture([mug(k), None, bear(k)], k) for k in range(5)])
    assert asked == [fill(PUBLISHED[SOT], box=format_box(mug(0).truth))]
    assert [u.box for u in updates] == [mug(k).truth for k in range(5)]


def test_targets_are_added_before_the_first_frame(tracker, show, mug):
    follower = tracker(max_targets=1)
    with pytest.raises(TargetError) as caught:
        follower.add()
    assert caught.value.code == "TARGET_EMPTY"
    with pytest.raises(ExpressionError):
        follower.add("<image>")
    follower.add("the mug")
    with pytest.raises(TargetError) as caught:
        follower.add("the mug")
    assert caught.value.code == "TARGET_LIMIT"
    follower.step(show.picture([mug(0)], 0))
    for _ in range(2):
        with pytest.raises(TargetError) as caught:
            follower.add("the mug")
        assert caught.value.code == "TARGET_LATE"
        follower.flush()
    follower.reset()
    assert follower.add("the mug") == "2"


def test_a_removed_target_is_reported_once(tracker, show, mug, bear):
    follower = tracker()
    first, second = follower.add("the mug"), follower.add("the teddy bear")
    assert follower.step(show.picture([mug(0), None, bear(0)], 0)) == []
    follower.remove(first)
    with pytest.raises(TargetError):
        follower.remove(first)
    (farewell,) = follower.step(show.picture([mug(1), None, bear(1)], 1))
    assert (farewell.target_id, farewell.state, farewell.frame_index) == (first, REMOVED, 1)
    assert [(u.target_id, u.frame_index) for u in follower.flush()] == [(second, 0), (second, 1)]
    assert follower.target_ids == [second]


def test_a_target_that_stays_lost_is_removed(tracker, short_clips, questions, show, mug, bear):
    follower = tracker(clip_length=4, lost_after_s=0.25, remove_after_s=0.45)
    asked = questions(follower)
    follower.add(box=mug(0).truth)
    follower.add("the teddy bear")
    updates = run(follower, [show.picture([mug(0) if k == 0 else None, None, bear(k)], k) for k in range(13)])
    life = [u.state for u in updates if u.target_id == "1"]
    assert life == [TRACKED, UNCERTAIN, UNCERTAIN] + [LOST] * 5 + [REMOVED]
    assert sum(u.target_id == "2" for u in updates) == 13
    assert follower.target_ids == ["2"]
    assert len(asked) == 2 * 3 + 1, "three clips ask about both"


def test_without_targets_nothing_is_computed(tracker, show, mug):
    follower = tracker()
    assert run(follower, [show.picture([mug(k)], k) for k in range(40)]) == []
    assert (follower.stats.vision_encodes, follower.stats.llm_passes) == (0, 0)


def test_clip_length_can_change(tracker, short_clips, show, bear):
    follower = tracker(clip_length=5)
    follower.add("the teddy bear")
    seen = []
    for k in range(22):
        if k in (8, 13):
            follower.configure(TrackingConfig(mode="clip", clip_length=3 if k == 8 else 7))
        seen += follower.step(show.picture([None, None, bear(k)], k))
    seen += follower.flush()
    assert [update.frame_index for update in seen] == list(range(22))
    assert follower.stats.vision_encodes == 22


@pytest.mark.parametrize("part", ["vision", "llm"])
@pytest.mark.parametrize("error", [BackendError("CUDA is gone"), RuntimeError("CUDA is gone\n...")])
def test_a_failure_is_the_reason_of_a_clip_without_boxes(tracker, short_clips, monkeypatch, show, bear, part, error):
    follower = tracker(clip_length=4)
    follower.add(box=bear(0).truth)
    scene = [show.picture([None, None, bear(k)], k) for k in range(12)]
    seen = [u for frame in scene[:10] for u in follower.step(frame)]

    def fail(*arguments):
        raise error

    with monkeypatch.context() as broken:
        owner, name = {
            "vision": (follower._runtime.family.vision, "encode"),
            "llm": (follower._runtime.family.network.llm, "logits"),
        }[part]
        broken.setattr(owner, name, fail)
        seen += follower.step(scene[10])
        assert "CUDA is gone" in str(follower.stats.failure)
    seen += follower.step(scene[11])
    assert follower.stats.failure is None, "this frame waits for its clip, it has not failed"
    seen += follower.flush()
    assert [u.frame_index for u in seen] == list(range(12))
    failed = [u for u in seen if u.state is not TRACKED]
    assert [u.frame_index for u in failed] == [7, 8, 9]
    assert all(u.box is None and "CUDA is gone" in u.reason and "\n" not in u.reason for u in failed)
    assert seen[-1].box == bear(0).truth


def test_answers_of_a_clip_are_those_of_transformers(tiny, frames, judge, monkeypatch):
    runtime = tiny.runtime
    follower = tiny.tracker("clip", TrackingConfig(max_new_tokens=16))
    follower.add("the mug")
    follower.add(box=Box(0.1, 0.2, 0.5, 0.6))
    written, read = [], runtime.read
    monkeypatch.setattr(runtime, "read", lambda answer, *rest: written.append(answer.token_ids) or read(answer, *rest))
    clip = frames[:6]
    updates = run(follower, clip)
    assert [(u.frame_index, u.target_id) for u in updates] == [(k, name) for k in range(6) for name in "12"]
    visual = runtime.encode_frames([frame.image for frame in clip])
    for question, tokens in zip(
        (fill(PUBLISHED[RSOT], expression="the mug"), fill(PUBLISHED[SOT], box="[10,20,50,60]")), written, strict=True
    ):
        prompt = build_prompt(question, 6, runtime.family.network.config.system_text)
        pieces = [torch.tensor(ids) for ids in runtime.tokenizer.encode_prompt(prompt)]
        with torch.inference_mode():
            assert tokens == judge(runtime.family.network.interleave(pieces, [seen.rows for seen in visual]), 16)


def test_the_shared_frame_is_that_of_both_clips(tiny, short_clips, frames, monkeypatch):
    runtime = tiny.runtime
    follower = tiny.tracker("clip", TrackingConfig(clip_length=4, max_new_tokens=16))
    follower.add(box=Box(0.1, 0.2, 0.5, 0.6))
    clips, opening = [], runtime.family.opening
    monkeypatch.setattr(runtime.family, "opening", lambda clip: clips.append(list(clip)) or opening(clip))
    run(follower, frames[:9])
    for visual, (start, stop) in zip(clips, [(0, 4), (3, 7), (6, 9)], strict=True):
        expected = runtime.encode_frames([frame.image for frame in frames[start:stop]])
        assert torch.allclose(torch.stack([s.rows for s in visual]), torch.stack([s.rows for s in expected]), atol=1e-5)


@pytest.mark.parametrize("clip_length", [4, 12])
def test_the_longest_answer_is_meant_for_eight_frames(tracker, show, mug, monkeypatch, clip_length):
    follower = tracker(max_new_tokens=160, clip_length=clip_length)
    follower.add("the mug")
    limits = []
    monkeypatch.setattr("elysium_core.runtime.Request", lambda *parts: limits.append(parts[2]) or Request(*parts))
    updates = run(follower, [show.picture([mug(k)], k) for k in range(12)])
    assert [u.state for u in updates] == [TRACKED] * 12, "one clip of 12 frames may have half as much again"
    assert limits == [240]
