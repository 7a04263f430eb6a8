"""Boxes as JSON: what is written is read, and what is damaged or hostile gives no box and no exception."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.geometry import Box

GRAMMAR = JsonBoxGrammar(1000)
RELATIVE, PIXELS = (1000, 1000), (644, 476)
GOOD = '{"bbox_2d": [12, 345, 678, 900], "label": "mug"}'
BOX = Box(0.012, 0.345, 0.678, 0.9)
LABELS = ["the red mug", "player 10", 'a "quoted" [12, 3] {x} \\', "Ärmel 3", "```", "bbox_2d: [1, 2, 3, 4]", ""]


def edges(steps: int) -> st.SearchStrategy:
    return st.integers(0, steps - 1).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, steps)))


@settings(max_examples=30)
@given(edges(1000), edges(1000), st.sampled_from(LABELS) | st.text(max_size=12))
def test_what_is_written_is_read(x, y, words):
    box = Box(x[0] / 1000, y[0] / 1000, x[1] / 1000, y[1] / 1000)
    for text in (GRAMMAR.answer([box], RELATIVE, words), *GRAMMAR.other_forms(box, RELATIVE, words)):
        read = GRAMMAR.read(text, 1, RELATIVE)
        if "bbox_2d" not in text.replace(words, "") and not GRAMMAR.boxes(text):
            assert (read.boxes, dict(read.problems)) == ((None,), {"missing": 1})  # the forms of an absent object
            continue
        count = len(read.candidates)
        assert (read.boxes, read.groups, read.problems) == ((box,), (0,), {"repeated": count - 1} if count > 1 else {})
        numbers = [int(text[place]) for place in GRAMMAR.numbers(text)]
        assert tuple(numbers) == GRAMMAR.quantize(box, RELATIVE) * count
        assert [text[place] for place in GRAMMAR.boxes(text)] == [GRAMMAR.write(box, RELATIVE)] * count


@settings(max_examples=30)
@given(edges(644), edges(476))
def test_pixels_are_those_of_the_image_as_the_model_sees_it(x, y):
    box = Box(x[0] / 644, y[0] / 476, x[1] / 644, y[1] / 476)
    assert GRAMMAR.write(box, PIXELS) == f"[{x[0]}, {y[0]}, {x[1]}, {y[1]}]"
    assert GRAMMAR.read(GRAMMAR.answer([box], PIXELS), 1, PIXELS).boxes == (box,)


def fenced(text: str) -> str:
    return f"```json\n{text}\n```"


READ = [
    GOOD,
    f"[{GOOD}]",
    fenced(f"[\n\t{GOOD}\n]"),
    f"```\n{GOOD}```",
    f"Here it is:\n{fenced(GOOD)}\nAnything else?",
    f"```json\n[{GOOD}",  # cut off behind the box
    f"[{GOOD}, {{",
    '{"label": "mug", "bbox_2d": [12,345,678,900]}',
    '[{"label": "no box"}, ' + GOOD + "]",
    '[{"bbox_2d": [900, 345, 12, 900]}, ' + GOOD + "]",
]


@pytest.mark.parametrize("text", READ)
def test_every_form_is_read(text):
    read = GRAMMAR.read(text, 1, RELATIVE)
    assert read.boxes == (BOX,)
    place = GRAMMAR.boxes(text)[read.groups[0]]
    assert text[place].replace(" ", "") == "[12,345,678,900]"


SECOND = '{"bbox_2d": [1, 2, 3, 4]}'


@pytest.mark.parametrize(
    ("text", "groups", "problems"),
    [
        (f"[{GOOD}, {SECOND}]", [0, 1], {"repeated": 1}),
        (fenced(f"[\n\t{GOOD},\n\t{SECOND}\n]"), [0, 1], {"repeated": 1}),
        ('[{"bbox_2d": [900, 345, 12, 900]}, ' + f"{GOOD}, {SECOND}]", [1, 2], {"repeated": 1, "empty": 1}),
        (f'[{GOOD}, {SECOND}, {{"bbox_2d": [5, 6', [0, 1], {"repeated": 1, "unclosed": 1}),
        (f"[{GOOD}, {SECOND}, [7, 8, 9, 9]]", [0, 1], {"repeated": 1, "malformed": 1}),
    ],
)
def test_of_several_boxes_all_are_candidates_and_the_first_counts(text, groups, problems):
    read = GRAMMAR.read(text, 1, RELATIVE)
    assert (read.boxes, read.groups) == ((BOX,), (groups[0],))
    assert read.candidates == ((BOX, groups[0]), (Box(0.001, 0.002, 0.003, 0.004), groups[1]))
    assert dict(read.problems) == problems


def test_several_boxes_are_of_the_last_frame():
    read = GRAMMAR.read(f"[{GOOD}, {SECOND}]", 3, RELATIVE)
    assert (read.boxes, [group for _, group in read.candidates]) == ((None, None, BOX), [0, 1])


@pytest.mark.parametrize("text", ["[]", "", "```json\n[]\n```", " \n", "[ ]"])
def test_an_absent_object_is_no_fault(text):
    assert dict(GRAMMAR.read(text, 1, RELATIVE).problems) == {"missing": 1}


REFUSED = [
    ("It is not there.", "malformed"),
    ("The mug is at [12, 345, 678, 900].", "malformed"),
    ("[12, 345, 678, 900]", "malformed"),
    ("[[12, 345, 678, 900]]", "malformed"),
    (f"In [1] {fenced(GOOD)}", "malformed"),
    ('{"bbox_2d": [12, 345, 678]}', "malformed"),
    ('{"bbox_2d": [12, 345, 678, 900, 1]}', "malformed"),
    ('{"bbox_2d": [12.5, 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": [true, 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": ["12", 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": [1e1, 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": [NaN, 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": [12, 345, 678, 900], "bbox_2d": [1, 2, 3, 4]}', "malformed"),
    ('{"a": {"bbox_2d": [1, 2, 3, 4]}, "bbox_2d": [12, 345, 678, 900]}', "malformed"),
    ('{"bbox\\u005f2d": [12, 345, 678, 900]}', "malformed"),
    ('{"bbox_3d": [12, 345, 678, 900]}', "malformed"),
    ('{"bbox_2d": [12, 345, 678, 1001]}', "range"),
    ('{"bbox_2d": [-1, 345, 678, 900]}', "range"),
    (f'{{"bbox_2d": [1, 2, 3, {"9" * 5000}]}}', "malformed"),
    ('{"bbox_2d": [678, 345, 12, 900]}', "empty"),
    ('{"bbox_2d": [12, 345, 12, 900]}', "empty"),
    ('{"bbox_2d": [12, 345, 678, 9', "unclosed"),
    ('[{"bbox_2d": [12, 345, 678, 900], "label": "mu', "unclosed"),
    ("[" * 100_000, "malformed"),
    ('{"a":' * 100_000, "malformed"),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_anything_else_gives_no_box_and_a_reason(text, problem):
    read = GRAMMAR.read(text, 1, RELATIVE)
    assert (read.boxes, read.groups) == ((None,), (None,))
    assert read.problems[problem] == 1


PARTS = [
    *'[]{}",:`\\\n\t -.0129é',
    "bbox_2d",
    '"bbox_2d": [',
    "12, 345, 678, 900",
    "1001",
    "null",
    "```json\n",
    "label",
    GOOD,
    GOOD[:23],
    "Frame 2: ",
    "\ud800",
]


def hostile_answers(seed: int, count: int):
    """Damaged answers, and texts made of their parts."""
    random = Random(seed)
    for _ in range(count):
        text = random.choice(READ) if random.random() < 0.6 else "".join(random.choices(PARTS, k=random.randrange(20)))
        for _ in range(random.randrange(4)):
            place = random.randrange(len(text) + 1)
            text = text[:place] + random.choice(PARTS) + text[place + random.randrange(3) :]
        yield text


def check_hostile_answers(seed: int, count: int) -> int:
    """Read answers about one or several frames; the number of boxes in them."""
    found = 0
    for number, text in enumerate(hostile_answers(seed, count)):
        frames, steps = 1 + number % 3, (RELATIVE, PIXELS)[number % 2]
        read = GRAMMAR.read(text, frames, steps)
        assert len(read.boxes) == len(read.groups) == frames
        assert set(read.boxes[:-1]) <= {None}, f"a box for a frame that was not asked about: {text!r}"
        if (box := read.boxes[-1]) is not None:
            values = text[GRAMMAR.boxes(text)[read.groups[-1]]]
            assert [int(value) for value in values.strip("[]").split(",")] == list(GRAMMAR.quantize(box, steps)), text
            found += 1
        else:
            assert sum(read.problems.values())
        assert [box for box, _ in read.candidates][:1] == [read.boxes[-1]] * bool(read.candidates)
    return found


def test_hostile_answers_give_no_exception_and_no_box_of_another_frame():
    assert 100 < check_hostile_answers(1, 2000) < 1500


@pytest.mark.slow
def test_twenty_thousand_hostile_answers():
    assert check_hostile_answers(2, 20_000) > 1000


@given(st.text(max_size=60))
def test_any_text_can_be_read(text):
    assert GRAMMAR.read(text, 1, RELATIVE).boxes == (None,)
