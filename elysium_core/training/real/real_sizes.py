"""Sizes of the model of a recipe of ``kind: real``, and the names it is to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from elysium_core.network.crop_config import CROP_STRIDE_PX, CropConfig
from elysium_core.network.detector_encoder import DetectorEncoderConfig
from elysium_core.network.efficientnet import FRAME_STRIDE_PX, EfficientNetConfig
from elysium_core.network.model_config import FIND_MODES
from elysium_core.training.recipe_file import (
    Count,
    NotNegative,
    Number,
    Problem,
    RecipePart,
    Text,
    Whole,
    checked,
    one_of,
)
from elysium_core.training.run_tokenizer import SMALLEST_VOCABULARY

_CROP = CropConfig()
_ENCODERS = (EfficientNetConfig.model_type, DetectorEncoderConfig.model_type)
_SIDE_STEP_PX = 16
# Heads of the first three layers are taught where to look.
_LEAST_LAYERS, _LEAST_HEADS = 3, 4
_CutLength = Annotated[Whole, Field(ge=_SIDE_STEP_PX, le=512, multiple_of=_SIDE_STEP_PX)]
_Width = Annotated[Whole, Field(ge=1, le=4096)]


class RealModelConfig(RecipePart):
    """Sizes of the model.

    Attributes:
        encoder: Kind of the vision encoder.
        encoder_weights: File of its pretrained weights (:mod:`elysium_core.training.pretrained_encoder`).
        frame_px: Side of a whole frame [px].
        frame_tokens: Tokens kept of a whole frame.
        contrast: See :class:`elysium_core.network.efficientnet.EfficientNetConfig`.
        live_px: Side of a live crop [px]; this and the next six: :class:`elysium_core.network.crop_config.CropConfig`.
        anchor_px: Side of an anchor crop [px].
        live_tokens: Tokens kept of a live crop.
        anchor_tokens: Tokens kept of an anchor crop.
        neck: Channels that features are reduced to.
        match: Width of the vectors that are compared.
        trunk: Channels behind the comparison.
        token_width: Width of a visual token.
        llm_width: Width of the language model.
        llm_layers: Its layers.
        llm_heads: Its attention heads.
        llm_mlp: Width of its MLP.
        vocab_size: Most entries of the tokenizer.
        words: Names of the things that the model shall find; all of them are annotated in the photos. None = it
            follows given boxes only.
        evidence_names: For the first so many names, visual tokens are evidence of whether they are shown. Only names
            with many examples are told surely enough by tokens. 0 = for none.
        find: Whether it shall look for names in the whole ``frame``, or also in its ``parts``; it learns the same.
        system_text: Opening of every prompt, with its closing blank.
    """

    encoder: Annotated[Text, one_of(_ENCODERS)] = EfficientNetConfig.model_type
    encoder_weights: Text = ""
    frame_px: Annotated[Whole, Field(ge=32, le=2048, multiple_of=32)] = 256
    frame_tokens: Count = 85
    contrast: Annotated[Number, Field(ge=0, le=127)] = 40.0
    live_px: _CutLength = _CROP.live_px
    anchor_px: _CutLength = _CROP.anchor_px
    live_tokens: Count = _CROP.live_tokens
    anchor_tokens: Count = _CROP.anchor_tokens
    neck: _Width = _CROP.neck
    match: _Width = _CROP.match
    trunk: _Width = _CROP.trunk
    token_width: _Width = _CROP.num_features
    llm_width: Count = 160
    llm_layers: Count = 4
    llm_heads: Count = 5
    llm_mlp: Count = 400
    vocab_size: Annotated[Whole, Field(ge=SMALLEST_VOCABULARY)] = 1024
    words: tuple[Text, ...] = ()
    evidence_names: NotNegative = 0
    find: Annotated[Text, one_of(FIND_MODES)] = FIND_MODES[0]
    system_text: Text = ""

    @property
    def crop(self) -> CropConfig:
        """Settings of the selector for crops."""
        return CropConfig(
            self.live_px,
            self.anchor_px,
            self.live_tokens,
            self.anchor_tokens,
            self.neck,
            self.match,
            self.trunk,
            self.token_width,
        )

    @property
    def frame_cells(self) -> int:
        """Cells of a whole frame."""
        return (self.frame_px // FRAME_STRIDE_PX) ** 2

    @model_validator(mode="after")
    def _sizes_fit(self) -> RealModelConfig:
        return checked(self, _model_problems(self))


def _model_problems(model: RealModelConfig) -> Iterator[Problem]:
    for key, side in (("live", model.live_px), ("anchor", model.anchor_px)):
        cells = (side // CROP_STRIDE_PX) ** 2
        if getattr(model, f"{key}_tokens") > cells:
            yield (f"{key}_tokens",), f"must be at most {cells}, the cells of such a crop"
    if model.frame_tokens > model.frame_cells:
        yield ("frame_tokens",), f"must be at most {model.frame_cells}, the cells of a frame"
    if model.words:
        yield from _word_problems(model)
    if model.llm_width % (2 * model.llm_heads):
        yield ("llm_width",), f"is not a multiple of twice model.llm_heads = {model.llm_heads}"


def _word_problems(model: RealModelConfig) -> Iterator[Problem]:
    if model.evidence_names > len(model.words):
        yield ("evidence_names",), f"must be at most {len(model.words)}, the number of words"
    last = Counter(word.split()[-1] if word.split() else word for word in model.words)
    if twice := [word for word, count in last.items() if count > 1]:
        yield ("words",), f"has several names that end in {twice[0]!r}; the last word must tell them apart"
    if model.llm_layers < _LEAST_LAYERS:
        yield ("llm_layers",), f"must be at least {_LEAST_LAYERS} in a model that knows words"
    if model.llm_heads < _LEAST_HEADS:
        yield ("llm_heads",), f"must be at least {_LEAST_HEADS} in a model that knows words"
    most = model.live_px // CROP_STRIDE_PX * FRAME_STRIDE_PX
    if model.frame_px > most:
        yield ("frame_px",), f"must be at most {most} in a model that knows words: as many cells as a live crop"
