"""The benchmarks as commands, run in this process."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from bench.app import app
from bench.hf_decoder import HfDecoder
from elysium_core.tracking import clip

END = 2


@pytest.fixture
def bench(invoke):
    """Run a benchmark: ``bench("engine", "--json")``."""
    return partial(invoke, app)


@pytest.fixture
def few_frames(monkeypatch):
    """A recording of up to 8 frames is one clip, as one of 32 is elsewhere: 16 frames show what takes 33."""
    monkeypatch.setattr(clip, "SINGLE_CLIP_FRAMES", 8)


@pytest.fixture
def no_transformers(monkeypatch):
    """Scripted answers of transformers come without its forward passes, for tests of our own side."""
    monkeypatch.setattr(HfDecoder, "generate", lambda self, prompt, longest, forced: forced)


@pytest.fixture(scope="session")
def brief_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny checkpoint with a likelier end token: answers of 1 to 30 tokens, not all as long as is allowed."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("brief") / "model")
    weights = load_file(folder / "model.safetensors")
    weights["llm.lm_head.weight"][END] *= 2
    save_file(weights, folder / "model.safetensors")
    (folder / "SHA256SUMS").unlink()
    return folder
