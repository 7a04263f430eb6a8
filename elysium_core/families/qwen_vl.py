"""Qwen3-VL and Qwen2.5-VL: images of any size, boxes as JSON, targets followed by words. Experimental (docs/models.md).

A prompt is Qwen's chat: the images first, then the question. Boxes of Qwen3-VL count thousandths of the image; those of
Qwen2.5-VL count pixels of the image as the model sees it, that is, after resizing.

Shapes: N visual tokens of an image, D width of the language model, W width of a row, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.calibration import ScoreCalibration
from elysium_core.engine.decoder import StreamDecoder
from elysium_core.errors import BackendError, ImageError
from elysium_core.families.base import Anchor, CropSizes, FamilySettings, Seen
from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.families.llama_reference import until
from elysium_core.families.transformers_decoder import TransformersDecoder
from elysium_core.families.wide_rows import WideRows
from elysium_core.geometry import Box
from elysium_core.prompt.questions import CAPTION, REC, REG, RSOT, SOT, VIDEO_REG, fill
from elysium_core.prompt.tokenizer import TextTokenizer

QUESTIONS = MappingProxyType(
    {
        REC: "Locate {expression}, output its bbox coordinates in JSON format.",
        RSOT: "Locate {expression} in the last image, output its bbox coordinates in JSON format.",
        SOT: (
            "The first image shows an object at {box}. "
            "Locate this object in the last image, output its bbox coordinates in JSON format."
        ),
        REG: "Describe the object at {box} in a few words that tell it from others. Answer with these words only.",
        VIDEO_REG: "The first image shows an object at {box}. Describe it in one sentence.",
        CAPTION: "Describe what can be seen.",
    }
)
"""The question of each task."""

_PER_MILLE = 1000
# Of several objects that the words fit, each is an entry of the answer. More take too long while one is followed.
_MOST_BOXES = 4
# The largest coordinate of four digits; images of more than a thousand pixels have coordinates of four digits.
_MOST_PIXELS = 9999
# transformers refuses images that are narrower.
_NARROWEST = 200


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the generations of Qwen-VL.

    Attributes:
        levels: Largest coordinate in box text.
        relative: Whether boxes count thousandths; else pixels of the resized image.
        system_text: System text of every conversation; empty = none.
    """

    levels: int
    relative: bool
    system_text: str = ""


DIALECTS = MappingProxyType(
    {
        "qwen3_vl": Dialect(_PER_MILLE, relative=True),
        "qwen2_5_vl": Dialect(_MOST_PIXELS, relative=False, system_text="You are a helpful assistant."),
    }
)
"""The dialect of each ``model_type``."""


