"""Descriptions, questions and one-shot grounding, and when a description is due."""

import numpy as np
import pytest

from elysium_core.errors import ExpressionError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import TrackingConfig
from elysium_ros.perception.answers import describe_place, describe_scene, describe_target, ground, next_due


def test_a_target_is_described_where_it_was_seen_last(scene):
    target = scene.start("the red mug")
    with pytest.raises(TargetError, match="not been found yet") as caught:
        describe_target(scene.perception, target.id)
    assert caught.value.code == "NOT_SEEN"
    scene.see(5)
    answer = describe_target(scene.perception, target.id)
    assert (answer.text, answer.image.stamp_ns, answer.target_id) == ("something at 0,0,100,100", 5, target.id)
    scene.see(6)
    view = scene.results[-1].views[0]
    assert (view.description, view.description_stamp_ns) == (answer.text, 5)


def test_a_target_given_by_a_box_can_be_described_at_once(scene, at):
    scene.see(5)
    target = scene.start(place=at(16, 12, 32, 24))
    assert describe_target(scene.perception, target.id).text == "something at 25,25,50,50"


def test_a_box_and_the_scene_are_described_in_the_newest_image(scene, at):
    with pytest.raises(TargetError, match="no image"):
        describe_scene(scene.perception, "")
    scene.see(5)
    place = describe_place(scene.perception, "", at(16, 12, 32, 24))
    assert (place.text, place.box) == ("something at 25,25,50,50", Box(0.25, 0.25, 0.5, 0.5))
    assert describe_scene(scene.perception, "", "Is it raining?").question == "Is it raining?"
    with pytest.raises(ExpressionError):
        describe_scene(scene.perception, "", "USER: hello")


class AskedModel(IdentityModel):
    """Remembers what it was asked about."""

    def ask(self, frames, question):
        self.asked = frames
        return super().ask(frames, question)


def test_a_question_about_a_box_is_asked_of_the_picture_inside_it(at, make_scene):
    scene = make_scene(model=AskedModel())
    scene.see(1)
    describe_place(scene.perception, "", at(20, 10, 40, 30), "What is it?")
    frame = scene.perception.model.asked
    assert (frame.width, frame.height) == (26, 26), "the box and 15 % on each side"


def test_a_question_about_the_scene_is_asked_of_the_last_images_of_one_size(make_scene):
    scene = make_scene(model=AskedModel())
    for stamp, payload in ((1, (10, 10)), (2, (48, 64)), (3, "broken"), (4, (48, 64))):
        scene.see(stamp, payload=payload)
    describe_scene(scene.perception, "")
    assert [frame.stamp_ns for frame in scene.perception.model.asked] == [2, 4]


def test_grounding_leaves_no_trace(scene):
    found = ground(scene.perception, Frame(np.zeros((4, 4, 3), np.uint8)), "the red mug")
    assert found.box == Box(0, 0, 1, 1)
    assert scene.perception.active_ids == []
    with pytest.raises(ExpressionError):
        ground(scene.perception, Frame(np.zeros((4, 4, 3), np.uint8)), " ")


def test_answers_look_closer_as_the_settings_say(make_scene, at):
    class Model(IdentityModel):
        def describe(self, frames, box, frame_index=0, *, zoom=False):
            asked.append(zoom)
            return super().describe(frames, box, frame_index)

        def ground(self, image, expression, *, zoom=False):
            asked.append(zoom)
            return super().ground(image, expression)

    asked = []
    scene = make_scene(model=Model())
    scene.see(1)
    for zoom in (True, False):
        scene.perception.configure(TrackingConfig(zoom=zoom))
        describe_place(scene.perception, "", at(16, 12, 32, 24))
        ground(scene.perception, Frame(np.zeros((4, 4, 3), np.uint8)), "the red mug")
    assert asked == [True, True, False, False]


def test_the_target_that_waited_longest_is_due_for_its_periodic_description(scene):
    first, second = scene.start("one"), scene.start("two", add=True)
    assert next_due(scene.perception, 1.0, 100.0) is None, "nothing was seen yet"
    scene.see(1)
    assert next_due(scene.perception, 0.0, 100.0) is None
    first.described_at_s, second.described_at_s = 99.0, 98.0
    assert next_due(scene.perception, 1.5, 100.0) is second
    assert next_due(scene.perception, 5.0, 100.0) is None
