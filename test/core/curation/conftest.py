"""A small world of captioned videos with known tracks; its stand-ins are in bench/curation_world.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from bench.curation_world import CAPTIONS, WORLD_VARIABLE, World, write_world
from elysium_core.cli.app import app

PLUGINS = {name: f"plugin:bench.curation_world:make_{name}" for name in ("detector", "tracker", "parser")}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Six videos of 5 frames of 48 px."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, World(videos=6, frames=5, side_px=48))
    return folder


@pytest.fixture
def curate(invoke, world, monkeypatch):
    """Run ``elysium curate`` over the world, or another one: ``curate(out, "--json")``."""
    options = [word for name, plugin in PLUGINS.items() for word in (f"--{name}", plugin)]

    def run(out: Path, *arguments, videos: Path = world, captions: Path | None = None):
        monkeypatch.setenv(WORLD_VARIABLE, str(videos))
        captions = captions or videos / CAPTIONS
        return invoke(app, "curate", videos, "--captions", captions, "--out", out, *options, *arguments)

    return run


@pytest.fixture
def elysium(invoke):
    """Run the command in this process."""
    return partial(invoke, app)
