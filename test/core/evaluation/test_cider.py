"""CIDEr-D as the report prints it, against the formula written out word by word."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from elysium_core.evaluation import description_benchmark

LENGTH_PENALTY_SIGMA = 6
SETS = [
    [("a dog running in the snow", "a running dog played in the snow field"), ("a red car", "the red car on a road")],
    [("a b c d e", "a b c d e"), ("a b", "c d e f"), ("", "x y z"), ("e d c b a", "a b c d e"), ("a a a a", "a a b a")],
    [("the person in red",) * 2, ("a kangaroo dancing", "a dancing kangaroo"), ("a cup", "the cup the man holds")],
]


def ngrams(words, n):
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def slow_cider_d(pairs):
    """Clipped cosine of tf-idf vectors of 1- to 4-grams, times a penalty on the length, times ten."""
    documents = Counter(
        gram for _, reference in pairs for gram in {g for n in range(1, 5) for g in ngrams(reference.split(), n)}
    )
    each = []
    for answer, reference in pairs:
        total = 0.0
        for n in range(1, 5):
            weights = []
            for text in (answer, reference):
                counts = ngrams(text.split(), n)
                weights.append(
                    {g: c * (math.log(len(pairs)) - math.log(max(1, documents[g]))) for g, c in counts.items()}
                )
            mine, true = weights
            norms = math.sqrt(sum(w * w for w in mine.values())) * math.sqrt(sum(w * w for w in true.values()))
            product = sum(min(w, true.get(g, 0.0)) * true.get(g, 0.0) for g, w in mine.items())
            # The length is counted in bigrams.
            difference = max(len(answer.split()) - 1, 0) - max(len(reference.split()) - 1, 0)
            penalty = math.exp(-(difference**2) / (2 * LENGTH_PENALTY_SIGMA**2))
            total += (product / norms if norms else product) * penalty
        each.append(10 * total / 4)
    return each


@pytest.mark.parametrize("pairs", SETS)
def test_cider_equals_its_formula(pairs, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="METEOR and CIDEr are part of the extra [eval]")
    monkeypatch.setattr(description_benchmark.shutil, "which", lambda name: "java")

    class Blanks:
        """Splits at blanks: CIDEr itself needs no Java."""

        def tokenize(self, texts):
            return {
                key: [" ".join(entry["caption"].rstrip(".").split()) for entry in entries]
                for key, entries in texts.items()
            }

    class NoMeteor:
        def compute_score(self, references, answers):
            return 0.0, [0.0] * len(answers)

    monkeypatch.setattr("pycocoevalcap.tokenizer.ptbtokenizer.PTBTokenizer", Blanks)
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", NoMeteor)
    scores = description_benchmark.CaptionScorer().score([a for a, _ in pairs], [r for _, r in pairs])
    expected = slow_cider_d(pairs)
    assert scores.cider_each == pytest.approx(expected, abs=1e-9)
    assert scores.cider == pytest.approx(sum(expected) / len(expected), abs=1e-9)


def test_the_formula_gives_the_worked_values():
    pairs = [
        ("a dog running in the snow", "a running dog played in the snow field"),
        ("the person in red", "the person in red"),
        ("a kangaroo dancing", "a dancing kangaroo"),
    ]
    assert slow_cider_d(pairs) == pytest.approx([3.15962, 10, 2.5], abs=1e-5)
