"""Frames keep their numbers whatever is lost or late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from elysium_ros.demo.recorder import FrameNumbers

RATES_HZ = st.sampled_from([5.0, 15.0, 24.0, 30000 / 1001, 30.0, 60.0])


def stamps(rate_hz: float, count: int, start_ns: int = 1_700_000_000_123_456_789) -> list[int]:
    return [start_ns + round(number * 1e9 / rate_hz) for number in range(count)]


@given(RATES_HZ, st.sets(st.integers(1, 400)), st.randoms())
def test_lost_and_late_frames_shift_no_number(rate_hz: float, lost: set[int], random: object) -> None:
    sent = stamps(rate_hz, 401)
    heard = [number for number in range(1, 401) if number not in lost]
    random.shuffle(heard)  # type: ignore[attr-defined]
    numbers = FrameNumbers(rate_hz)
    assert numbers.of(sent[0]) == 0
    assert [numbers.of(sent[number]) for number in heard] == heard
    assert numbers.count == max(heard, default=0) + 1
    assert numbers.newest_ns == sent[max(heard, default=0)]


def test_the_pause_of_the_camera_is_no_gap() -> None:
    held, after = stamps(20.0, 1)[0], stamps(20.0, 5, start_ns=1_700_000_900_000_000_000)
    numbers = FrameNumbers(20.0, pause_after=1)
    assert [numbers.of(stamp) for stamp in (held, *after[:2], *after[3:])] == [0, 1, 2, 4, 5]


def test_a_stamp_keeps_its_number() -> None:
    numbers = FrameNumbers(15.0)
    assert (numbers.count, numbers.first_ns, numbers.newest_ns) == (0, None, None)
    assert [numbers.of(stamp) for stamp in (7, 7, 7)] == [0, 0, 0]
    assert (numbers.count, numbers.first_ns, numbers.newest_ns) == (1, 7, 7)
