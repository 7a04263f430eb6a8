"""A language model that knows the truth: it reads it off the pictures, and everything else of it is real.

Prompts, tokenizer, engine, masks, memory and parser are the package's own; only the network is replaced. So a test
decides what is seen, how surely, and when something goes wrong, and the tracker's decisions can be checked exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from elysium_core.families.base import Seen
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.network.kv_cache import KVCache, KVMemory, KVShape
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime

OBJECTS = ("mug", "apple", "teddy bear")
WIDTH = 2 + 5 * len(OBJECTS)
TEXT, PICTURE = 1, 2
FRAME_BOX = re.compile(r"(?:Frame \d+: )?(?:\[[^\]]*\]|none),?")


@dataclass(frozen=True)
class Sight:
    """Where an object is in a frame, in hundredths, and how sure the model is of it [%]."""

    box: tuple[int, int, int, int]
    certainty: int = 95

    @property
    def truth(self) -> Box:
        return Box(*(value / 100 for value in self.box))


def picture(sights: Sequence[Sight | None], index: int = 0, stamp_ns: int | None = None) -> Frame:
    """A frame that shows (holds) these objects; stamps are 10 Hz."""
    image = np.zeros((len(OBJECTS), 2, 3), np.uint8)
    for row, sight in zip(image, sights, strict=False):
        if sight is not None:
            row.reshape(-1)[:5] = [*sight.box, sight.certainty]
    return Frame(image, stamp_ns=100_000_000 * (index + 1) if stamp_ns is None else stamp_ns, index=index)


class OracleVision:
    """One visual token a frame: what the picture holds."""

    name = "oracle"

    def encode(self, images):
        rows = torch.zeros(len(images), 1, WIDTH)
        rows[:, 0, 0] = PICTURE
        for row, image in zip(rows, images, strict=True):
            row[0, 2:] = torch.from_numpy(image.reshape(len(OBJECTS), 6)[:, :5].astype(np.float32)).reshape(-1)
        return rows


class OracleLlama:
    """Answers with the truth; keeps what it was fed in a real cache, and looks only where the mask allows."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.lm_head = SimpleNamespace(weight=torch.zeros(1))
        self._colons = {i for i in range(tokenizer.vocab_size) if tokenizer.token_text(i).endswith(":")}
        # Texts come again for every token of a draft, and most of the time of a test would be spent on them.
        self._decode, self._encode_answer = cache(tokenizer.decode), cache(tokenizer.encode_answer)

    def embed(self, token_ids):
        rows = torch.zeros(len(token_ids), WIDTH)
        rows[:, 0], rows[:, 1] = TEXT, token_ids
        return rows

    def new_cache(self, capacity):
        return KVCache(KVMemory(KVShape(1, 1, WIDTH, torch.device("cpu"), torch.float32), capacity))

    def release(self):
        """Every cache has memory of its own; there is nothing to free."""

    def __call__(self, embeddings, positions, mask, cache):
        places = positions[..., None].expand(-1, -1, WIDTH).float()
        rows, places = cache.update(0, embeddings[:, None], places[:, None])
        cache.advance(embeddings.shape[1])
        self._last = rows[0, 0].numpy(), places[0, 0, :, 0].numpy(), mask[0, 0].numpy()
        # The "hidden state" of a token is its place in this pass; who asks for its logits makes it think.
        return torch.arange(embeddings.shape[1])[None], []

    def logits(self, hidden):
        vocabulary = self.tokenizer.vocab_size
        rows, places, mask = self._last
        thoughts = [self._next(rows[seen], places[seen]) for seen in mask[hidden.numpy()]]
        tokens, certainties = (torch.tensor(column)[:, None] for column in zip(*thoughts, strict=True))
        others = ((1 - certainties).clamp(min=1e-9) / (vocabulary - 1)).log()
        return others.repeat(1, vocabulary).scatter(1, tokens, certainties.log())

    def _next(self, rows, places):
        order = places.argsort()
        assert np.array_equal(places[order], np.arange(len(rows))), "positions are not those of one text"
        rows = rows[order]
        shown = np.flatnonzero(rows[:, 0] == PICTURE)
        pictures = rows[shown, 2:].astype(int).reshape(len(shown), len(OBJECTS), 5)
        last = int(shown[-1]) if len(shown) else -1
        return self._answer(pictures, tuple(rows[last + 1 :, 1].astype(int).tolist()))

    def _answer(self, pictures, ids):
        colons = (i for i, token in enumerate(ids) if token in self._colons)
        colon = next(i for i in colons if self._decode(ids[: i + 1]).endswith("ASSISTANT:"))
        question, sofar = self._decode(ids[: colon + 1]), list(ids[colon + 1 :])
        which = which_object(question, pictures[0])
        seen = [[0] * 5] * len(pictures) if which is None else pictures[:, which].tolist()
        text = self._decode(ids[colon + 1 :])
        whole = [*self._encode_answer(answer_text(seen, text)), self.tokenizer.eos_id]
        if whole[: len(sofar)] != sofar or len(sofar) >= len(whole):
            return self.tokenizer.eos_id, 1.0
        frame = max(1, text.count("Frame")) - 1
        return whole[len(sofar)], seen[min(frame, len(seen) - 1)][4] / 100 or 0.9


