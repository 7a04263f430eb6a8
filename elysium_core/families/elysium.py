"""The model of the Elysium paper: vision encoder, T-Selector, projector and LLaMA; boxes are ``[x1,y1,x2,y2]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.calibration import ScoreCalibration
from elysium_core.engine.decoder import StreamDecoder
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.errors import BackendError
from elysium_core.families.base import Anchor, CropSizes, Family, FamilySettings, Seen, Steps
from elysium_core.families.llama_reference import build_reference, generate_after
from elysium_core.families.name_evidence import name_evidence
from elysium_core.geometry import Box
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.prompt.box_text import (
    LEVELS,
    ParsedAnswer,
    format_beginning,
    format_box,
    format_track,
    parse_answer,
    quantize,
)
from elysium_core.prompt.layout import PromptLayout
from elysium_core.prompt.questions import PUBLISHED, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.prompt.vocabulary import Vocabulary
from elysium_core.vision.torch_vision import VisionBackend

_vocabulary = cache(Vocabulary)

_NUMBER = re.compile(r"[0-9]+")
_BOX = re.compile(r"\[[^\[\]]*\]")


class ElysiumGrammar:
    """The box format of Elysium (:mod:`elysium_core.prompt.box_text`): integers 0..100, so steps are always 100."""

    levels = LEVELS

    def quantize(self, box: Box, steps: Steps) -> tuple[int, ...]:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return quantize(box)

    def write(self, box: Box, steps: Steps) -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return format_box(box)

    def answer(self, boxes: Sequence[Box], steps: Steps, words: str = "") -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`; an answer does not repeat the words."""
        return format_track(boxes)

    def other_forms(self, box: Box, steps: Steps, words: str = "") -> list[str]:
        """See :class:`elysium_core.families.base.BoxGrammar`; there are none."""
        return []

    def beginning(self, boxes: Sequence[Box], steps: Steps) -> str:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return format_beginning(boxes)

    def numbers(self, text: str) -> list[slice]:
        """See :class:`elysium_core.families.base.BoxGrammar`; the numbers of the frames are included."""
        return [slice(*match.span()) for match in _NUMBER.finditer(text)]

    def boxes(self, text: str) -> list[slice]:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return [slice(*match.span()) for match in _BOX.finditer(text)]

    def read(self, text: str, frame_count: int, steps: Steps) -> ParsedAnswer:
        """See :class:`elysium_core.families.base.BoxGrammar`."""
        return parse_answer(text, frame_count)


