"""What comes in: pictures good and bad, in and out of order."""

import itertools

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.srv import SelfTest

from elysium_ros.convert.messages import header_at, image_message, stamp_to_ns
from elysium_ros.msg import Box2D, TrackedObject

PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"encoding": "no_such"}, "IMG_ENCODING"),
        ({"encoding": ""}, "IMG_ENCODING"),
        ({"height": 0, "width": 0}, "IMG_SHAPE"),
        ({"height": 2**32 - 1, "width": 2**32 - 1}, "IMG_TOO_LARGE"),
        ({"step": 0}, "IMG_SHAPE"),
        ({"data": b"1234567"}, "IMG_SHAPE"),
    ],
)
def test_an_image_that_cannot_be_used_is_counted_and_the_next_one_answered(tracker, changes, code):
    message = image_message(tracker.camera.picture, tracker.camera.header())
    for name, value in changes.items():
        setattr(message, name, value)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")
    before = count_of(code, diagnostics.wait())
    header = tracker.camera.send(message)
    diagnostics.wait(lambda message: count_of(code, message) == before + 1)
    diagnostics.close()
    assert tracker.see().dropped == 1
    assert header not in [m.header for m in tracker.objects[""].messages]
    tracker.until(lambda: f"{code}: " in tracker.process.output(), "its cause in the log")


def test_an_image_whose_stamp_is_no_time_is_counted_and_the_next_one_answered(tracker):
    message = image_message(tracker.camera.picture, tracker.camera.header())
    message.header.stamp = Time(sec=1, nanosec=4_000_000_000)
    tracker.camera.send(message)
    assert tracker.see().dropped == 1
    cause = "STAMP_INVALID: the stamp 1 s 4000000000 ns is not a time"
    tracker.until(lambda: cause in tracker.process.output(), "its cause in the log")


def count_of(code, message):
    [status] = [status for status in message.status if status.name.endswith(": input")]
    return int({pair.key: pair.value for pair in status.values}.get(code, "0"))


def test_encodings_and_sizes_may_change_from_image_to_image(tracker):
    tracker.client.track(box=PART)
    for encoding, size in itertools.product(("bgr8", "rgb8"), ((60, 80), (48, 64))):
        message = image_message(np.zeros((*size, 3), np.uint8), tracker.camera.header())
        message.encoding = encoding
        answer = tracker.objects[""].of(tracker.camera.send(message))
        assert (answer.image_height, answer.image_width) == size
        assert answer.objects[0].box.x_max == size[1] / 2, "boxes follow the size"


def test_late_images_are_dropped_and_after_a_jump_back_what_has_words_is_followed_again(tracker):
    worded, boxed = tracker.client.track("one"), tracker.client.track(box=PART, add=True)
    newest_ns = stamp_to_ns(tracker.see().header.stamp)
    for age_ns in (1000, 1_500_000_000):
        tracker.camera.send(image_message(tracker.camera.picture, header_at(newest_ns - age_ns, "camera")))
    answer = tracker.see()
    assert answer.dropped == 2
    followed = [(target.id, TrackedObject.STATE_TRACKED) for target in (worded, boxed)]
    assert tracker.states(answer) == followed
    stamps = itertools.count(newest_ns - 3600 * 10**9, 20_000_000)

    def earlier():
        header = tracker.camera.send(image_message(tracker.camera.picture, header_at(next(stamps), "camera")))
        hour_ago = [m for m in list(tracker.objects[""].messages) if m.header.stamp.sec <= header.stamp.sec]
        return [tracker.states(message) for message in hour_ago]

    states = tracker.until(earlier, "a result after the jump back in time")
    assert states[0] == [(boxed.id, TrackedObject.STATE_REMOVED), followed[0]]
    tracker.until(lambda: "TIME_JUMP" in tracker.process.output(), "a word of the jump in the log")


def no_encoding(message):
    message.encoding = "32FC1"


def no_size(message):
    message.height = message.width = message.step = 0


def no_time(message):
    message.header.stamp = Time(sec=1, nanosec=4_000_000_000)


def same_stamp(message):
    message.header.stamp = Time(sec=1_700_000_000)


def old(message):
    message.header.stamp = Time(sec=1)


@pytest.mark.parametrize(
    ("spoil", "code", "max_age"),
    [
        (no_encoding, "IMG_ENCODING", 0.0),
        (no_size, "IMG_SHAPE", 0.0),
        (no_time, "STAMP_INVALID", 0.0),
        (same_stamp, "STAMP_ORDER", 0.0),
        (old, "FRAME_AGE", 5.0),
    ],
)
def test_a_camera_that_sends_nothing_of_use_is_an_error_with_its_cause_everywhere(tracker, spoil, code, max_age):
    tracker.set_parameters(frame_timeout=0.5, max_frame_age=max_age)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")

    def spoilt():
        message = image_message(tracker.camera.picture, tracker.camera.header())
        spoil(message)
        tracker.camera.send(message)
        return [m for m in list(diagnostics.messages) if codes(m) == {"input": code, "inference": code}]

    try:
        tracker.until(spoilt, f"{code} as the error of input and inference")
        reply = tracker.client.call(SelfTest, "self_test", SelfTest.Request())
        assert reply.passed == b"\x00"
        assert tracker.client.track("the red mug", wait_s=0.1).message.startswith(f"{code}: ")
        tracker.set_parameters(max_frame_age=0.0)
        diagnostics.messages.clear()

        def is_well():
            tracker.see()
            return [m for m in list(diagnostics.messages) if not codes(m)]

        tracker.until(is_well, "no error after a good image")
    finally:
        diagnostics.close()
        tracker.set_parameters(frame_timeout=2.0, max_frame_age=0.0)


def codes(message):
    """The codes of the errors of input and inference in diagnostics."""
    failed = [status for status in message.status if status.level == b"\x02"]
    return {
        s.name.rpartition(": ")[2]: {pair.key: pair.value for pair in s.values}["code"]
        for s in failed
        if not s.name.endswith("model")
    }
