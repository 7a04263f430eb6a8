from __future__ import annotations

import numpy as np
import pytest

from elysium_core.data.synthetic.clips import SyntheticClip


@pytest.fixture
def clip_of():
    """Make a clip of black pictures from the visible fractions (N, T) of its objects."""

    def make(visible) -> SyntheticClip:
        visible = np.asarray(visible, np.float32)
        objects, frames = visible.shape
        return SyntheticClip(
            images=np.zeros((frames, 32, 32, 3), np.uint8),
            names=tuple("abc"[:objects]),
            name_index=np.arange(objects),
            boxes=np.zeros((objects, frames, 4), np.float32),
            visible=visible,
            owner=np.full((frames, 32, 32), -1, np.int8),
            colors=np.full(objects, -1),
        )

    return make
