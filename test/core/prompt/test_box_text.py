"""The one grammar of boxes: written, read, and never misread."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elysium_core.geometry import Box
from elysium_core.prompt.box_text import LEVELS, format_box, format_track, parse_answer, quantize

BOX = Box(0.1, 0.2, 0.3, 0.4)
BOX_TEXT = "[10,20,30,40]"


@st.composite
def level_boxes(draw):
    """Boxes whose edges are whole levels, so that text loses nothing."""
    sides = [sorted(draw(st.lists(st.integers(0, LEVELS), min_size=2, max_size=2, unique=True))) for _ in "xy"]
    (x1, x2), (y1, y2) = sides
    return Box(x1 / LEVELS, y1 / LEVELS, x2 / LEVELS, y2 / LEVELS)


@st.composite
def any_boxes(draw):
    sides = [sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2))) for _ in "xy"]
    (x1, x2), (y1, y2) = sides
    return Box(x1, y1, max(x2, min(1.0, x1 + 0.02)), max(y2, min(1.0, y1 + 0.02))) if max(x1, y1) < 0.98 else BOX


def as_text(boxes):
    return ", ".join(f"Frame {number}: {text}" for number, text in boxes) + "."


# Writing.


def test_published_spelling():
    assert format_box(Box(0.231, 0.45, 0.458, 0.72)) == "[23,45,46,72]"
    assert format_box(Box(0, 0, 1, 1)) == "[0,0,100,100]"


def test_one_frame_has_no_label_and_several_have():
    assert format_track([BOX]) == "[10,20,30,40]."
    assert format_track([BOX, Box(0, 0, 1, 1)]) == "Frame 1: [10,20,30,40], Frame 2: [0,0,100,100]."


@given(any_boxes())
def test_levels_are_the_rounded_hundredths(box):
    assert list(quantize(box)) == [int(round(value * 100)) for value in box]  # noqa: RUF046  # as the paper has it


# Reading what was written.


@given(st.lists(level_boxes(), min_size=1, max_size=32))
def test_what_is_written_is_read_back(boxes):
    answer = parse_answer(format_track(boxes), len(boxes))
    assert answer.boxes == tuple(boxes)
    assert answer.groups == tuple(range(len(boxes)))
    assert not answer.problems


@given(any_boxes())
def test_text_moves_an_edge_by_half_a_level_at_most(box):
    read = parse_answer(format_box(box), 1).boxes[0]
    assert read is not None
    assert all(abs(a - b) <= 0.5 / LEVELS + 1e-9 for a, b in zip(read, box, strict=True))


@given(st.data())
def test_frames_are_matched_by_label_whatever_their_order(data):
    count = data.draw(st.integers(2, 12))
    boxes = data.draw(st.dictionaries(st.integers(1, count), level_boxes(), min_size=1, max_size=count))
    order = data.draw(st.permutations(sorted(boxes)))
    answer = parse_answer(as_text((number, format_box(boxes[number])) for number in order), count)
    assert answer.boxes == tuple(boxes.get(number) for number in range(1, count + 1))
    assert answer.groups == tuple(order.index(n) if n in boxes else None for n in range(1, count + 1))
    assert answer.problems["missing"] == count - len(boxes)


@given(st.data())
def test_a_damaged_frame_never_takes_another_frames_box(data):
    count = data.draw(st.integers(2, 6))
    boxes = [Box(0, 0, (number + 1) / 100, 1) for number in range(count)]
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    texts = [data.draw(hostile_bodies) if place in bad else format_box(box) for place, box in enumerate(boxes)]
    answer = parse_answer(as_text(enumerate(texts, 1)), count)
    for place, box in enumerate(boxes):
        assert answer.boxes[place] in ({None} if place in bad else {box, None})
    assert sum(answer.problems.values()) > 0


FULL_WIDTH_2 = "\N{FULLWIDTH DIGIT TWO}"
hostile_bodies = st.sampled_from(
    "|[]|[ ]|[1,2,3]|[5,6,7]|[1,2,3,4,5]|[90,80,10,20]|[120,5,300,400]|[-1,2,3,4]|[0.1,0.2,0.3,0.4]|[1,,3,4]"
    f"|[1 2,3,4,5]|[a,b,c,d]|nothing|[1,2,3,|[{FULL_WIDTH_2},3,4,5]|[[1,2],[3,4]]".split("|")
)


# Hostile answers, one by one: what comes out and why.


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("[1,2,3]", "malformed"),
        ("[1,2,3,4,5]", "malformed"),
        ("[]", "malformed"),
        ("[ ]", "malformed"),
        ("[1,,3,4]", "malformed"),
        ("[1 2,3,4,5]", "malformed"),
        ("[0.1,0.2,0.3,0.4]", "malformed"),
        ("[-1,2,3,4]", "malformed"),
        ("[a,b,c,d]", "malformed"),
        ("[1;2;3;4]", "malformed"),
        (f"[1,{FULL_WIDTH_2},3,4]", "malformed"),
        ("[1e1,2,3,4]", "malformed"),
        ("[1,2,3,4000]", "malformed"),
        ("[120,5,300,400]", "range"),
        ("[0,0,50,101]", "range"),
        ("[0,0,101,50]", "range"),
        ("[90,80,10,20]", "empty"),
        ("[10,20,10,40]", "empty"),
        ("[10,20,30,20]", "empty"),
        ("[0,0,0,0]", "empty"),
        ("[10,20,30,40", "unclosed"),
        ("[10,20,[30,40", "unclosed"),
        ("[", "unclosed"),
    ],
)
def test_what_is_not_a_box_is_none_with_its_reason(body, problem):
    alone = parse_answer(f"{body}.", 1)
    assert alone.boxes == (None,)
    assert alone.problems[problem] >= 1
    assert alone.problems["missing"] == 1
    second = parse_answer(f"Frame 1: {BOX_TEXT}, Frame 2: {body}", 3)
    assert second.boxes == (BOX, None, None)
    assert second.problems[problem] >= 1
    assert second.problems["missing"] == 2


@pytest.mark.parametrize(
    ("text", "frames", "boxes", "problems"),
    [
        ("", 1, [None], {"missing": 1}),
        ("There is no such object.", 2, [None, None], {"missing": 2}),
        (BOX_TEXT, 1, [BOX], {}),
        (f"It is at {BOX_TEXT}, I think.", 1, [BOX], {}),
        (f"Frame 1: {BOX_TEXT}.", 1, [BOX], {}),
        (f"{BOX_TEXT}, [0,0,9,9].", 1, [BOX], {"repeated": 1}),
        (f"[1,2,3], {BOX_TEXT}.", 1, [BOX], {"malformed": 1}),
        (f"{BOX_TEXT}, {BOX_TEXT}.", 2, [None, None], {"unlabelled": 2, "missing": 2}),
        (f"Frame 2: {BOX_TEXT}.", 1, [None], {"unknown_frame": 1, "missing": 1}),
        (f"Frame 0: {BOX_TEXT}.", 2, [None, None], {"unknown_frame": 1, "missing": 2}),
        (f"Frame 3: {BOX_TEXT}.", 2, [None, None], {"unknown_frame": 1, "missing": 2}),
        (f"Frame 2: {BOX_TEXT}, Frame 2: [0,0,9,9].", 2, [None, BOX], {"repeated": 1, "missing": 1}),
        (f"Frame 1: [9], Frame 1: {BOX_TEXT}.", 2, [BOX, None], {"malformed": 1, "missing": 1}),
        (f"Frame 1: Frame 2: {BOX_TEXT}.", 2, [None, BOX], {"missing": 1}),
        (f"Frame 1: , {BOX_TEXT}.", 2, [None, None], {"unlabelled": 1, "missing": 2}),
        (f"frame 1: {BOX_TEXT}.", 2, [None, None], {"unlabelled": 1, "missing": 2}),
        (f"Frame {FULL_WIDTH_2}: {BOX_TEXT}.", 2, [None, None], {"unlabelled": 1, "missing": 2}),
        (f"Frame 1 {BOX_TEXT}.", 2, [None, None], {"unlabelled": 1, "missing": 2}),
        (f"Frame  1 :{BOX_TEXT}", 2, [BOX, None], {"missing": 1}),
        ("Frame 1: [ 10 , 20,30,\n40 ]", 2, [BOX, None], {"missing": 1}),
        (f"Frame 1: [[{BOX_TEXT[1:]}", 2, [None, None], {"unclosed": 1, "unlabelled": 1, "missing": 2}),
        (f"Frame 00001: {BOX_TEXT}", 2, [BOX, None], {"missing": 1}),
    ],
)
def test_hostile_answers(text, frames, boxes, problems):
    answer = parse_answer(text, frames)
    assert list(answer.boxes) == boxes
    assert dict(answer.problems) == problems


@pytest.mark.parametrize("label", ["Frame 2 ", "Frame2: ", "Frame 9999999: ", f"Frame {FULL_WIDTH_2}: ", "Frame 2\n"])
def test_one_frame_does_not_take_a_box_with_a_strange_label(label):
    answer = parse_answer(f"{label}{BOX_TEXT}.", 1)
    assert answer.boxes == (None,)
    assert answer.problems == {"unlabelled": 1, "missing": 1}


grammar_pieces = st.lists(
    st.sampled_from(
        [
            "Frame",
            " ",
            "1",
            "2",
            "33",
            ":",
            "[",
            "]",
            ",",
            ".",
            "-",
            "10",
            "100",
            "101",
            "\n",
            FULL_WIDTH_2,
            "<image>",
            BOX_TEXT,
        ]
    )
    | st.text(max_size=3),
    max_size=40,
).map("".join)


@given(text=st.text() | grammar_pieces, frames=st.integers(1, 5))
@example(text="Frame " + "9" * 5000 + ": [1,2,3,4]", frames=1)
@example(text="Frame " + "9" * 5000 + ": [1,2,3,4]", frames=2)
@example(text="[" + "9" * 5000 + ",1,2,3]", frames=1)
def test_any_text_gives_one_entry_a_frame_and_never_raises(text, frames):
    answer = parse_answer(text, frames)
    assert len(answer.boxes) == len(answer.groups) == frames
    for box, group in zip(answer.boxes, answer.groups, strict=True):
        assert (box is None) == (group is None)
        if box is not None:
            assert all(round(value * LEVELS, 6).is_integer() for value in box)
    assert answer.problems["missing"] == answer.boxes.count(None)
    assert all(count > 0 for count in answer.problems.values())


@given(text=grammar_pieces, frames=st.integers(1, 3))
def test_every_box_stands_in_the_text_behind_its_label(text, frames):
    squeezed = "".join(text.split())
    for number, box in enumerate(parse_answer(text, frames).boxes, 1):
        if box is not None:
            spelled = format_box(box)
            labels = [f"Frame{number}:{spelled}"] + ([spelled] if frames == 1 else [])
            assert any(label in squeezed for label in labels)


LONG = {
    "open": "[" * 200_000,
    "labels": "Frame 1: " * 50_000,
    "numbers": "[1," * 100_000,
    "digits": "1" * 400_000,
    "blanks": "Frame" + " " * 400_000,
    "blank box": "[" + " " * 400_000,
    "blank label": "Frame 1" + " " * 400_000 + "x",
    "blank number": "[1" + " " * 400_000 + "x]",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_long_nonsense_takes_linear_time(text):
    """Quadratic reading of these would take minutes and end at the time limit of every test."""
    assert parse_answer(text, 8).boxes == (None,) * 8
