"""The mailbox of a camera: the newest image wins, and every image is accounted for."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.time_line import Verdict

SECOND = 1_000_000_000


def test_the_newest_image_wins_and_the_others_are_counted():
    mailbox = Mailbox("front", 4)
    for stamp in (1, 2, 3):
        assert mailbox.put(stamp, f"image {stamp}", 10) is Verdict.KEPT
    assert mailbox.take().payload == "image 3"
    assert mailbox.take() is None
    assert (mailbox.received, mailbox.dropped) == (3, 2)


@pytest.mark.parametrize("stamp", [5, 4])
def test_an_equal_or_older_stamp_is_dropped(stamp):
    mailbox = Mailbox("", 4)
    mailbox.put(5, "first", 1)
    assert mailbox.put(stamp, "late", 1) is Verdict.OUT_OF_ORDER
    assert (mailbox.take().payload, mailbox.dropped) == ("first", 1)


def test_a_jump_back_in_time_starts_a_new_epoch_and_forgets_the_images():
    mailbox = Mailbox("", 4, clock=itertools.count().__next__)
    mailbox.put(9 * SECOND, "before", 1)
    assert [mailbox.put(stamp, "doubted", 1) for stamp in (7, 8)] == [Verdict.OUT_OF_ORDER] * 2
    assert mailbox.put(9, "after", 1) is Verdict.TIME_JUMP
    assert [image.payload for image in mailbox.recent()] == ["after"]
    assert mailbox.take().epoch == 1
    assert mailbox.put(10, "next", 1) is Verdict.KEPT
    assert mailbox.dropped == 3


def test_one_stamp_from_the_future_does_not_make_the_right_ones_late():
    mailbox = Mailbox("", 4)
    mailbox.put(10 * SECOND, "right", 1)
    assert mailbox.put(25 * SECOND, "ahead", 1, ahead=True) is Verdict.KEPT
    assert mailbox.take().payload == "ahead"
    assert mailbox.put(10 * SECOND + 1, "right again", 1) is Verdict.KEPT
    assert mailbox.take().epoch == 0
    assert mailbox.put(10 * SECOND, "late", 1) is Verdict.OUT_OF_ORDER


def test_images_without_a_stamp_are_all_taken():
    mailbox = Mailbox("", 4)
    assert [mailbox.put(0, n, 1) for n in range(3)] == [Verdict.KEPT] * 3
    assert mailbox.take().payload == 2


def test_the_memory_is_bounded_by_number_and_by_bytes():
    mailbox = Mailbox("", 3)
    for stamp in range(1, 6):
        mailbox.put(stamp, stamp, 1)
    assert [image.payload for image in mailbox.recent()] == [3, 4, 5]
    assert mailbox.find(4).payload == 4
    assert mailbox.find(1) is None
    mailbox.put(6, "huge", 10**9)
    assert [image.payload for image in mailbox.recent()] == ["huge"]


@given(st.lists(st.one_of(st.integers(0, 5 * SECOND), st.sampled_from(["take", "refuse"])), max_size=40))
def test_every_image_is_delivered_dropped_or_waiting(steps):
    mailbox = Mailbox("", 3)
    numbers = []
    for step in steps:
        if step == "take":
            if image := mailbox.take():
                numbers.append(image.number)
        elif step == "refuse":
            mailbox.refuse("STAMP_INVALID: not a time")
        else:
            mailbox.put(step, None, 1)
    if image := mailbox.take():
        numbers.append(image.number)
    assert numbers == sorted(set(numbers))
    assert mailbox.received == len(numbers) + mailbox.dropped
