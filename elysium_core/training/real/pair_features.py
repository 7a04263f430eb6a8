"""Pairs of stills as the vision encoder's features.

Shapes: B pairs, A and L the sides of anchor and live crops [px], C channels of the encoder's crop features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from elysium_core.data.photos.pair_batches import PairBatch, PairBatches
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.image_transform import ImageTransform
from elysium_core.training.real.feature_pool import Features, half


@dataclass(slots=True)
class PairFeatures(Features):
    """What one step sees of pairs.

    Attributes:
        anchor: (B, C, A / 8, A / 8) float16, the encoder's features of anchor crops.
        live: (B, C, L / 8, L / 8) float16, of live crops.
        anchor_box: (B, 4) float32, the given box in the anchor crop, 0..1.
        live_box: (B, 4) float32, the true box in the live crop; zeros where the object is absent.
        is_present: (B,) bool.
        anchor_pixels: (B, A, A, 3) uint8 RGB; only of held-out pairs, to be drawn.
        live_pixels: (B, L, L, 3) uint8 RGB, likewise.
    """

    anchor: Tensor
    live: Tensor
    anchor_box: Tensor
    live_box: Tensor
    is_present: Tensor
    anchor_pixels: Tensor | None = None
    live_pixels: Tensor | None = None


class EncodedPairs:
    """Draws pairs and encodes them; on the CPU, in any process.

    Args:
        generator: Draws them.
        encoder: With its pretrained weights.
    """

    def __init__(self, generator: PairGenerator, encoder: EfficientNetEncoder) -> None:
        self._generator, self._encoder = generator, encoder
        self._transform = ImageTransform(encoder.side_px, encoder.normalization)

    def features(self, seed: int, number: int, count: int, *, keep_pixels: bool = False) -> PairFeatures:
        """See :class:`elysium_core.training.real.feature_pool.FeatureBatches`."""
        return self.encode(PairBatches(self._generator, count, seed, number + 1)[number], keep_pixels=keep_pixels)

    @torch.inference_mode()
    def encode(self, batch: PairBatch, *, keep_pixels: bool = False) -> PairFeatures:
        """Encode a batch."""
        anchor, live = (
            half(self._encoder.crop_features(self._transform.normalize(pixels)))
            for pixels in (batch.anchor, batch.live)
        )
        found = PairFeatures(anchor, live, batch.anchor_box, batch.live_box, batch.is_present)
        return replace(found, anchor_pixels=batch.anchor, live_pixels=batch.live) if keep_pixels else found
