from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.prompt.vocabulary import Vocabulary, extended_names, plural, synonyms

NAMES = ("person", "dog", "dining table", "sofa", "bus", "sheep", "car")
TRAINED = Vocabulary(NAMES, ("on", "at", "left", "right", "top", "bottom"))


@pytest.mark.parametrize(
    ("said", "text", "ignored"),
    [
        ("the dog on the left", "the dog on the left", ()),
        ("Dogs", "dog", ()),
        ("a puppy", "a dog", ()),
        ("the big red car at the top", "the car at the top", ("big", "red")),
        ("the man with a dog", "the person", ("with", "dog")),
        ("the person on the bus", "the person", ("bus",)),
        ("the person in dark clothes crossing the street", "the person", ("dark", "clothes", "crossing", "street")),
        ("the dog on the sofa on the left", "the dog on the left", ("sofa",)),
        ("the dog next to the left car", "the dog", ("next", "left", "car")),
        ("a picture of a dog", "a dog", ("picture",)),
        ("the left one of the dogs", "the left dog", ("one",)),
        ("the person and the dog on the left", "the person", ("and", "dog", "left")),
        ("two buses", "bus", ("two",)),
        ("the table", "the dining table", ()),
        ("the couch on the right", "the sofa on the right", ()),
        ("people", "person", ()),
        ("the left pedestrian", "the left person", ()),
    ],
)
def test_people_say_it_in_many_ways(said, text, ignored):
    known = TRAINED.translate(said)
    assert (known.text, known.ignored) == (text, ignored)


@pytest.mark.parametrize("said", ["a zeppelin", "doggedly", "carpet", ""])
def test_what_is_not_known_is_not_translated(said):
    assert TRAINED.translate(said).text == ""


def test_without_a_list_of_other_words_only_the_name_changes():
    vocabulary = Vocabulary(("mug", "apple"))
    assert vocabulary.translate("The blue MUG on the left").text == "The blue MUG on the left"
    assert vocabulary.translate("my shiny apples").text == "my shiny apple"


@pytest.mark.parametrize(("said", "first"), [("the dgo", "dog"), ("a persn", "person"), ("sofaa", "sofa")])
def test_the_nearest_names_are_said(said, first):
    assert TRAINED.nearest(said)[0] == first


def test_where_nothing_is_near_the_first_names_are_said():
    assert TRAINED.nearest("zzz") == NAMES[:4]


@pytest.mark.parametrize(
    ("one", "many"),
    [("dog", "dogs"), ("bus", "buses"), ("puppy", "puppies"), ("dining table", "dining tables"), ("man", "men")],
)
def test_plurals(one, many):
    assert plural(one) == many


def test_no_synonym_stands_for_two_things():
    owners: dict[str, set[str]] = {}
    for name, others in synonyms().items():
        for other in others:
            owners.setdefault(other, set()).add(name)
            assert other == other.casefold().strip()
            assert other not in synonyms()
    assert [other for other, names in owners.items() if len(names) > 1] == []


@given(st.text(max_size=60))
def test_any_text_is_translated_or_not(text):
    known = TRAINED.translate(text)
    assert known.text == "" or known.name in known.text


@pytest.mark.parametrize(
    ("expression", "taught"),
    [
        ("the black hound", ("black hound",)),
        ("The  Black Hound on the left", ("black hound",)),
        ("a red dog", ()),
        ("the dining table", ()),
        ("a wooden dining table", ()),
        ("a forklift with a box", ("forklift",)),
        ("the one we talked about yesterday", ()),
        ("the", ()),
        ("!?", ()),
    ],
)
def test_a_vocabulary_grows_by_what_is_taught(expression, taught):
    assert extended_names(NAMES, [expression, expression]) == (*NAMES, *taught)
