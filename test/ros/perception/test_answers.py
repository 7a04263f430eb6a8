"""Descriptions, questions and one-shot grounding, and when a description is due."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elysium_core.errors import ExpressionError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_ros.perception.answers import (
    DescriptionSchedule,
    describe_place,
    describe_scene,
    describe_target,
    ground,
)
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import InferenceSettings


def test_a_target_is_described_where_it_was_seen_last(scene):
    target = scene.start("the red mug")
    describe = partial(describe_target, scene.perception.model, scene.perception.stream(""), target)
    with pytest.raises(TargetError, match="not been found yet") as caught:
        describe()
    assert caught.value.code == "NOT_SEEN"
    scene.see(5)
    answer = describe()
    assert (answer.text, answer.image.stamp_ns, answer.target_id) == ("something at 0,0,100,100", 5, target.id)
    scene.see(6)
    view = scene.results[-1].views[0]
    assert (view.description, view.description_stamp_ns) == (answer.text, 5)


def test_a_target_given_by_a_box_can_be_described_at_once(scene, at):
    scene.see(5)
    target = scene.start(place=at(16, 12, 32, 24))
    answer = describe_target(scene.perception.model, scene.perception.stream(""), target)
    assert answer.text == "something at 25,25,50,50"


def test_a_box_and_the_scene_are_described_in_the_newest_image(scene, at):
    model, stream = scene.perception.model, scene.perception.stream("")
    with pytest.raises(TargetError, match="no image"):
        describe_scene(model, stream)
    scene.see(5)
    place = describe_place(model, stream, at(16, 12, 32, 24))
    assert (place.text, place.box) == ("something at 25,25,50,50", Box(0.25, 0.25, 0.5, 0.5))
    assert describe_scene(model, stream, "Is it raining?").question == "Is it raining?"
    with pytest.raises(ExpressionError):
        describe_scene(model, stream, "USER: hello")


class AskedModel(IdentityModel):
    """Remembers what it was asked about."""

    def describe(self, frames, box, frame_index=0, *, zoom=False):
        self.asked, self.shown = frames, frame_index
        return super().describe(frames, box, frame_index)

    def ask(self, frames, question):
        self.asked = frames
        return super().ask(frames, question)


def test_a_question_about_a_box_is_asked_of_the_picture_inside_it(at, make_scene):
    scene = make_scene(model=AskedModel())
    scene.see(1)
    describe_place(scene.perception.model, scene.perception.stream(""), at(20, 10, 40, 30), "What is it?")
    frame = scene.perception.model.asked
    assert (frame.width, frame.height) == (26, 26), "the box and 15 % on each side"


def test_a_question_about_the_scene_is_asked_of_the_last_images_of_one_size(make_scene):
    scene = make_scene(model=AskedModel())
    for stamp, size in ((1, (10, 10)), (2, (48, 64)), (3, None), (4, (48, 64))):
        scene.see(stamp, size=size)
    describe_scene(scene.perception.model, scene.perception.stream(""))
    assert [frame.stamp_ns for frame in scene.perception.model.asked] == [2, 4]


def test_the_images_of_a_scene_are_spread_evenly_over_what_is_remembered(make_scene):
    model = AskedModel()
    model.info = replace(IdentityModel.info, clip_length=3)
    scene = make_scene(model=model)
    for stamp in (1, 2, 3, 4):
        scene.see(stamp)
    describe_scene(model, scene.perception.stream(""))
    assert [frame.stamp_ns for frame in model.asked] == [1, 3, 4]


@pytest.mark.parametrize(("describes", "seen"), [("clip", ([1, 2, 4], 1)), ("frame", ([2], 0))])
def test_a_hidden_target_is_described_by_the_clip_around_the_frame_in_which_it_was_seen_last(
    make_scene, describes, seen
):
    model = AskedModel()
    model.info = replace(IdentityModel.info, clip_length=4, describes=describes)
    scene = make_scene(model=model)
    target = scene.start("the red mug")
    for stamp in (1, 2, 3, 4):
        scene.see(stamp, size=(48, 64) if stamp != 3 else (10, 10))
        if stamp == 2:
            sight = target.sight
    target.sight = sight
    answer = describe_target(model, scene.perception.stream(""), target)
    assert ([frame.stamp_ns for frame in model.asked], model.shown) == seen
    assert (answer.image.stamp_ns, answer.text) == (2, "something at 0,0,100,100")
    for stamp in (5, 6, 7, 8):
        scene.see(stamp)
    target.sight = sight
    describe_target(model, scene.perception.stream(""), target)
    assert (model.asked[0].stamp_ns, model.shown) == (2, 0), "also after its frame has left the memory"


def test_an_answer_about_images_that_were_forgotten_meanwhile_is_refused(make_scene, at):
    class Model(IdentityModel):
        def describe(self, *_, **__):
            scene.perception.reset(EndReason.RESET)
            return ""

        ask = describe

    scene = make_scene(model=(model := Model()))
    stream = scene.perception.stream("")
    answers = (
        lambda target: describe_target(model, stream, target),
        lambda target: describe_place(model, stream, at(1, 1, 9, 9)),
        lambda target: describe_scene(model, stream),
    )
    for stamp, answer in enumerate(answers):
        scene.see(2 * stamp + 1)
        target = scene.start("the red mug")
        scene.see(2 * stamp + 2)
        with pytest.raises(TargetError) as caught:
            answer(target)
        assert caught.value.code == "IMAGES_FORGOTTEN"


def test_grounding_leaves_no_trace(scene):
    found = ground(scene.perception.model, Frame(np.zeros((4, 4, 3), np.uint8)), "the red mug")
    assert found.box == Box(0, 0, 1, 1)
    assert scene.perception.active_ids == []
    with pytest.raises(ExpressionError):
        ground(scene.perception.model, Frame(np.zeros((4, 4, 3), np.uint8)), " ")


def test_answers_look_closer_when_they_are_asked_to(make_scene, at):
    class Model(IdentityModel):
        def describe(self, frames, box, frame_index=0, *, zoom=False):
            asked.append(zoom)
            return super().describe(frames, box, frame_index)

        def ground(self, image, expression, *, zoom=False):
            asked.append(zoom)
            return super().ground(image, expression)

    asked = []
    scene = make_scene(model=(model := Model()))
    scene.see(1)
    for zoom in (True, False):
        describe_place(model, scene.perception.stream(""), at(16, 12, 32, 24), zoom=zoom)
        ground(model, Frame(np.zeros((4, 4, 3), np.uint8)), "the red mug", zoom=zoom)
    assert asked == [True, True, False, False]


def test_the_target_that_waited_longest_is_due_for_its_periodic_description(scene):
    schedule = DescriptionSchedule()

    def due(period_s, now_s):
        target = schedule.next(scene.perception.targets(), period_s, now_s)
        return target and target.id

    scene.start("one"), scene.start("two", add=True)
    assert due(1.0, 100.0) is None, "nothing was seen yet"
    scene.see(1)
    assert [due(5.0, 100.0), due(5.0, 101.0), due(5.0, 102.0)] == [1, 2, None]
    assert [due(5.0, 105.5), due(5.0, 105.5)] == [1, None]
    assert [due(1.0, 107.0), due(1.0, 107.0)] == [2, 1]


@given(text=st.text())
@example(text="a mug\0 and \ud800 more\n\x1b[31m")
def test_any_text_of_a_model_can_be_sent(make_scene, text):
    class Model(IdentityModel):
        def ask(self, frames, question):
            return text

    scene = make_scene(model=Model())
    scene.see(1)
    sent = describe_scene(scene.perception.model, scene.perception.stream("")).text
    assert sent.encode("utf-8").decode("utf-8") == sent
    assert sent.isprintable()


def test_the_text_of_a_model_becomes_one_line(make_scene):
    class Model(IdentityModel):
        def ask(self, frames, question):
            return "a red  mug\n"

    scene = make_scene(model=Model())
    scene.see(1)
    assert describe_scene(scene.perception.model, scene.perception.stream("")).text == "a red mug"


@pytest.mark.parametrize(
    ("describes", "period_s", "due"),
    [
        ("clip", 10.0, [1, 1, 1]),
        ("clip", -1.0, [1, 1, 1]),
        ("clip", 0.0, [0, 0, 0]),
        ("none", -1.0, [0, 0, 0]),
        ("none", 5.0, [1, 1, 1]),
    ],
)
def test_targets_are_described_by_themselves_if_the_model_can_or_if_it_is_wanted(make_scene, describes, period_s, due):
    model = IdentityModel()
    model.info = replace(IdentityModel.info, describes=describes)
    scene = make_scene(model=model)
    scene.perception.configure(InferenceSettings(describe_period_s=period_s))
    assert scene.perception.next_question() is None, "nothing is followed"
    scene.start("one")
    described = []
    for stamp in (1, 2, 3):
        scene.see(stamp)
        if question := scene.perception.next_question():
            question(lambda: None)
        described.append(len(scene.outputs.answers))
    assert described == due


def test_a_target_that_has_ended_meanwhile_is_not_described(scene):
    scene.perception.configure(InferenceSettings(describe_period_s=1.0))
    scene.start("one")
    scene.see(1)
    question = scene.perception.next_question()
    scene.perception.stop(0)
    question(lambda: None)
    assert scene.outputs.answers == []
