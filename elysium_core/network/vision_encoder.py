"""The CLIP vision transformer, up to the layer whose patch tokens are used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elysium_core.network.image_encoder import ImageEncoder
from elysium_core.network.image_transform import ChannelNormalization

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig


class VisionEncoder(ImageEncoder):
    """Encodes images as patch tokens (interface: :class:`elysium_core.network.image_encoder.ImageEncoder`).

    The published model uses ``hidden_states[-2]`` without the class token. The layers after it
    are never run, but kept, so that a saved checkpoint is complete.

    Args:
        config: Size of the transformer.
        feature_layer: Index of the hidden state to return; -1 is the last.
    """

    def __init__(self, config: CLIPVisionConfig, feature_layer: int = -2) -> None:
        # It imports a large part of transformers, which models on other encoders do without.
        from transformers import CLIPVisionModel

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

    @property
    def normalization(self) -> ChannelNormalization:
        """CLIP's mean and standard deviation."""
        return ChannelNormalization()

    def settings(self) -> dict[str, Any]:
        """See :class:`elysium_core.network.image_encoder.ImageEncoder`."""
        config = self.vision_model.config
        return {
            "used_layers": self.used_layers,
            "heads": config.num_attention_heads,
            "activation": config.hidden_act,
            "epsilon": config.layer_norm_eps,
        }

    def layers(self) -> Iterable[nn.Module]:
        """See :class:`elysium_core.network.image_encoder.ImageEncoder`."""
        used: Iterable[nn.Module] = self.vision_model.encoder.layers[: self.used_layers]
        return used

    def unused_parts(self) -> Iterable[nn.Module]:
        """The layers behind the one whose tokens are used."""
        return (*self.vision_model.encoder.layers[self.used_layers :], self.vision_model.post_layernorm)

    def make_buffers(self, device: torch.device) -> None:
        """Number the positions; transformers does it when it builds a model with memory."""
        embeddings = self.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
