"""The protocol of a model family: how a model sees pictures, asks questions and writes boxes.

Engine, trackers, tasks, the command line and the ROS node know a model only through this protocol. To support another
multimodal language model, write one module beside :mod:`elysium_core.families.elysium`.

Shapes: K rows of a picture, W their width, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.engine.decoder import StreamDecoder
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import ParsedAnswer
from elysium_core.prompt.tokenizer import TextTokenizer

Steps = tuple[int, int]
"""Steps of box text over the width and over the height of a picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One picture as the model sees it.

    Attributes:
        rows: (K, W) what the decoder reads in place of the picture.
        steps: Steps of box text in this picture.
    """

    rows: Tensor
    steps: Steps = (100, 100)


@dataclass(frozen=True, slots=True)
class CropSizes:
    """Sizes at which a model that follows in crops sees them (:mod:`elysium_core.io.crop`).

    Attributes:
        anchor_px: Side of an anchor crop [px].
        live_px: Side of a live crop [px].
    """

    anchor_px: int = 64
    live_px: int = 128


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """An object as it was given: what a model that follows in crops compares live crops with.

    Attributes:
        seen: The anchor crop.
        box: The object in it.
        memory: What else the model keeps of it; nobody else reads it.
    """

    seen: Seen
    box: Box
    memory: Any = None


class BoxGrammar(Protocol):
    """How boxes stand in questions and answers."""

    @property
    def levels(self) -> int:
        """The largest number of a box."""
        ...

    def quantize(self, box: Box, steps: Steps) -> tuple[int, ...]:
        """The four numbers that stand for a box."""
        ...

    def write(self, box: Box, steps: Steps) -> str:
        """Write a box as it stands in a question."""
        ...

    def answer(self, boxes: Sequence[Box], steps: Steps) -> str:
        """Write the answer that gives one box a frame."""
        ...

    def beginning(self, boxes: Sequence[Box], steps: Steps) -> str:
        """Write the part of that answer that is settled once the boxes of the first frames are known."""
        ...

    def numbers(self, text: str) -> list[slice]:
        """Where the numbers of an answer stand; the last four are its last box."""
        ...

    def boxes(self, text: str) -> list[slice]:
        """Where the boxes of an answer stand."""
        ...

    def read(self, text: str, frame_count: int, steps: Steps) -> ParsedAnswer:
        """Read the boxes of an answer. Never raises: what is not exactly a box is no box, with a counted reason."""
        ...


@dataclass(frozen=True, slots=True)
class FamilySettings:
    """What a checkpoint says about its own use.

    Attributes:
        clip_length: Frames it was trained to see at once.
        window: Stream window it works best with, ``anchor`` or ``growing``.
        vocabulary: Names it knows; empty when it knows a language.
    """

    clip_length: int = 8
    window: str = "growing"
    vocabulary: tuple[str, ...] = ()


class Family(Protocol):
    """One loaded model."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of the model."""
        ...

    @property
    def decoder(self) -> StreamDecoder:
        """Runs the language model."""
        ...

    @property
    def grammar(self) -> BoxGrammar:
        """How the model writes boxes."""
        ...

    @property
    def settings(self) -> FamilySettings:
        """What the checkpoint says about its own use."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        ...

    @property
    def side_px(self) -> int:
        """Side of a square picture that is seen without resizing [px]."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Encode RGB uint8 images (H, W, 3) of any sizes."""
        ...

    @property
    def crop_sizes(self) -> CropSizes | None:
        """Sizes of crops of a model that follows in crops; None for one that follows in whole frames."""
        ...

    def encode_anchors(self, crops: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> list[Anchor]:
        """Encode anchor crops (anchor_px, anchor_px, 3) and the objects in them."""
        ...

    def encode_crops(self, crops: Sequence[NDArray[np.uint8]], anchors: Sequence[Anchor]) -> list[Seen]:
        """Encode live crops (live_px, live_px, 3), each for the object of one anchor."""
        ...

    def opening(self, seen: Sequence[Seen]) -> Tensor:
        """Rows (T, W) of a prompt up to its last frame."""
        ...

    def appended(self, seen: Seen, number: int) -> Tensor:
        """Rows (T, W) of frame ``number`` (from 1) of a clip that has, or will have, several."""
        ...

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """Rows (T, W) of token ids."""
        ...

    def question(self, task: str, words: str = "", box: str = "") -> str:
        """The question of a task (:mod:`elysium_core.prompt.questions`) as this model was trained to hear it."""
        ...

    def conversation(
        self, question: str, history: Sequence[tuple[str, str]] = (), *, with_frames: bool = True
    ) -> list[int]:
        """Token ids from the first question to where the answer to ``question`` begins."""
        ...

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        """Places of the digit tokens of each bracket of an answer, in the order of the brackets."""
        ...
