"""A model that breaks, in each part and at each moment."""

from __future__ import annotations

import pytest
import torch

from elysium_core.errors import BackendError
from elysium_core.types import TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED


def states(updates):
    return [update.state for update in updates]


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
                    "vision": (runtime.family.vision, "encode"),
                    "logits": (runtime.family.network.llm, "logits"),
                    "memory": (runtime.family.network.llm, "new_cache"),
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
        assert reason in str(follower.stats.failure)
        for k in range(4, 8):
            updates = follower.step(show.picture([mug(k), apple(k), bear(k)], k))
            assert states(updates) == [TRACKED] * 3
            assert [update.box for update in updates] == [mug(k).truth, apple(k).truth, bear(k).truth]
        assert sum(follower.stats.parse_failures.values()) == 3
        assert (follower.stats.failures, follower.stats.failure) == (1, None)

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

    def test_a_failure_is_not_told_again_of_frames_without_targets(self, tracker, broken, show, mug):
        follower = tracker()
        name = follower.add(box=mug(0).truth)
        follower.step(show.picture([mug(0)], 0))
        broken(follower, "vision", RuntimeError("no"), show.picture([mug(1)], 1))
        assert follower.stats.failure is not None
        follower.remove(name)
        follower.step(show.picture([mug(2)], 2))
        assert (follower.stats.failures, follower.stats.failure) == (1, None)

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