class ElysiumFamily:
    """A loaded Elysium model (protocol: :class:`elysium_core.families.base.Family`).

    Args:
        network: The network, in eval mode and on its device.
        tokenizer: The tokenizer of the checkpoint.
        vision: The vision backend, which encodes images.
        decoder: Runs the language model; by default the one for its device.

    Attributes:
        network: The network.
        vision: The vision backend.
    """

    def __init__(
        self,
        network: ElysiumNetwork,
        tokenizer: TextTokenizer,
        vision: VisionBackend,
        decoder: StreamDecoder | None = None,
    ) -> None:
        config = network.config
        self.network, self.tokenizer, self.vision = network, tokenizer, vision
        self.decoder: StreamDecoder = decoder or build_decoder(network.llm)
        self.grammar = ElysiumGrammar()
        self.settings = FamilySettings(
            config.clip_length,
            config.window,
            config.vocabulary,
            config.words,
            config.describe,
            config.find,
            config.find_scores,
            config.follow_scores,
            config.name_scores,
        )
        self._layout = PromptLayout(tokenizer, config.system_text)
        self._reference: Any = None
        self._rows: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """See :class:`elysium_core.families.base.Family`."""
        return self.network.llm.lm_head.weight.device

    @property
    def side_px(self) -> int:
        """See :class:`elysium_core.families.base.Family`."""
        return self.network.visual_encoder.side_px

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """See :class:`elysium_core.families.base.Family`."""
        return [Seen(rows, (LEVELS, LEVELS)) for rows in self.vision.encode(images)]

    @property
    def crop_sizes(self) -> CropSizes | None:
        """See :class:`elysium_core.families.base.Family`."""
        crop, follow = self.network.config.crop, self.network.config.follow
        return None if crop is None or follow != "crop" else CropSizes(crop.anchor_px, crop.live_px)

    def encode_anchors(self, crops: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> list[Anchor]:
        """See :class:`elysium_core.families.base.Family`."""
        anchors = self.vision.encode_anchors(crops, boxes)
        memories = [anchors[place : place + 1] for place in range(len(anchors))]
        return [
            Anchor(Seen(memory.tokens[0], (LEVELS, LEVELS)), box, memory)
            for memory, box in zip(memories, boxes, strict=True)
        ]

    def encode_crops(self, crops: Sequence[NDArray[np.uint8]], anchors: Sequence[Anchor]) -> list[Seen]:
        """See :class:`elysium_core.families.base.Family`."""
        rows = self.vision.encode_crops(crops, AnchorTokens.stack([anchor.memory for anchor in anchors]))
        return [Seen(row, (LEVELS, LEVELS)) for row in rows]

    @torch.inference_mode()
    def opening(self, seen: Sequence[Seen]) -> Tensor:
        """See :class:`elysium_core.families.base.Family`; a single frame has no label."""
        parts: list[Tensor] = []
        for text, frame in zip(self._layout.frame_texts(len(seen)), seen, strict=True):
            parts += [self.embed(text), frame.rows]
        return torch.cat(parts)

    @torch.inference_mode()
    def appended(self, seen: Seen, number: int) -> Tensor:
        """See :class:`elysium_core.families.base.Family`."""
        return torch.cat([self.embed(self._layout.frame_text(number)), seen.rows])

    @torch.inference_mode()
    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """See :class:`elysium_core.families.base.Family`."""
        return self.network.llm.embed(torch.tensor(list(token_ids), device=self.device))

    @torch.inference_mode()
    def find_scores(self, seen: Seen, words: str) -> ScoreCalibration:
        """See :class:`elysium_core.families.base.Family`; the evidence for a name is in the visual tokens."""
        by_name = self.settings.name_scores
        if by_name is None or (number := self._number_of(words, by_name.names)) is None:
            return self.settings.find_scores
        return by_name.given(float(name_evidence(seen.rows, self._name_rows(by_name.names))[number]))

    def _number_of(self, words: str, names: int) -> int | None:
        """Number of the name in an expression, of the first so many of the vocabulary."""
        vocabulary = self.settings.vocabulary[:names]
        name = _vocabulary(vocabulary, self.settings.words).translate(words).name
        return vocabulary.index(name) if name else None

    def _name_rows(self, names: int) -> Tensor:
        """Embeddings (V, W) of the last token of each of the first so many names."""
        if self._rows is None or len(self._rows) != names:
            last = [self.tokenizer.encode_answer(f"the {name}")[-1] for name in self.settings.vocabulary[:names]]
            self._rows = self.embed(last)
        return self._rows

    def question(self, task: str, words: str = "", box: str = "") -> str:
        """See :class:`elysium_core.families.base.Family`."""
        return fill(PUBLISHED[task], expression=words, box=box)

    def conversation(
        self, question: str, history: Sequence[tuple[str, str]] = (), *, with_frames: bool = True
    ) -> list[int]:
        """See :class:`elysium_core.families.base.Family`."""
        return self._layout.conversation(question, history, with_frames=with_frames)

    @torch.inference_mode()
    def generate(self, images: Sequence[NDArray[np.uint8]], question: str, max_new_tokens: int) -> list[int]:
        """See :class:`elysium_core.families.base.Family`; the visual tokens are this family's own."""
        llm = self.network.llm
        if llm.quantization != "none":
            raise BackendError(f"transformers cannot run {llm.quantization} weights of this model", code="REFERENCE")
        prompt = torch.cat([self.opening(self.encode(images)), self.embed(self.conversation(question))])
        if self._reference is None:
            self._reference = build_reference(llm)
        return generate_after(self._reference, prompt, self.tokenizer.eos_id, max_new_tokens)

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        """See :class:`elysium_core.families.base.Family`."""
        return self._layout.box_digits(token_ids)


def as_elysium(family: Family) -> ElysiumFamily:
    """Return the family as :class:`ElysiumFamily`, for code that needs its network.

    Raises:
        BackendError: The model is of another family.
    """
    if not isinstance(family, ElysiumFamily):
        raise BackendError(f"this works with Elysium models only, not with {type(family).__name__}")
    return family