class ImageRows:
    """Encodes images with the vision encoder of a Qwen-VL model.

    Args:
        model: The model of transformers (``Qwen3VLModel`` or ``Qwen2_5_VLModel``).
        processor: Its image processor in the PIL form. It limits the number of pixels.
        rows: Layout of the decoder's rows.
        relative: Whether boxes count thousandths; else pixels of the resized image.
    """

    def __init__(self, model: Any, processor: Any, rows: WideRows, *, relative: bool) -> None:
        self._model, self._processor, self._rows, self._relative = model, processor, rows, relative

    @property
    def side_px(self) -> int:
        """Side of the largest square image that is not resized [px]."""
        token_px = int(self._processor.patch_size * self._processor.merge_size)
        return int(self._processor.size["longest_edge"] ** 0.5) // token_px * token_px

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Encode RGB uint8 images (H, W, 3) of any sizes.

        Raises:
            ImageError: A side is more than 200 times as long as the other (``IMG_SHAPE``).
        """
        for image in images:
            height, width = image.shape[:2]
            if max(height, width) > _NARROWEST * min(height, width):
                raise ImageError(f"an image of {width}x{height} px is too narrow for this model; cut it")
        pixels, grids = self.pixels(images)
        seen = self._model.get_image_features(pixels, grids, return_dict=True)
        deep = getattr(seen, "deepstack_features", None) or ()
        found = []
        for number, (embeddings, (_, height, width)) in enumerate(zip(seen.pooler_output, grids.tolist(), strict=True)):
            merge, patch = self._processor.merge_size, self._processor.patch_size
            features = [layer[number] for layer in deep]
            rows = self._rows.image(embeddings, features, (height // merge, width // merge))
            steps = (_PER_MILLE, _PER_MILLE) if self._relative else (width * patch, height * patch)
            found.append(Seen(rows, steps))
        return found

    def token_counts(self, grids: Tensor) -> list[int]:
        """Visual tokens of images with these numbers of patches (images, 3)."""
        return [int(count) for count in grids.prod(-1) // self._processor.merge_size**2]

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
        """Patches of images, and the number of patches (images, 3) of each in time, height and width."""
        done = self._processor(images=list(images), return_tensors="pt", input_data_format="channels_last")
        weight = next(self._model.parameters())
        return done["pixel_values"].to(weight.device, weight.dtype), done["image_grid_thw"]


class QwenFamily:
    """A loaded Qwen-VL model (protocol: :class:`elysium_core.families.base.Family`).

    Args:
        model: ``Qwen3VLForConditionalGeneration`` or ``Qwen2_5_VLForConditionalGeneration`` of transformers, in eval
            mode and on its device.
        tokenizer: Its tokenizer, without BOS.
        processor: Its image processor in the PIL form.
        dialect: What is particular to its generation.

    Attributes:
        model: As given.
        images: Encodes images.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, processor: Any, dialect: Dialect) -> None:
        deep = len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))
        rows = WideRows(model.config.text_config.hidden_size, deep)
        self.model, self.tokenizer = model, tokenizer
        self.images = ImageRows(model.model, processor, rows, relative=dialect.relative)
        self.decoder: StreamDecoder = TransformersDecoder(model.model.language_model, model.lm_head, rows, deep)
        self.grammar = JsonBoxGrammar(dialect.levels)
        # Asked about several images, it may take the box for one in another of them.
        self.settings = FamilySettings(window="anchor", describe="frame", by_words=True, most_boxes=_MOST_BOXES)
        start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
        self._image_start = tokenizer.special_id("<|vision_start|>")
        self._image_end = tokenizer.special_id("<|vision_end|>")
        text = tokenizer.encode_answer
        turn = [end, *text("\n"), start]
        self._to_user = [start, *text("user\n")]
        if dialect.system_text:
            self._to_user = [start, *text(f"system\n{dialect.system_text}"), *turn, *text("user\n")]
        self._to_model, self._to_next = [*turn, *text("assistant\n")], [*turn, *text("user\n")]

    @property
    def device(self) -> torch.device:
        """See :class:`elysium_core.families.base.Family`."""
        weight: Tensor = self.model.lm_head.weight
        return weight.device

    @property
    def side_px(self) -> int:
        """See :class:`elysium_core.families.base.Family`."""
        return self.images.side_px

    @property
    def crop_sizes(self) -> CropSizes | None:
        """See :class:`elysium_core.families.base.Family`."""
        return None

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """See :class:`elysium_core.families.base.Family`."""
        return self.images.encode(images)

    def encode_anchors(self, crops: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> list[Anchor]:
        """Refuse: this model does not follow in crops."""
        raise BackendError("Qwen-VL models follow by words, not in crops")

    def encode_crops(self, crops: Sequence[NDArray[np.uint8]], anchors: Sequence[Anchor]) -> list[Seen]:
        """Refuse: this model does not follow in crops."""
        raise BackendError("Qwen-VL models follow by words, not in crops")

    @torch.inference_mode()
    def opening(self, seen: Sequence[Seen]) -> Tensor:
        """See :class:`elysium_core.families.base.Family`; a frame has no label."""
        return torch.cat([self.appended(frame, number) for number, frame in enumerate(seen, 1)])

    @torch.inference_mode()
    def appended(self, seen: Seen, number: int) -> Tensor:
        """See :class:`elysium_core.families.base.Family`."""
        before = [*(self._to_user if number == 1 else (self._image_end,)), self._image_start]
        return torch.cat([self.embed(before), seen.rows])

    @torch.inference_mode()
    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """See :class:`elysium_core.families.base.Family`."""
        return self.decoder.embed(torch.tensor(list(token_ids), device=self.device))

    def question(self, task: str, words: str = "", box: str = "") -> str:
        """See :class:`elysium_core.families.base.Family`."""
        return fill(QUESTIONS[task], expression=words, box=box)

    def conversation(
        self, question: str, history: Sequence[tuple[str, str]] = (), *, with_frames: bool = True
    ) -> list[int]:
        """See :class:`elysium_core.families.base.Family`."""
        text = self.tokenizer.encode_answer
        ids = [self._image_end] if with_frames else list(self._to_user)
        for asked, answer in history:
            ids += [*text(asked), *self._to_model, *text(answer), *self._to_next]
        return [*ids, *text(question), *self._to_model]

    def find_scores(self, seen: Seen, words: str) -> ScoreCalibration:
        """See :class:`elysium_core.families.base.Family`."""
        return self.settings.find_scores

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        """See :class:`elysium_core.families.base.Family`; digits of labels are left out."""
        return self.grammar.digit_tokens(self.tokenizer.pieces(token_ids))

    @torch.inference_mode()
    def generate(self, images: Sequence[NDArray[np.uint8]], question: str, max_new_tokens: int) -> list[int]:
        """See :class:`elysium_core.families.base.Family`; transformers gets pixels and ids, nothing of this module."""
        pixels, grid = self.images.pixels(images)
        placeholder, eos = self.model.config.image_token_id, self.tokenizer.eos_id
        prompt = torch.tensor([self.ids_for_generate(question, self.images.token_counts(grid))], device=self.device)
        self.model.model.rope_deltas = None  # of an earlier call
        written = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels,
            image_grid_thw=grid.to(self.device),
            mm_token_type_ids=(prompt == placeholder).int(),
            max_new_tokens=max_new_tokens,
            # Published checkpoints recommend sampling and penalties; here the model's own choice is wanted.
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=eos,
            pad_token_id=eos,
        )
        return until(written[0, prompt.shape[1] :].tolist(), eos)

    def ids_for_generate(self, question: str, token_counts: Sequence[int]) -> list[int]:
        """The whole prompt as transformers' own ``generate`` takes it, with one placeholder for each visual token.

        Args:
            question: The question.
            token_counts: Visual tokens of each image.
        """
        ids: list[int] = []
        for number, count in enumerate(token_counts, 1):
            before = self._to_user if number == 1 else (self._image_end,)
            ids += [*before, self._image_start, *[self.model.config.image_token_id] * count]
        return [*ids, *self.conversation(question, with_frames=bool(token_counts))]
