"""The vision encoders that a model can be built on, by the ``model_type`` of their ``config.json``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from transformers import CLIPVisionConfig

from elysium_core.network.detector_encoder import DetectorEncoder, DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.image_encoder import ImageEncoder
from elysium_core.network.vision_encoder import VisionEncoder

VisionConfig: TypeAlias = CLIPVisionConfig | EfficientNetConfig
"""Settings of a vision encoder; ``model_type`` names its kind."""


# The second argument is ElysiumConfig.feature_layer, which only a transformer has a use for.
VISION_ENCODERS: dict[str, Callable[[Any, int], ImageEncoder]] = {
    "clip_vision_model": VisionEncoder,
    EfficientNetConfig.model_type: lambda config, _: EfficientNetEncoder(config),
    DetectorEncoderConfig.model_type: lambda config, _: DetectorEncoder(config),
}


def build_vision_encoder(config: VisionConfig, feature_layer: int = -2) -> ImageEncoder:
    """Build the vision encoder that ``config.model_type`` names.

    Args:
        config: Its settings.
        feature_layer: See :class:`elysium_core.network.model_config.ElysiumConfig`.

    Raises:
        ValueError: The kind is unknown, or ``feature_layer`` is out of range.
    """
    if config.model_type not in VISION_ENCODERS:
        raise ValueError(f"vision encoder {config.model_type!r} is not one of {', '.join(VISION_ENCODERS)}")
    return VISION_ENCODERS[config.model_type](config, feature_layer)


def token_shape(config: VisionConfig) -> tuple[int, int]:
    """Number and width of the tokens that the encoder gives of an image: N, D."""
    if isinstance(config, DetectorEncoderConfig):
        return config.grid**2, DetectorEncoder.WIDTH
    if isinstance(config, EfficientNetConfig):
        return config.grid**2, EfficientNetEncoder.WIDTH
    return (int(config.image_size) // int(config.patch_size)) ** 2, int(config.hidden_size)
