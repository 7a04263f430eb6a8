from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from elysium_core.cli.app import app
from elysium_core.frames import Frame
from elysium_core.io.image import write_image
from elysium_core.io.render import Mp4Writer

FRAMES = 12


@dataclass
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def elysium():
    """Run the command in this process: ``elysium("ground", "a.png", "--json")``."""

    def run(*arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


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
