"""Tiny data sets, made by hand in the layouts of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write(tmp_path):
    """Write a text file below ``tmp_path``, with its folders."""

    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return _write


@pytest.fixture
def pictures(tmp_path):
    """Write pictures below ``tmp_path``; the one at place k is gray of value ``10 * k``."""

    def _pictures(folder: str, names, size=(32, 24)) -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        for place, name in enumerate(names):
            Image.new("RGB", size, (10 * place,) * 3).save(path / name, quality=95)
        return path

    return _pictures


@pytest.fixture
def grays():
    """Return the gray values of a source's frames, in tens: which picture was read at which place."""

    def _grays(frames) -> list[int]:
        return [round(float(np.median(frame.image)) / 10) for frame in frames]

    return _grays
