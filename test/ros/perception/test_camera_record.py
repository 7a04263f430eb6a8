"""What is known of the images of a camera: how long none came, how long none was answered, and why."""

import pytest

from elysium_core.errors import TargetError
from elysium_ros.perception.camera_record import CameraHealth, CameraRecord


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def record(clock):
    return CameraRecord(clock)


def test_silence_is_counted_from_the_start_and_then_from_the_last_image(record, clock):
    clock.now_s += 3
    assert record.health() == CameraHealth(silence_s=3.0)
    record.image_received()
    clock.now_s += 1
    assert (record.health().silence_s, record.health().received) == (1.0, 1)


def test_waiting_begins_with_the_first_image_after_a_result_not_with_the_result(record, clock):
    record.image_received()
    record.image_answered()
    clock.now_s += 60
    assert record.health().waiting_s == 0
    for _ in range(3):
        record.image_received()
        clock.now_s += 1
    assert record.health().waiting_s == 3.0
    record.image_answered()
    assert (record.health().waiting_s, record.health().answered) == (0.0, 2)


def test_refusals_are_named_until_the_next_result_and_counted_for_ever(record):
    for code in ("IMG_SHAPE", "IMG_ENCODING", "IMG_ENCODING", "STAMP_ORDER"):
        record.image_received()
        record.image_refused(f"{code}: why: so")
    health = record.health()
    assert health.refusal_code == "IMG_ENCODING"
    assert health.refused == {"IMG_ENCODING": 2, "IMG_SHAPE": 1, "STAMP_ORDER": 1}
    assert health.last_refusal == "STAMP_ORDER: why: so"
    record.image_answered()
    health = record.health()
    assert (health.refusal_code, health.last_refusal, health.refused) == ("", "", {})
    assert health.refusals["IMG_ENCODING"] == 2


def test_an_image_that_cannot_be_decoded_is_on_the_record_and_one_that_can_is_a_result(scene):
    record = scene.mailboxes[""].record
    scene.see(1, size=None)
    health = record.health()
    assert (health.received, health.answered, health.refusal_code) == (1, 0, "INTERNAL")
    scene.see(2)
    assert (record.health().answered, record.health().refused) == (1, {})


def test_questions_about_an_image_say_why_there_is_none(scene):
    scene.mailboxes[""].refuse("FRAME_AGE: too old")
    with pytest.raises(TargetError) as caught:
        scene.start(place=lambda width, height: None)
    assert caught.value.code == "FRAME_AGE"


def test_lost_images_are_counted_and_their_share_is_that_of_the_last_seconds(record, clock):
    for _ in range(30):
        clock.now_s += 0.1
        record.image_received()
    record.images_lost(10)
    assert (record.health().lost, record.health().loss_share) == (10, 0.25)
    for _ in range(120):
        clock.now_s += 0.1
        record.image_received()
    assert (record.health().lost, record.health().loss_share) == (10, 0.0)


def test_images_that_come_after_all_were_not_lost_and_there_are_never_less_than_none(record):
    for count, lost in ((-2, 0), (5, 5), (-3, 2), (-4, 0)):
        record.images_lost(count)
        assert record.health().lost == lost
        assert record.health().loss_share >= 0
