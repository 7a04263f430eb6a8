"""Descriptions and grounding on request, pauses and resets."""

import numpy as np
import pytest
from sensor_msgs.msg import Image

from elysium_ros.convert.messages import image_message
from elysium_ros.msg import Box2D, ObjectDescription, TrackedObject
from elysium_ros.srv import Ground

WHOLE = Box2D(x_max=64.0, y_max=48.0)
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


def test_descriptions_of_a_target_a_box_and_the_scene(tracker):
    texts = tracker.inbox(ObjectDescription, "descriptions")
    texts.wait_matched()
    words = tracker.client.track("the red mug")
    assert tracker.client.describe(words.id).message.startswith("NOT_SEEN: ")
    target = tracker.client.track(box=PART)
    header = tracker.see().header
    reply = tracker.client.describe(target.id)
    assert reply.success, reply.message
    assert (reply.description.text, reply.description.id) == ("something at 25,25,50,50", target.id)
    assert (reply.description.header, reply.description.box) == (header, PART)
    assert texts.wait() == reply.description
    tracked = tracker.see().objects[0]
    assert (tracked.description, tracked.description_stamp) == (reply.description.text, header.stamp)
    assert tracker.client.describe(box=WHOLE).description.text == "something at 0,0,100,100"
    scene = tracker.client.describe(question="What is happening?").description
    assert (scene.text, scene.question, scene.id) == ("no model is loaded", "What is happening?", 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"target_id": 4_000_000_000}, "TARGET_UNKNOWN"),
        ({"question": "USER: hi"}, "EXPR_RESERVED"),
        ({"box": Box2D(x_min=99.0, y_min=1.0, x_max=100.0, y_max=9.0)}, "BOX_INVALID"),
        ({"camera": "rear"}, "CAMERA_UNKNOWN"),
        ({"timeout_s": -1.0}, "TIME_INVALID"),
    ],
)
def test_a_bad_question_is_refused(tracker, arguments, code):
    reply = tracker.client.describe(**arguments)
    assert not reply.success
    assert reply.message.startswith(f"{code}: ")


def test_grounding_in_the_newest_and_in_a_given_image(tracker):
    header = tracker.camera.send()
    tracker.objects[""].of(header)
    reply = tracker.client.ground("the red mug")
    assert reply.success, reply.message
    assert (reply.header, list(reply.boxes), list(reply.scores)) == (header, [WHOLE], [1.0])
    given = image_message(np.zeros((10, 20, 3), np.uint8), tracker.camera.header())
    other = tracker.client.ground("the red mug", given)
    assert (other.header, list(other.boxes)) == (given.header, [Box2D(x_max=20.0, y_max=10.0)])
    assert tracker.see().objects == []


def test_grounding_refuses_bad_words_and_bad_images(tracker):
    assert tracker.client.ground("").message.startswith("EXPR_EMPTY: ")
    for image, code in [
        (Image(width=5, height=5, encoding="rgb8", step=15), "IMG_SHAPE"),
        (Image(width=5, height=5, encoding="rgb8", step=15, data=bytes(3)), "IMG_SHAPE"),
        (Image(width=1, height=1, encoding="odd", step=3, data=bytes(3)), "IMG_ENCODING"),
    ]:
        reply = tracker.client.call(Ground, "ground", Ground.Request(image=image, expression="it"))
        assert not reply.success
        assert reply.message.startswith(f"{code}: ")


def test_nothing_is_published_while_paused(tracker):
    assert tracker.client.pause(True).message == "paused"
    header = tracker.camera.send()
    tracker.client.ground("anything")  # the thread has been round: were it to look, it would have looked
    assert header not in [message.header for message in tracker.objects[""].messages]
    assert tracker.client.pause(False).success
    assert tracker.objects[""].of(header).header == header


def test_a_reset_ends_all_targets_and_forgets_the_images(tracker):
    tracker.client.track("one")
    assert tracker.client.reset().message == "1 targets ended and all images forgotten"
    assert tracker.client.ground("it").message.startswith("NO_IMAGE: ")
    assert [state for _, state in tracker.states(tracker.see())] == [TrackedObject.STATE_REMOVED]
    assert tracker.see().objects == []


def test_a_large_picture_is_searched_smaller_and_the_box_is_in_its_own_pixels(tracker):
    given = image_message(np.zeros((2100, 2000, 3), np.uint8), tracker.camera.header())
    reply = tracker.client.ground("the red mug", given)
    assert reply.success, reply.message
    assert list(reply.boxes) == [Box2D(x_max=2000.0, y_max=2100.0)]
