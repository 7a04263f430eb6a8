from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.target import Grounding, StreamClock, Target
from elysium_core.types import TrackingConfig, TrackState

IMAGE = np.zeros((1, 1, 3), np.uint8)
THRESHOLD = 0.5


def at(stamp_ns, index=0):
    return Frame(IMAGE, stamp_ns=stamp_ns, index=index)


class TargetMachine(RuleBasedStateMachine):
    """A target's life beside its rules written down once more, with whole milliseconds."""

    @initialize(lost_after=st.integers(1, 30), remove_after=st.integers(0, 30))
    def start(self, lost_after, remove_after):
        self.config = TrackingConfig(
            score_threshold=THRESHOLD, lost_after_s=lost_after / 10, remove_after_s=remove_after / 10
        )
        self.lost_after, self.remove_after = 100 * lost_after, 100 * remove_after
        self.target = Target("7", "the mug")
        self.now = self.frames = 0
        self.sure_at = self.lost_at = self.sure_box = None
        self.update = None

    @rule(passed=st.integers(0, 40), score=st.floats(0, 1), x=st.integers(0, 9), has_box=st.booleans())
    def observe(self, passed, score, x, has_box):
        if self.target.state is TrackState.REMOVED:
            return
        # Odd times: no sum of them is a limit, where a rounding error would decide.
        self.now += 100 * passed + (1 if passed else 0)
        box = Box(x / 10, 0, 1, 1) if has_box else None
        seen = Grounding(box, score if has_box else 0.0, reason="" if has_box else "no box")
        self.update = self.target.observe(at(self.now, self.frames), self.now / 1000, seen, self.config)
        assert self.update.age == self.update.frame_index == self.frames
        self.frames += 1
        self.expect(box, score)

    def expect(self, box, score):
        update = self.update
        if box is not None and score >= THRESHOLD:
            self.sure_at, self.lost_at, self.sure_box = self.now, None, box
            assert (update.state, update.box, update.score, update.reason) == (TrackState.TRACKED, box, score, "")
            return
        assert update.reason
        if self.lost_at is None and self.sure_at is not None and self.now - self.sure_at < self.lost_after:
            assert (update.state, update.box) == (TrackState.UNCERTAIN, box)
            assert update.score == (score if box else 0)
            return
        self.lost_at = self.now if self.lost_at is None else self.lost_at
        gone = self.remove_after > 0 and self.now - self.lost_at >= self.remove_after
        assert update.state is (TrackState.REMOVED if gone else TrackState.LOST)

    @invariant()
    def what_is_lost_has_no_box(self):
        if getattr(self, "update", None) is not None:
            if self.update.state in (TrackState.LOST, TrackState.REMOVED):
                assert (self.update.box, self.update.score) == (None, 0.0)
            assert self.update.last_box == self.sure_box
            assert (self.update.target_id, self.update.expression) == ("7", "the mug")


TestTargetMachine = TargetMachine.TestCase


def test_a_target_that_was_never_found_says_so():
    update = Target("1", "the mug").observe(at(1), 0.0, Grounding(None, 0.0, reason="no box"), TrackingConfig())
    assert (update.state, update.reason) == (TrackState.LOST, "not found yet: no box")


def test_a_doubtful_box_says_why():
    target, config = Target("1", ""), TrackingConfig(score_threshold=0.3)
    target.observe(at(1), 0.0, Grounding(Box(0, 0, 1, 1), 0.9), config)
    update = target.observe(at(2), 0.1, Grounding(Box(0, 0, 1, 1), 0.125), config)
    assert (update.state, update.reason) == (TrackState.UNCERTAIN, "score 0.12 is below 0.3")


def test_a_stopped_target_is_removed():
    target = Target("1", "")
    target.observe(at(1), 0.0, Grounding(Box(0, 0, 1, 1), 0.9), TrackingConfig())
    update = target.stop(at(2, 1))
    assert (update.state, update.box, update.last_box) == (TrackState.REMOVED, None, Box(0, 0, 1, 1))
    assert (update.age, update.frame_index) == (1, 1)


def ticks(*stamps_ns):
    clock = StreamClock()
    return [clock.tick(at(stamp)) for stamp in stamps_ns]


@pytest.mark.parametrize(
    ("stamps_ns", "seconds"),
    [
        ((0, 0, 0), (0, 1 / 30, 2 / 30)),  # no stamps at all: 30 Hz
        ((5_000_000_000, 5_100_000_000, 5_400_000_000), (0, 0.1, 0.4)),
        ((5_000_000_000, 5_000_000_000, 5_000_000_000), (0, 0, 0)),  # the same picture again
        ((9_000_000_000, 1_000_000_000, 1_500_000_000), (0, 0, 0.5)),  # a bag that starts again
        ((0, 7_000_000_000, 7_100_000_000), (0, 1 / 30, 1 / 30 + 0.1)),  # stamps begin late
        ((7_000_000_000, 0, 0, 8_000_000_000), (0, 1 / 30, 2 / 30, 3 / 30)),  # or stop
    ],
)
def test_the_clock_of_a_stream(stamps_ns, seconds):
    assert ticks(*stamps_ns) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("frames", "seconds"),
    [
        (((0, 50.0), (0, 50.2), (0, 51.0)), (0, 0.2, 1.0)),  # a camera without stamps, of which frames are skipped
        (((10**9, 50.0), (2 * 10**9, 50.1)), (0, 1.0)),  # stamps win
        (((10**9, 50.0), (0, 50.1), (10**18, 50.3)), (0, 0.1, 0.3)),  # only some have stamps
        (((0, 50.0), (0, 49.0)), (0, 0)),
    ],
)
def test_times_of_arrival_stand_in_for_missing_stamps(frames, seconds):
    clock = StreamClock()
    times = [clock.tick(replace(at(stamp), arrived_s=arrived)) for stamp, arrived in frames]
    assert times == pytest.approx(seconds)


@given(st.lists(st.integers(0, 4_000_000_000), max_size=20))
def test_time_never_runs_backwards(stamps_ns):
    times = ticks(*stamps_ns)
    assert times == sorted(times)
    assert all(0 <= time <= 4 * len(stamps_ns) for time in times)


@given(st.lists(st.integers(1, 10**19), min_size=1, max_size=20))
def test_stamps_that_only_grow_are_time(stamps_ns):
    stamps_ns.sort()
    assert ticks(*stamps_ns)[-1] == pytest.approx((stamps_ns[-1] - stamps_ns[0]) * 1e-9)
