"""The protocol of a model family: image encoding, questions and box text of a multimodal language model.

Trackers, tasks, the command line and the ROS node use a model only through this protocol. To support another
multimodal language model, write one module beside :mod:`elysium_core.families.elysium`.

Shapes: K visual tokens (rows) of an image, W the width of a row, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.calibration import UNCALIBRATED, NameCalibration, ScoreCalibration
from elysium_core.engine.decoder import StreamDecoder
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import ParsedAnswer
from elysium_core.prompt.tokenizer import TextTokenizer

Steps = tuple[int, int]
"""Numbers of steps of box text over the width and the height of an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An encoded image.

    Attributes:
        rows: (K, W) visual tokens: the embeddings of the image for the language model. Only the family's decoder
            looks into them, so they may hold more than embeddings; W is the width of the rows of its ``embed``.
        steps: Steps of box text in this image.
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
    """The format of boxes in questions and answers."""

    @property
    def levels(self) -> int:
        """Largest value of a coordinate."""
        ...

    def quantize(self, box: Box, steps: Steps) -> tuple[int, ...]:
        """Convert a box to its four numbers in text."""
        ...

    def write(self, box: Box, steps: Steps) -> str:
        """Write a box for a question."""
        ...

    def answer(self, boxes: Sequence[Box], steps: Steps, words: str = "") -> str:
        """Write an answer with one box for each frame, about the object that ``words`` name."""
        ...

    def other_forms(self, box: Box, steps: Steps, words: str = "") -> list[str]:
        """Other ways in which the model may write an answer about one frame, without and with the box, for drafts."""
        ...

    def beginning(self, boxes: Sequence[Box], steps: Steps) -> str:
        """Write the beginning of an answer about more frames, with the boxes of the first ones."""
        ...

    def numbers(self, text: str) -> list[slice]:
        """Places of the numbers in an answer; the last four are its last box."""
        ...

    def boxes(self, text: str) -> list[slice]:
        """Places of the boxes in an answer."""
        ...

    def read(self, text: str, frame_count: int, steps: Steps) -> ParsedAnswer:
        """Read the boxes of an answer. Never raises: other text gives no box, and the reason is counted."""
        ...


@dataclass(frozen=True, slots=True)
class FamilySettings:
    """Settings that a checkpoint recommends.

    Attributes:
        clip_length: Frames of a clip in training.
        window: Recommended window in stream mode, ``anchor`` or ``growing``.
        vocabulary: Object names of a model with a closed vocabulary; empty for free language.
        words: Other words that such a model was trained on; empty = not known.
        describe: What it can describe an object from: ``clip``, ``frame`` or ``none``.
        find: What it finds expressions in: the whole ``frame``, or also its ``parts``.
        find_scores: Calibration of the scores of boxes found by words.
        follow_scores: Calibration of the scores of boxes followed in crops.
        name_scores: Calibration of found boxes by the picture's evidence for the name, too; None = not known.
        by_words: Whether it follows every target by words, asked about each frame alone. A target that is given by a
            box is described once, and then followed by the description.
        most_boxes: Largest number of boxes in an answer about one object that an answer is long enough for. Some
            models list every object that the words fit.
    """

    clip_length: int = 8
    window: str = "growing"
    vocabulary: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    describe: str = "clip"
    find: str = "frame"
    find_scores: ScoreCalibration = UNCALIBRATED
    follow_scores: ScoreCalibration = UNCALIBRATED
    name_scores: NameCalibration | None = None
    by_words: bool = False
    most_boxes: int = 1


class Family(Protocol):
    """One loaded model."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's tokenizer."""
        ...

    @property
    def decoder(self) -> StreamDecoder:
        """The decoder that runs the language model."""
        ...

    @property
    def grammar(self) -> BoxGrammar:
        """The box format of the model."""
        ...

    @property
    def settings(self) -> FamilySettings:
        """Settings that the checkpoint recommends."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        ...

    @property
    def side_px(self) -> int:
        """Side of a square image that is encoded without resizing [px]."""
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
        """Embeddings (T, W) of a prompt up to its last frame."""
        ...

    def appended(self, seen: Seen, number: int) -> Tensor:
        """Embeddings (T, W) of frame ``number`` (from 1) of a clip with several frames, and of the text before it."""
        ...

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """Embeddings (T, W) of T token ids."""
        ...

    def question(self, task: str, words: str = "", box: str = "") -> str:
        """The question of a task (:mod:`elysium_core.prompt.questions`) in the words this model was trained with."""
        ...

    def conversation(
        self, question: str, history: Sequence[tuple[str, str]] = (), *, with_frames: bool = True
    ) -> list[int]:
        """Token ids from the first question to the beginning of the answer to ``question``."""
        ...

    def generate(self, images: Sequence[NDArray[np.uint8]], question: str, max_new_tokens: int) -> list[int]:
        """The answer of transformers' own ``generate`` with the same weights: the judge of ``elysium check``.

        Args:
            images: RGB uint8 images (H, W, 3), at least one.
            question: The question.
            max_new_tokens: Longest answer [tokens].

        Returns:
            Token ids, without the end token.

        Raises:
            BackendError: There is no such judge for this model (``REFERENCE``).
        """
        ...

    def find_scores(self, seen: Seen, words: str) -> ScoreCalibration:
        """Calibration of the score of a box that is found by words in an image."""
        ...

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        """Indices of the digit tokens of each bracket of an answer, in the order of the brackets."""
        ...
