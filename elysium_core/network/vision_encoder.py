"""The CLIP vision transformer, up to the layer whose patch tokens are used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel


class VisionEncoder(nn.Module):
    """Encodes images as patch tokens.

    The published model uses ``hidden_states[-2]`` without the class token. The layers after it
    are never run, but kept, so that a saved checkpoint is complete.

    Args:
        config: Size of the transformer.
        feature_layer: Index of the hidden state to return; -1 is the last.
    """

    def __init__(self, config: CLIPVisionConfig, feature_layer: int = -2) -> None:
        super().__init__()
        layers = int(config.num_hidden_layers)
        if not -layers <= feature_layer <= -1:
            raise ValueError(f"feature_layer = {feature_layer} is not in -{layers}..-1")
        config._attn_implementation = "sdpa"  # noqa: SLF001  # the public way needs from_pretrained
        model = CLIPVisionModel(config)
        # transformers 4 has one more wrapper than version 5. The attribute's name gives the published
        # prefix of the state dict, ``visual_encoder.vision_model``.
        self.vision_model = getattr(model, "vision_model", model)
        self.used_layers = layers + feature_layer + 1
        self.side_px = int(config.image_size)
        self.grid = self.side_px // int(config.patch_size)
        self.width = int(config.hidden_size)

    @property
    def token_count(self) -> int:
        """Patch tokens a frame, N."""
        return self.grid * self.grid

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch of images.

        Args:
            pixels: (B, 3, S, S), normalised as CLIP does.

        Returns:
            (B, N, width) patch tokens in row-major order, in the weights' dtype.
        """
        vision = self.vision_model
        hidden = vision.pre_layrnorm(vision.embeddings(pixels.to(self.dtype)))
        for layer in vision.encoder.layers[: self.used_layers]:
            output = layer(hidden, attention_mask=None)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden[:, 1:]

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.vision_model.embeddings.patch_embedding.weight.dtype
