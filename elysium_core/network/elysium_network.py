"""The assembled network: vision encoder, token adapter, projector, language model.

Shapes: B frames, S input side, N patch tokens, K kept tokens, D the LLM's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig

from elysium_core.network.adapters import build_adapter
from elysium_core.network.llama import Llama, LlamaSize
from elysium_core.network.model_config import ElysiumConfig
from elysium_core.network.vision_encoder import VisionEncoder


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
        vision: Sizes of the vision encoder.
        llm: Sizes of the language model.
    """

    def __init__(self, config: ElysiumConfig, vision: CLIPVisionConfig, llm: LlamaSize) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = VisionEncoder(vision, config.feature_layer)
        self.adapter = build_adapter(config.adapter)
        self.llm_proj = build_projector(config.projector, self.adapter.out_features, llm.width)
        self.llm = Llama(llm)

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """Encode frames as visual tokens, the input of the LLM.

        Args:
            pixels: (B, 3, S, S), normalised.

        Returns:
            (B, K, D), in the weights' dtype.
        """
        return self.llm_proj(self.adapter.adapt(self.visual_encoder(pixels)))

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
