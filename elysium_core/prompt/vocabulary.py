"""The words of a model with a closed vocabulary: its names, synonyms of them, and the words around them.

People say puppy, sofas or lorry; such a model was trained on one name for each thing. A synonym or plural becomes the
trained name before the question is written. A checkpoint lists its names, and may list the other words it was trained
on; then all further words are left out of the question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

_NEAREST = 4
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ARTICLES = ("a", "an", "the")
_IRREGULAR = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "sheep": "sheep",
    "mouse": "mice",
}


@dataclass(frozen=True, slots=True)
class KnownWords:
    """An expression in a model's own words.

    Attributes:
        text: The expression; empty if it contains no name that the model knows.
        ignored: Words of the expression that were left out; articles, "on" and the like are not listed.
        name: The name in it.
    """

    text: str
    ignored: tuple[str, ...] = ()
    name: str = ""


class Vocabulary:
    """The vocabulary of one model.

    Args:
        names: Its names, in lower case.
        words: Other words it was trained on; empty = all other words are kept as they are.
    """

    def __init__(self, names: Sequence[str], words: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self._kept = {*_ARTICLES, *words} if words else None
        self._spoken = dict(_spoken_forms(self.names))
        # The longest form first: "dining table" before "table".
        forms = sorted(self._spoken, key=len, reverse=True)
        self._pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, forms)) + r")\b", re.IGNORECASE)

    def translate(self, expression: str) -> KnownWords:
        """Write a cleaned expression in the model's own words.

        The thing that is meant is named before the first "on", "with", "near" and the like: "the man" of "the man with
        a dog", "the person" of "the person on the bicycle". Of two names there, as in "the dog sofa", the last one
        counts. What follows is kept if it is a place that the model was trained on, as "on the left".
        """
        if self._kept is None:
            return self._renamed(expression)
        head = _RELATION.split(expression)[0]
        of_head = list(self._pattern.finditer(head))
        match = of_head[-1] if of_head else self._pattern.search(expression)
        if match is None:
            return KnownWords("")
        name = self._spoken[match[0].casefold()]
        before, after = _WORD.findall(expression[: match.start()]), _WORD.findall(expression[match.end() :])
        text = [*self._before(before), name, *self._place(_WORD.findall(_TAIL.split(expression[match.end() :])[0]))]
        used = {*text, *_FUNCTION_WORDS}
        ignored = tuple(word for word in (*before, *after) if word not in used and word.casefold() not in used)
        return KnownWords(" ".join(text), ignored, name)

    def name_of(self, noun: str) -> str:
        """The known name that a noun alone stands for, as "lorry" for "truck"; empty if there is none."""
        match = self._pattern.fullmatch(noun.strip())
        return self._spoken[match[0].casefold()] if match else ""

    def _renamed(self, expression: str) -> KnownWords:
        """The expression with the trained name in place of a synonym or plural; all else as it was written."""
        match = self._pattern.search(expression)
        if match is None:
            return KnownWords("")
        name = self._spoken[match[0].casefold()]
        # A trained name stays as it was written, with its capital letters.
        written = match[0] if match[0].casefold() == name.casefold() else name
        return KnownWords(f"{expression[: match.start()]}{written}{expression[match.end() :]}", (), name)

    def _before(self, words: Sequence[str]) -> list[str]:
        """The article and the trained words of what precedes the name: "the", "left"."""
        article = next((word for word in words if word.casefold() in _ARTICLES), "")
        return [article] * bool(article) + [word for word in words if self._says_where(word)]

    def _place(self, words: Sequence[str]) -> list[str]:
        """The place in what follows the name: "on the left" of "with a hat on the left"; empty if there is none."""
        first = next((index for index, word in enumerate(words) if self._says_where(word)), None)
        if first is None:
            return []
        begin = first
        while begin > 0 and words[begin - 1].casefold() in _FUNCTION_WORDS:
            begin -= 1
        return [word for word in words[begin:first] if word.casefold() in self._known_words] + [
            word for word in words[first:] if self._says_where(word)
        ]

    @property
    def _known_words(self) -> set[str]:
        return self._kept or set()

    def _says_where(self, word: str) -> bool:
        return word.casefold() in self._known_words - _FUNCTION_WORDS

    def nearest(self, expression: str) -> tuple[str, ...]:
        """Known names that are spelt like a word of the expression, at most four; the first ones if there is none."""
        close = [
            self._spoken[form]
            for word in _WORD.findall(expression.casefold())
            for form in get_close_matches(word, self._spoken, n=2, cutoff=0.6)
        ]
        return tuple(dict.fromkeys(close))[:_NEAREST] or self.names[:_NEAREST]


_FUNCTION_WORDS = {*_ARTICLES, "on", "in", "at", "to", "from", "of"}
_TAIL = re.compile(
    r"\s(?:with|near|next to|beside|behind|under|above|below|between|by|and|wearing|holding|riding|that|who|which)\s",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\s(?:on|in|at|to|from|of)\s", re.IGNORECASE)
_RELATION = re.compile(f"{_TAIL.pattern}|{_PLACE.pattern}", re.IGNORECASE)
_LONGEST_NAME_WORDS = 4


def _without_tail(expression: str) -> str:
    """The part of an expression that names the thing itself: "the man" of "the man with a dog"."""
    return _TAIL.split(expression)[0]


def extended_names(names: Sequence[str], expressions: Iterable[str]) -> tuple[str, ...]:
    """The names of a vocabulary, and those of the expressions that it does not know: what a model is taught.

    A new name is the expression without its article and without what follows "on", "with" and the like: "black hound"
    of "the black hound on the left". Expressions of more than four such words are sentences, not names.
    """
    found = list(names)
    for expression in dict.fromkeys(" ".join(text.split()).casefold() for text in expressions):
        words = _PLACE.split(_without_tail(expression))[0].split()
        if words and words[0] in _ARTICLES:
            words = words[1:]
        name = " ".join(words)
        is_known = any(f" {name}".endswith(f" {known}") for known in found)
        if 0 < len(words) <= _LONGEST_NAME_WORDS and _WORD.search(name) and not is_known:
            found.append(name)
    return tuple(found)


def _spoken_forms(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every form in which a name may be said, in lower case, with the name; trained names come last and win."""
    for name, others in synonyms().items():
        if name in names:
            for other in others:
                yield from ((form, name) for form in (other, plural(other)))
    yield from ((plural(name.casefold()), name) for name in names)
    yield from ((name.casefold(), name) for name in names)


def plural(noun: str) -> str:
    """The usual plural of a noun."""
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        many = _IRREGULAR[last]
    elif re.search(r"(?:s|x|z|ch|sh)$", last):
        many = last + "es"
    elif re.search(r"[^aeiou]y$", last):
        many = last[:-1] + "ies"
    else:
        many = last + "s"
    return f"{head} {many}".strip()


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Other words for names of common things, by name."""
    table = json.loads(files("elysium_core.prompt").joinpath("synonyms.json").read_text(encoding="utf-8"))
    return {name: tuple(others) for name, others in table.items()}
