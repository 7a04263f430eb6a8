"""A language model that knows the truth: it reads it off the pictures, and everything else of it is real.

Prompts, tokenizer, engine, masks, memory and parser are the package's own; only the network is replaced. So a test
decides what is seen, how surely, and when something goes wrong, and the tracker's decisions can be checked exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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
        self._last = rows[0, 0], places[0, 0, :, 0], mask[0, 0]
        # The "hidden state" of a token is its place in this pass; who asks for its logits makes it think.
        return torch.arange(embeddings.shape[1])[None], []

    def logits(self, hidden):
        vocabulary = self.tokenizer.vocab_size
        logits = torch.empty(len(hidden), vocabulary)
        rows, places, mask = self._last
        for row, seen in zip(logits, mask[hidden], strict=True):
            token, certainty = self._next(rows[seen], places[seen])
            row[:] = math.log(max(1e-9, 1 - certainty) / (vocabulary - 1))
            row[int(token)] = math.log(certainty)
        return logits

    def _next(self, rows, places):
        order = places.argsort()
        assert places[order].tolist() == list(range(len(rows))), "positions are not those of one text"
        rows = rows[order]
        pictures = rows[rows[:, 0] == PICTURE][:, 2:]
        last = int((rows[:, 0] == PICTURE).nonzero()[-1]) if len(pictures) else -1
        ids = rows[last + 1 :, 1].int().tolist()
        return self._answer(pictures.reshape(len(pictures), len(OBJECTS), 5), ids)

    def _answer(self, pictures, ids):
        colons = (i for i, token in enumerate(ids) if self.tokenizer.token_text(token).endswith(":"))
        colon = next(i for i in colons if self.tokenizer.decode(ids[: i + 1]).endswith("ASSISTANT:"))
        question, sofar = self.tokenizer.decode(ids[: colon + 1]), ids[colon + 1 :]
        which = which_object(question, pictures[0])
        seen = [[0] * 5] * len(pictures) if which is None else pictures[:, which].int().tolist()
        text = self.tokenizer.decode(sofar)
        answer = answer_text(seen, text)
        whole = [*self.tokenizer.encode_answer(answer), self.tokenizer.eos_id]
        if whole[: len(sofar)] != sofar or len(sofar) >= len(whole):
            return self.tokenizer.eos_id, 1.0
        frame = max(1, text.count("Frame")) - 1
        return whole[len(sofar)], seen[min(frame, len(seen) - 1)][4] / 100 or 0.9


def which_object(question: str, first) -> int | None:
    """The object that is named, or the one that is near the box that is given."""
    named = [i for i, name in enumerate(OBJECTS) if name in question]
    if named:
        return named[0]
    given = torch.tensor([float(value) for value in re.search(r"\[(.*?)\]", question)[1].split(",")])
    distance = (first[:, :4] - given).abs().sum(1) + 1000 * (first[:, 4] == 0)
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
