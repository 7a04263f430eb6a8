"""A node with the packaged models: all objects of a name, and the paper's clips."""

import numpy as np
import pytest

from elysium_core.data.photos.photo_folders import PACKAGED_PHOTOS
from elysium_core.io.image import read_image
from elysium_ros.msg import Box2D


@pytest.mark.slow
def test_names_in_braces_are_followed_and_end_with_their_request(start_tracker):
    tester = start_tracker(model__path="real", tracking__max_objects=16)
    tester.wait_active()
    woman = read_image(PACKAGED_PHOTOS / "astronaut.jpg")
    tester.camera.picture = np.concatenate([woman, woman[:, ::-1]], axis=1)
    tester.see()
    with tester.camera.streaming(5.0):
        reply = tester.client.track("{people}", wait_s=60.0)
        assert reply.success, reply.message
        assert reply.object.id > reply.id, "the object has an id of its own"
        both = tester.objects[""].wait(lambda message: len(message.objects) == 2, 60.0)
    assert {tracked.label for tracked in both.objects} == {"person"}
    middles = sorted((tracked.box.x_min + tracked.box.x_max) / 2 for tracked in both.objects)
    assert middles[0] < both.image_width / 2 < middles[1]
    stopped = tester.client.stop(reply.id)
    assert sorted(stopped.stopped_ids) == [reply.id, *sorted(tracked.id for tracked in both.objects)]


@pytest.mark.slow
def test_in_the_papers_clips_every_image_has_a_result_with_its_own_stamp(start_tracker):
    tester = start_tracker(model__path="nano", clip__mode="paper", model__warmup=0, frame_timeout=20.0)
    tester.wait_active()
    tester.see()
    reply = tester.client.track(box=Box2D(x_min=8.0, y_min=8.0, x_max=40.0, y_max=40.0))
    assert reply.success, reply.message
    inbox = tester.objects[""]
    with tester.camera.streaming(5.0):
        tester.until(lambda: sum(len(message.objects) for message in list(inbox.messages)) >= 7, "two clips", 60.0)
    followed = [message for message in inbox.messages if message.objects]
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in followed]
    assert stamps == sorted(set(stamps)), "one result an image, in the order of the images"
    assert {tracked.id for message in followed for tracked in message.objects} == {reply.id}
