"""The assembled network: vision encoder, token adapter, projector, language model; and a selector for crops.

Shapes: B frames or crops, S input side, N patch tokens, K kept tokens, D the LLM's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from elysium_core.network.adapters import build_adapter
from elysium_core.network.detector_encoder import DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig
from elysium_core.network.encoders import VisionConfig, build_vision_encoder
from elysium_core.network.image_encoder import CropEncoder
from elysium_core.network.llama import Llama, LlamaSize
from elysium_core.network.model_config import ElysiumConfig
from elysium_core.network.target_selector import AnchorTokens, TargetSelector


def build_projector(kind: str, in_features: int, out_features: int) -> nn.Sequential:
    """Build the MLP that maps visual tokens to the LLM's width.

    Raises:
        ValueError: ``kind`` is not ``mlp2x_gelu``.
    """
    if kind != "mlp2x_gelu":
        raise ValueError(f"projector {kind!r} is not supported, only 'mlp2x_gelu'")
    return nn.Sequential(nn.Linear(in_features, out_features), nn.GELU(), nn.Linear(out_features, out_features))


class ElysiumNetwork(nn.Module):
    """All modules of a model; attribute names are the prefixes of the published state dict.

    Args:
        config: Settings of the model.
        vision: Settings of the vision encoder.
        llm: Sizes of the language model.

    Attributes:
        target_selector: Selector for crops; None for a model without ``crop_config``.

    Raises:
        ValueError: The parts do not fit together.
    """

    def __init__(self, config: ElysiumConfig, vision: VisionConfig, llm: LlamaSize) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = build_vision_encoder(vision, config.feature_layer)
        self.adapter = build_adapter(config.adapter)
        self.llm_proj = build_projector(config.projector, self.adapter.out_features, llm.width)
        self.llm = Llama(llm)
        self.target_selector = self._build_target_selector()

    def _build_target_selector(self) -> TargetSelector | None:
        crop = self.config.crop
        if crop is None:
            return None
        if not isinstance(self.visual_encoder, CropEncoder):
            raise ValueError(
                "crop_config needs a vision encoder with features of crops: "
                f"{EfficientNetConfig.model_type} or {DetectorEncoderConfig.model_type}"
            )
        if crop.num_features != self.adapter.out_features:
            raise ValueError(
                f"crop_config: num_features = {crop.num_features}, but the projector takes tokens of width "
                f"{self.adapter.out_features}, that of the adapter"
            )
        return TargetSelector(crop, self.visual_encoder.crop_width)

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Encode frames as visual tokens, the input of the LLM.

        Args:
            pixels: (B, 3, S, S), normalised.

        Returns:
            (B, K, D), in the weights' dtype.
        """
        return self.llm_proj(self.adapter.adapt(self.visual_encoder(pixels)))

    def encode_anchors(self, pixels: Tensor, boxes: Tensor) -> AnchorTokens:
        """Encode anchor crops: what the LLM reads of them, and what live crops are compared with.

        Args:
            pixels: (B, 3, anchor_px, anchor_px), normalised.
            boxes: (B, 4) float32, the object in each crop: x1, y1, x2, y2 in 0..1.

        Returns:
            B anchors; their ``tokens`` (B, K1, D) are input of the LLM.

        Raises:
            ValueError: The model has no ``crop_config``.
        """
        encoder, selector = self.crop_parts()
        anchors = selector.anchor(encoder.crop_features(pixels), boxes)
        return replace(anchors, tokens=self.llm_proj(anchors.tokens))

    def encode_crops(self, pixels: Tensor, anchors: AnchorTokens) -> Tensor:
        """Encode live crops as visual tokens, the input of the LLM.

        Args:
            pixels: (B, 3, live_px, live_px), normalised.
            anchors: B anchors of :meth:`encode_anchors`, one for each crop.

        Returns:
            (B, K2, D), in the weights' dtype.

        Raises:
            ValueError: The model has no ``crop_config``.
        """
        encoder, selector = self.crop_parts()
        return self.llm_proj(selector.live(encoder.crop_features(pixels), anchors).tokens)

    def crop_parts(self) -> tuple[CropEncoder, TargetSelector]:
        """The vision encoder and the selector that crops run through.

        Raises:
            ValueError: The model has no ``crop_config``.
        """
        if self.target_selector is None or not isinstance(self.visual_encoder, CropEncoder):
            raise ValueError("this model has no crop_config: it follows in whole frames only")
        return self.visual_encoder, self.target_selector

    def interleave(self, pieces: Sequence[Tensor], visual_tokens: Sequence[Tensor]) -> Tensor:
        """Join prompt pieces and frames: piece, frame, piece, frame, ..., piece.

        Args:
            pieces: F + 1 tensors of token ids, each (length,).
            visual_tokens: F tensors (K, D).

        Returns:
            Embeddings (T, D).
        """
        if len(pieces) != len(visual_tokens) + 1:
            frames = len(visual_tokens)
            raise ValueError(f"{frames} frames need {frames + 1} prompt pieces, not {len(pieces)}")
        parts = [self.llm.embed(pieces[0])]
        for piece, frame in zip(pieces[1:], visual_tokens, strict=True):
            parts += [frame, self.llm.embed(piece)]
        return torch.cat(parts)
