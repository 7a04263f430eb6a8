"""Whole frames with named objects as features of the vision encoder's blocks that are never trained.

Shapes: B frames, S their side [px], G cells a side, C channels, M objects at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.data.photos.frame_views import FrameView, FrameViews
from elysium_core.errors import DataError
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.image_transform import ImageTransform
from elysium_core.training.real.feature_pool import Features, half
from elysium_core.training.seeds import batch_seed

MOST_OBJECTS = 24
# Frames of one pass of the encoder.
_ENCODED = 8
NOTHING = -2
"""Name of the rows behind a frame's last object."""


@dataclass(slots=True)
class FrameObjects(Features):
    """The objects of frames, the largest first.

    Attributes:
        names: (B, M) int64, numbers of the names; OTHER_NAME for an unknown one, NOTHING behind the last object.
        boxes: (B, M, 4) float32, 0..1.
        is_usable: (B, M) bool; the other objects are neither asked for nor absent.
    """

    names: Tensor
    boxes: Tensor
    is_usable: Tensor


@dataclass(slots=True)
class FrameFeatures(Features):
    """What one step sees of frames.

    Attributes:
        shared: (B, C, G, G) float16, see :meth:`elysium_core.network.efficientnet.EfficientNetEncoder.shared_features`.
        names: See :class:`FrameObjects`; so the next two.
        boxes: Likewise.
        is_usable: Likewise.
        pixels: (B, S, S, 3) uint8 RGB; only of held-out frames, to be drawn.
    """

    shared: Tensor
    names: Tensor
    boxes: Tensor
    is_usable: Tensor
    pixels: Tensor | None = None

    @property
    def objects(self) -> FrameObjects:
        """The objects alone."""
        return FrameObjects(self.names, self.boxes, self.is_usable)


class EncodedFrames:
    """Draws views of photos and encodes them; on the CPU, in any process.

    Args:
        views: Draws them.
        encoder: With its pretrained weights.
    """

    def __init__(self, views: FrameViews, encoder: EfficientNetEncoder) -> None:
        self._views, self._encoder = views, encoder
        self._transform = ImageTransform(encoder.side_px, encoder.normalization)

    def features(self, seed: int, number: int, count: int) -> FrameFeatures:
        """See :class:`elysium_core.training.real.feature_pool.FeatureBatches`."""
        return self.encode([self._views.draw(batch_seed(seed, number), place) for place in range(count)])

    def photos(self, count: int) -> FrameFeatures:
        """At most ``count`` whole photos, spread over all of them, with their pixels.

        Raises:
            DataError: None of them can be read.
        """
        numbers = np.unique(np.linspace(0, len(self._views) - 1, count).round().astype(int))
        found = [view for number in numbers if (view := self._views.whole(int(number))) is not None]
        if not found:
            raise DataError(f"none of {len(numbers)} annotated photos can be used; check them with photo_data.py check")
        pixels = torch.from_numpy(np.stack([view.image for view in found]))
        return replace(self.encode(found), pixels=pixels)

    @torch.inference_mode()
    def encode(self, views: Sequence[FrameView]) -> FrameFeatures:
        """Encode views."""
        pixels = torch.from_numpy(np.stack([view.image for view in views]))
        parts = torch.split(pixels, _ENCODED)
        shared = torch.cat([half(self._encoder.shared_features(self._transform.normalize(part))) for part in parts])
        objects = packed_objects(views)
        return FrameFeatures(shared, objects.names, objects.boxes, objects.is_usable)


def packed_objects(views: Sequence[FrameView]) -> FrameObjects:
    """The objects of views in rows of the same length."""
    names = torch.full((len(views), MOST_OBJECTS), NOTHING)
    boxes, usable = torch.zeros(len(views), MOST_OBJECTS, 4), torch.zeros(len(views), MOST_OBJECTS, dtype=torch.bool)
    for row, view in enumerate(views):
        order = _kept(view)
        names[row, : len(order)] = torch.from_numpy(view.names[order])
        boxes[row, : len(order)] = torch.from_numpy(view.boxes[order])
        usable[row, : len(order)] = torch.from_numpy(view.is_usable[order])
    return FrameObjects(names, boxes, usable)


def _kept(view: FrameView) -> NDArray[np.int64]:
    """The objects that find room, the largest first.

    The largest of each name is among them: a name whose objects were all left out would count as absent.
    """
    areas = (view.boxes[:, 2:] - view.boxes[:, :2]).prod(1)
    order = np.argsort(-areas, kind="stable")
    _, first = np.unique(view.names[order], return_index=True)
    is_first = np.zeros(len(order), bool)
    is_first[first] = True
    kept = np.sort(np.argsort(~is_first, kind="stable")[:MOST_OBJECTS])
    return np.asarray(order[kept], np.int64)
