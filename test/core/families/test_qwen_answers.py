"""Answers of Qwen-VL models through the engine are those of transformers' own ``generate`` on pixels, token for token.

``generate`` gets ids and pixels and knows nothing of the engine's places, masks, drafts or memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest

from elysium_core.engine.draft_tree import DraftTree
from elysium_core.engine.engine import Engine, EngineCounters, Request
from elysium_core.families.base import Seen
from elysium_core.families.qwen_vl import QwenFamily
from elysium_core.prompt.questions import REC, RSOT

KINDS = ("qwen3_vl", "qwen2_5_vl")
WINDOWS = ("single", "anchor", "growing")
DRAFTS = ("truth", "half", "stale", "nonsense", "none")
WORDS = ("the red mug", "player 10 [left]")
HEIGHT, WIDTH = 130, 180
LONGEST = 12  # tokens; random models never end an answer by themselves


@dataclass
class Truth:
    """A clip, and what ``generate`` answers about it: by window and frame, one answer for each of ``WORDS``.

    The engine sees each image as it was encoded alone; ``generate`` encodes its images itself.
    """

    family: QwenFamily
    images: list[np.ndarray]
    seen: list[Seen]
    answers: dict[tuple[str, int], list[list[int]]] = field(default_factory=dict)


def shown(window: str, frame: int) -> slice:
    """The frames that the prompt about a frame holds, beside the anchor."""
    return slice(1, frame + 1) if window == "growing" else slice(frame, frame + 1)


def ask_generate(family: QwenFamily, seed: int, windows: Sequence[str], frames: int) -> Truth:
    random = np.random.default_rng(seed)
    clip = list(random.integers(0, 256, (frames + 1, HEIGHT, WIDTH, 3), dtype=np.uint8))
    truth = Truth(family, clip, [family.encode([image])[0] for image in clip])
    for window in windows:
        for frame in range(1, frames + 1):
            images = truth.images[shown(window, frame)]
            if window != "single":
                images = [truth.images[0], *images]
            truth.answers[window, frame] = [
                family.generate(images, family.question(REC if window == "single" else RSOT, words), LONGEST)
                for words in WORDS
            ]
    return truth


def guess(kind: str, answer: list[int], random: Random, vocabulary: int) -> list[int]:
    """A draft: the answer, its beginning, the answer with wrong tokens in three places, or nothing of it."""
    if kind in ("truth", "half"):
        return answer if kind == "truth" else answer[: len(answer) // 2]
    wrong = range(len(answer)) if kind == "nonsense" else random.sample(range(len(answer)), 3)
    return [random.randrange(vocabulary) if place in wrong else token for place, token in enumerate(answer)]


def follow(truth: Truth, window: str, drafts: str, counters: EngineCounters) -> Iterator[bool]:
    """Ask about frame after frame as the trackers do; whether each answer is the right one."""
    family, random = truth.family, Random(7)
    eos, vocabulary = family.tokenizer.eos_id, family.tokenizer.vocab_size
    engine = Engine(family.decoder, eos, capacity=16, counters=counters)
    if window != "single":
        engine.answer([], family.appended(truth.seen[0], 1))
    for (_, frame), answers in ((key, value) for key, value in truth.answers.items() if key[0] == window):
        if window == "single":
            engine = Engine(family.decoder, eos, capacity=16, counters=counters)
            prefix = family.opening([truth.seen[frame]])
        else:
            prefix = family.appended(truth.seen[frame], frame + 1)
        requests = []
        for words, answer in zip(WORDS, answers, strict=True):
            draft = [*guess(drafts, answer, random, vocabulary), eos]
            drafter = None if drafts == "none" else lambda written, said=(), d=draft: DraftTree.chain(d[len(written) :])
            ids = family.conversation(family.question(REC if window == "single" else RSOT, words))
            requests.append(Request(family.embed(ids), drafter, LONGEST))
        kept = engine.prefix_length
        found = engine.answer(requests, prefix)
        if window == "anchor":
            engine.crop(kept)
        yield from (generation.token_ids == answer for generation, answer in zip(found, answers, strict=True))


@pytest.fixture(scope="module")
def truths(qwen_models) -> dict[str, Truth]:
    return {kind: ask_generate(model.runtime.family, 3, WINDOWS, 2) for kind, model in qwen_models.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_generate(truths, kind):
    """A hundred and twenty comparisons for the two kinds; the controls below are another twelve."""
    truth, equal, passes = truths[kind], Counter(), Counter()
    for window in WINDOWS:
        for drafts in DRAFTS:
            counters = EngineCounters()
            found = list(follow(truth, window, drafts, counters))
            assert len(found) == 4
            equal[window, drafts], passes[drafts] = sum(found), passes[drafts] + counters.passes
    assert set(equal.values()) == {4}, equal
    assert len({tuple(answer) for answers in truth.answers.values() for answer in answers}) > 6, "too easy a test"
    # Six prompts for two targets at once, and two first frames that are fed alone.
    assert passes["truth"] == 6 + 2 < passes["half"] < passes["nonsense"] <= passes["none"]
    assert passes["truth"] < passes["stale"] < passes["nonsense"]


@pytest.mark.parametrize("kind", KINDS)
def test_places_matter(truths, kind, monkeypatch):
    """With the places of plain text, answers are wrong: the comparison can tell."""
    decoder = truths[kind].family.decoder
    split = decoder._rows.split

    def flat(rows):
        parts = split(rows)
        return type(parts)(parts.embeddings, parts.deep, 0 * parts.offsets, 0 * parts.shifts)

    monkeypatch.setattr(
        decoder, "_rows", type("Flat", (), {"split": staticmethod(flat), "words": decoder._rows.words})()
    )
    assert sum(follow(truths[kind], "anchor", "truth", EngineCounters())) == 0


def test_deepstack_matters(truths, monkeypatch):
    monkeypatch.setattr(truths["qwen3_vl"].family.decoder, "_deep_layers", 0)
    assert sum(follow(truths["qwen3_vl"], "anchor", "truth", EngineCounters())) == 0


def test_the_judge_takes_no_penalties_from_the_checkpoint(truths, monkeypatch):
    """Published checkpoints recommend a repetition penalty and sampling."""
    truth = truths["qwen2_5_vl"]
    settings = truth.family.model.generation_config
    for name, value in {
        "repetition_penalty": 2.0,
        "do_sample": True,
        "temperature": 0.5,
        "eos_token_id": [1, 2],
    }.items():
        monkeypatch.setattr(settings, name, value)
    question = truth.family.question(REC, WORDS[0])
    assert truth.family.generate(truth.images[1:2], question, LONGEST) == truth.answers["single", 1][0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(1, 7))
def test_answers_are_those_of_generate_in_many_models(kind, seed, tmp_path, write_qwen_checkpoint):
    """Over a thousand comparisons; the last models see frames of 640x480."""
    from elysium_core.api import Elysium

    folder = write_qwen_checkpoint(tmp_path / "model", kind, seed)
    model = Elysium.from_pretrained(folder, device="cpu", max_pixels=640 * 480 if seed == 6 else 32 * 1024)
    truth = ask_generate(model.runtime.family, seed, WINDOWS, 4)
    found = [
        same for window in WINDOWS for drafts in DRAFTS for same in follow(truth, window, drafts, EngineCounters())
    ]
    assert len(found) == 120
    assert all(found)
