from __future__ import annotations

import pytest

from elysium_core.io.image import read_image

IDENTITY = ("--model", "identity")


def test_ground_answers_every_expression(elysium, image):
    outcome = elysium("ground", image, "-e", "the mug", "-e", "the  dog", *IDENTITY, "--json")
    assert outcome.code == 0
    assert [line["expression"] for line in outcome.lines] == ["the mug", "the dog"]
    assert outcome.lines[0]["box"] == [0, 0, 1, 1]
    assert outcome.lines[0]["box_px"] == [0, 0, 64, 48]
    assert outcome.lines[0]["score"] == 1


def test_ground_for_a_person(elysium, image, tmp_path):
    outcome = elysium("ground", image, "-e", "the mug", *IDENTITY, "--render", tmp_path / "a.png")
    assert outcome.out == "the mug: [0.0, 0.0, 64.0, 48.0] px, score 1.00\n"
    assert read_image(tmp_path / "a.png").shape == (48, 64, 3)
    assert (read_image(tmp_path / "a.png") != read_image(image)).any()


@pytest.mark.parametrize("box", ["0.1,0.25,0.5,0.75", "6.4,12,32,36", "6.4px,12px,32px,36px"])
def test_describe_a_box_of_a_frame_inside_a_clip(elysium, video, box):
    outcome = elysium("describe", video, "--box", box, "--frame", 5, "--frames", 4, *IDENTITY, "--json")
    assert outcome.code == 0
    (answer,) = outcome.lines
    assert answer["text"] == "something at 10,25,50,75"
    assert answer["box"] == [0.1, 0.25, 0.5, 0.75]
    assert answer["frame"] == 5
    assert answer["frames"] == [5, 7, 9, 11]


def test_describe_a_box_of_the_last_frame_from_what_came_before(elysium, video):
    (answer,) = elysium("describe", video, "-b", "0,0,1,1", "-n", 11, "--frames", 3, *IDENTITY, "--json").lines
    assert answer["frames"] == [0, 6, 11]


def test_describe_a_box_of_one_picture(elysium, image):
    assert elysium("describe", image, "--box", "0,0,1,1", *IDENTITY).out == "something at 0,0,100,100\n"


def test_ask_shows_sixteen_frames_of_the_video(elysium, video):
    (answer,) = elysium("ask", video, "--question", "what  is it?", *IDENTITY, "--json").lines
    assert answer == {"question": "what is it?", "answer": "no model is loaded", "frames": list(range(12))}
    (answer,) = elysium("ask", video, "-q", "what?", "--frames", 3, *IDENTITY, "--json").lines
    assert answer["frames"] == [0, 6, 11]


def test_caption(elysium, video):
    (answer,) = elysium("caption", video, *IDENTITY, "--json").lines
    assert answer["text"] == "no model is loaded"
    assert answer["frames"] == list(range(12))
    assert elysium("caption", video, *IDENTITY).out == "no model is loaded\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ground", "{image}"), "say what to find"),
        (("ground", "{image}", "-e", "</s>"), "prompt format"),
        (("ground", "{video}", "-e", "mug"), "is not a JPEG"),
        (("ground", "{image}", "-e", "mug", "--render", "a.mp4"), "cannot write an image"),
        (("describe", "{video}"), "Missing option '--box'"),
        (("describe", "{video}", "--box", "0,0,0,0"), "reversed or empty"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frame", "12"), "no frame 12"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frame", "-1"), "--frame"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frames", "33"), "--frames"),
        (("ask", "{video}"), "Missing option '--question'"),
        (("ask", "{video}", "--question", ""), "expression is empty"),
        (("ask", "{video}", "--question", "USER: hi"), "prompt format"),
        (("caption", "/no/such.mp4"), "there is no video"),
    ],
)
def test_bad_input_is_one_line(elysium, image, video, arguments, reason):
    paths = {"{image}": image, "{video}": video}
    outcome = elysium(*(paths.get(argument, argument) for argument in arguments), *IDENTITY)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
