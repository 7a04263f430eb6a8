"""Late images are dropped; a jump in time is believed when images go on from there."""

import pytest

from elysium_ros.perception.time_line import TimeLine, Verdict

KEPT, DROPPED, JUMP = Verdict.KEPT, Verdict.OUT_OF_ORDER, Verdict.TIME_JUMP
RATE_HZ = 30


class Stream:
    """Images that come one after the other at the rate of the camera."""

    def __init__(self):
        self.now_s = 1000.0
        self.line = TimeLine(lambda: self.now_s)

    def come(self, stamp_s, ahead=False, after_s=1 / RATE_HZ):
        self.now_s += after_s
        return self.line.judge(round(stamp_s * 1e9), ahead=ahead)

    def go_on(self, begin_s, count, ahead=False, after_s=1 / RATE_HZ):
        return [self.come(begin_s + n / RATE_HZ, ahead, after_s) for n in range(count)]


@pytest.fixture
def stream():
    stream = Stream()
    assert stream.go_on(100.0, 10) == [KEPT] * 10
    return stream


@pytest.mark.parametrize("back_s", [1e-9, 0.5, 1.5, 86400.0])
def test_one_late_image_is_dropped_and_nothing_else_happens(stream, back_s):
    assert stream.come(max(100.3 - back_s, 1.0)) is DROPPED
    assert stream.go_on(100.4, 3) == [KEPT] * 3


def test_a_burst_of_late_images_is_dropped(stream):
    assert stream.go_on(97.0, 60, after_s=0.001) == [DROPPED] * 60
    assert stream.go_on(100.4, 3) == [KEPT] * 3


def test_late_images_between_those_in_order_are_dropped_for_ever(stream):
    for n in range(100):
        assert stream.come(50 + n / RATE_HZ) is DROPPED
        assert stream.come(101 + n / RATE_HZ) is KEPT


@pytest.mark.parametrize("begin_s", [98.0, 1.0])
def test_a_jump_back_is_believed_when_images_go_on_from_there(stream, begin_s):
    verdicts = stream.go_on(begin_s, 60)
    assert verdicts.count(JUMP) == 1
    after = verdicts.index(JUMP)
    assert 2 <= after < RATE_HZ
    assert verdicts[after + 1 :] == [KEPT] * (59 - after)


def test_a_slow_camera_needs_three_images_to_be_believed(stream):
    assert [stream.come(second, after_s=1.0) for second in (5.0, 6.0, 7.0, 8.0)] == [DROPPED, DROPPED, JUMP, KEPT]


def test_the_same_old_image_over_and_over_is_no_jump(stream):
    assert {stream.come(5.0) for _ in range(90)} == {DROPPED}


def test_one_image_from_the_future_is_kept_and_does_not_make_the_right_ones_late(stream):
    assert stream.come(125.0, ahead=True) is KEPT
    assert stream.come(100.4) is KEPT
    assert stream.come(100.4) is DROPPED


def test_a_camera_whose_clock_is_ahead_is_in_order_too_and_may_be_set_right():
    stream = Stream()
    assert stream.go_on(500.0, 30, ahead=True) == [KEPT] * 30
    assert stream.come(500.0 + 29 / RATE_HZ, ahead=True) is DROPPED
    assert stream.come(500.0 + 20 / RATE_HZ, ahead=True) is DROPPED
    assert stream.go_on(300.0, 60).count(JUMP) == 1


def test_images_without_stamps_are_kept_and_after_a_reset_all_begins_anew(stream):
    assert stream.come(0.0) is KEPT
    assert stream.come(100.0) is DROPPED
    stream.line.forget()
    assert stream.come(50.0) is KEPT
