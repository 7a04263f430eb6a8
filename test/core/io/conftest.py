from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

MakeVideo = Callable[..., Path]


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture whose brightness is its number, with a gradient that gives a codec something to do."""
    image = np.full((height, width, 3), 10 + 10 * index, np.uint8)
    image[:, :, 0] += np.linspace(0, 40, width, dtype=np.uint8)
    return image


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Write a short video: ``make_video("a.mp4", count=12, codec="libx264", rotation=90)``."""

    def make(name="video.mp4", count=12, width=64, height=48, fps=25, codec="mpeg4", rotation=0) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation)
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of pictures with the given names."""

    def make(*names: str, width: int = 8, height: int = 6) -> Path:
        folder = tmp_path / "frames"
        folder.mkdir()
        for index, name in enumerate(names):
            Image.fromarray(picture(index, width, height)).save(folder / name)
        return folder

    return make
