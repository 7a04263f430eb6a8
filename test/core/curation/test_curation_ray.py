"""``elysium curate --workers``: workers on Ray that die lose no video."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest

from bench.curation_world import frame_key
from elysium_core.curation.curated_files import SPLIT
from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.video_result import FAILED
from elysium_core.io.image import read_image

DYING_TRACKER = """
import os, signal
from pathlib import Path
from bench.curation_world import WORLD_VARIABLE, KnowingTracker, frame_key, truth_of


class DyingTracker(KnowingTracker):
    def follow(self, frames, boxes):
        frames = list(frames)
        once = Path(os.environ["DIED_ONCE"])
        if not once.exists() or frame_key(frames[0].image) == os.environ["DEADLY_FRAME"]:
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().follow(frames, boxes)


def make():
    return DyingTracker(truth_of(os.environ[WORLD_VARIABLE]))
"""


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / f"ElysiumTrack-{SPLIT}.json").read_text().splitlines()]


def test_a_ray_that_does_not_start_is_named(curate, tmp_path, monkeypatch):
    """A busy machine may start it too slowly; Ray then raises an error of no kind of its own."""

    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup.")

    ray = types.ModuleType("ray")
    ray.init, ray.shutdown, ray.data = init, lambda: None, types.ModuleType("ray.data")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    refused = curate(tmp_path / "out", "--address", "ray://nowhere:10001", "--json")
    assert (refused.code, refused.lines[0]["error"]["code"]) == (2, "RAY")
    assert "ray://nowhere:10001" in refused.err
    assert "timed out" in refused.err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_workers_on_ray_that_die_lose_no_video_but_the_one_that_kills_them(curate, world, tmp_path, monkeypatch):
    """A worker is killed once at any video, and again whenever it takes a certain one; the others are done."""
    pytest.importorskip("ray.data")
    (tmp_path / "dying_tracker.py").write_text(DYING_TRACKER)
    one, two = tmp_path / "one", tmp_path / "two"
    assert curate(one).code == 0
    deadly = lines_of(one)[0]["vid"]
    frame = min((world / "set" / deadly).iterdir())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), str(tmp_path)]))
    monkeypatch.setenv("DIED_ONCE", str(tmp_path / "died"))
    monkeypatch.setenv("DEADLY_FRAME", frame_key(read_image(frame)))
    outcome = curate(two, "--workers", 2, "--tracker", "plugin:dying_tracker:make")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "died").exists()
    expected, found = ({line["id"]: line for line in lines_of(out)} for out in (one, two))
    assert found == {name: line for name, line in expected.items() if line["vid"] != deadly}
    assert len(lines_of(two)) == len(found) > 0
    with CurationLedger(two) as ledger:
        assert [(vid, kind) for vid, kind, _ in ledger.troubles()] == [(deadly, FAILED)]
