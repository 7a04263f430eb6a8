from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from elysium_core.cli.app import app
from elysium_core.frames import Frame
from elysium_core.io.image import write_image
from elysium_core.io.mp4_writer import Mp4Writer

FRAMES = 12


@pytest.fixture
def elysium(invoke):
    """Run the command in this process: ``elysium("ground", "a.png", "--json")``."""
    return partial(invoke, app)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video of 12 frames of 64x48 px at 10 Hz."""
    path = tmp_path / "in" / "video.mp4"
    with Mp4Writer(path, fps=10) as writer:
        for index in range(FRAMES):
            image = np.full((48, 64, 3), 20 * index, np.uint8)
            writer.write(Frame(image, stamp_ns=index * 100_000_000, index=index))
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture of 64x48 px."""
    path = tmp_path / "in" / "image.png"
    write_image(path, np.full((48, 64, 3), 90, np.uint8))
    return path