def which_object(question: str, first) -> int | None:
    """The object that is named, or the one that is near the box that is given."""
    named = [i for i, name in enumerate(OBJECTS) if name in question]
    if named:
        return named[0]
    given = np.array([float(value) for value in re.search(r"\[(.*?)\]", question)[1].split(",")])
    distance = np.abs(first[:, :4] - given).sum(1) + 1000 * (first[:, 4] == 0)
    return int(distance.argmin()) if distance.min() < 60 else None


def answer_text(seen: Sequence[Sequence[int]], sofar: str) -> str:
    """Boxes that have been written (or were given) stay; the rest is the truth."""
    boxes = ["[" + ",".join(map(str, values[:4])) + "]" if values[4] else "none" for values in seen]
    if len(boxes) == 1:
        return boxes[0] + "."
    frames = [f"Frame {number}: {box}" for number, box in enumerate(boxes, 1)]
    written = FRAME_BOX.findall(sofar)
    frames[: len(written)] = [frame.rstrip(",") for frame in written]
    return ", ".join(frames) + "."


@pytest.fixture
def oracle(tiny_folder):
    """Makes a runtime whose model knows the truth: ``oracle(window="anchor")``."""

    def make(window: str = "anchor", vocabulary: Sequence[str] = ()) -> Runtime:
        tokenizer = TextTokenizer.from_folder(tiny_folder / "llm")
        config = ElysiumConfig("llm", "vision", AdapterConfig(), window=window, vocabulary=tuple(vocabulary))
        network = SimpleNamespace(config=config, llm=OracleLlama(tokenizer))
        return Runtime(ElysiumFamily(network, tokenizer, OracleVision(), network.llm))

    return make


@pytest.fixture
def show():
    """``picture`` and ``Sight``, for tests: this folder is no package."""
    return SimpleNamespace(picture=picture, Sight=Sight)


@pytest.fixture(params=["anchor", "growing"])
def window_kind(request) -> str:
    """Both kinds of stream window."""
    return request.param


class OracleQwen(OracleLlama):
    """The same for Qwen-VL's prompts: boxes as JSON, in thousandths.

    Attributes:
        form: The form of its answers; ``{entry}`` stands for the JSON object.
        descriptions: What it calls objects that it is to describe, by their number.
    """

    def __init__(self, family) -> None:
        super().__init__(family.tokenizer)
        self._start = family.tokenizer.special_id("<|im_start|>")
        self._turn = len(family.tokenizer.encode_answer("assistant\n")) + 1
        self._grammar = family.grammar
        self.form, self.descriptions = "```json\n[\n\t{entry}\n]\n```", dict(enumerate(OBJECTS))
        self.asked: list[str] = []

    def _answer(self, pictures, ids):
        begin = ids.index(self._start)
        question, sofar = self._decode(ids[1:begin]), list(ids[begin + self._turn :])
        if not sofar:
            self.asked.append(question)
        certainty = 0.9
        if question.startswith("Describe"):
            box = [int(value) // 10 for value in re.search(r"\[(.*?)\]", question)[1].split(",")]
            which = int(np.abs(pictures[-1][:, :4] - box).sum(1).argmin())
            text = self.descriptions[which]
        else:
            named = [number for number, name in enumerate(OBJECTS) if name in question]
            seen = pictures[-1][named[0]] if named else np.zeros(5, int)
            certainty = seen[4] / 100 or 0.9
            words = question.removeprefix("Locate ").split(",")[0]
            box = "[" + ", ".join(str(10 * value) for value in seen[:4]) + "]"
            entry = f'{{"bbox_2d": {box}, "label": "{words}"}}' if seen[4] else ""
            text = self.form.replace("{entry}", entry)
        whole = [*self._encode_answer(text), self.tokenizer.eos_id]
        if whole[: len(sofar)] != sofar or len(sofar) >= len(whole):
            return self.tokenizer.eos_id, 1.0
        return whole[len(sofar)], float(certainty)


@pytest.fixture
def qwen_oracle(qwen_models):
    """A runtime of the Qwen3-VL family whose model knows the truth; ``runtime.family.decoder`` is an OracleQwen."""
    family = copy(qwen_models["qwen3_vl"].runtime.family)
    family.decoder = OracleQwen(family)
    family.images = SimpleNamespace(
        encode=lambda images: [Seen(rows, (1000, 1000)) for rows in OracleVision().encode(images)]
    )
    return Runtime(family)
