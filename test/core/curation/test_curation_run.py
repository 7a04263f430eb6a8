"""Whole runs of ``elysium curate``: what is written, resumed and reported."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.curation_world import CAPTIONS, WORLD_VARIABLE, World, true_overlap, write_world
from elysium_core.curation.curated_files import SPLIT
from elysium_core.curation.curation_ledger import LEDGER_NAME, SAMPLES_PER_REASON, CurationLedger
from elysium_core.curation.curation_report import estimate, funnel
from elysium_core.curation.curation_run import Pace, show_time
from elysium_core.curation.video_result import FAILED, SamplePicture, VideoResult
from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.errors import ConfigError, DataError

PLUGINS = {name: f"plugin:bench.curation_world:make_{name}" for name in ("detector", "tracker", "parser")}
LINES = f"ElysiumTrack-{SPLIT}.json"


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / LINES).read_text().splitlines()]


def test_a_run_writes_tracks_that_the_reader_takes(world, curate, tmp_path):
    outcome = curate(tmp_path, "--json", "--shards")
    assert outcome.code == 0, outcome.err
    (told,) = outcome.lines
    lines = lines_of(tmp_path)
    assert told["tracks"] == told["chunks"]["kept"] == len(lines) > 0
    assert sum(told["videos"].values()) == 6
    read = list(read_elysiumtrack(tmp_path, SPLIT))
    assert [recording.expression for recording in read] == [line["object_description"] for line in lines]
    assert min(true_overlap(line, world) for line in lines) > 0.5
    with tarfile.open(tmp_path / f"{SPLIT}-000000.tar") as shard:
        names = shard.getnames()
    vids = {line["vid"] for line in lines}
    assert {name for name in names if name.endswith(".json")} == {f"{vid}.json" for vid in vids}
    assert len(names) == len(vids) * (1 + 5)
    assert {path.name for path in (tmp_path / "frames").iterdir()} == vids


def test_the_same_command_continues_and_other_settings_are_refused(curate, tmp_path, world):
    head = tmp_path / "head.csv"
    head.write_text("".join((world / CAPTIONS).read_text().splitlines(keepends=True)[:3]))
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert curate(out, captions=head).code == 0
    assert curate(out, "--shards").code == 0
    first = (out / LINES).read_bytes(), (out / f"{SPLIT}-000000.tar").read_bytes()
    assert curate(out, "--shards").code == 0
    assert ((out / LINES).read_bytes(), (out / f"{SPLIT}-000000.tar").read_bytes()) == first
    assert curate(whole).code == 0
    assert (whole / LINES).read_bytes() == first[0]
    refused = curate(out, "--least-iou", "0.5", "--json")
    assert (refused.code, refused.lines[0]["error"]["code"]) == (2, "CONFIG")
    assert "least_iou" in refused.err


def test_a_dry_run_tells_yield_and_cost_and_keeps_nothing(curate, tmp_path):
    out = tmp_path / "out"
    outcome = curate(out, "--dry-run", 3, "--workers", 24, "--json")
    assert outcome.code == 0, outcome.err
    (told,) = outcome.lines
    assert sum(told["videos"].values()) == 3
    assert (told["estimate"]["videos"], told["estimate"]["workers"]) == (6, 24)
    assert told["estimate"]["days"] > 0
    assert not out.exists()


def test_the_report_counts_every_chunk_once_and_shows_samples(curate, elysium, tmp_path):
    assert curate(tmp_path).code == 0
    outcome = elysium("curate", "report", tmp_path, "--json")
    (told,) = outcome.lines
    stages = list(told["stages"].values())
    assert stages[1] == sum(told["chunks"].values())
    assert stages[1:] == sorted(stages[1:], reverse=True)
    assert stages[-1] == told["chunks"]["kept"]
    assert (tmp_path / "sheet-kept.jpg").stat().st_size > 1000
    assert "sheet-kept.jpg" in (tmp_path / "report.md").read_text()


def test_a_folder_without_a_run_has_no_report(elysium, tmp_path):
    outcome = elysium("curate", "report", tmp_path, "--json")
    assert (outcome.code, outcome.lines[0]["error"]["code"]) == (2, "DATA")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--detector", "plugin:nowhere:make"), "CONFIG"),
        (("--detector", "plugin:bench.curation_world:nothing"), "CONFIG"),
        (("--tracker", "opencv:Nano"), "BACKEND"),
        (("--tracker", "vit:none.onnx"), "CONFIG"),
        (("--track-score", "2"), "CONFIG"),
    ],
)
def test_tools_that_are_not_there_are_named(curate, tmp_path, arguments, code):
    outcome = curate(tmp_path, *arguments, "--json")
    assert (outcome.code, outcome.lines[0]["error"]["code"]) == (2, code)
    assert arguments[1].partition(":")[2].partition(":")[0] in outcome.err


def test_only_one_run_writes_into_a_folder_and_reports_may_read(tmp_path):
    with CurationLedger(tmp_path, write=True) as ledger:
        with pytest.raises(ConfigError):
            CurationLedger(tmp_path, write=True)
        ledger.add(VideoResult("a"))
        with CurationLedger(tmp_path) as reader:
            assert reader.has("a")
    CurationLedger(tmp_path, write=True).close()


def test_a_damaged_ledger_is_named(tmp_path):
    (tmp_path / LEDGER_NAME).write_bytes(b"no database, but long enough to be looked at " * 50)
    with pytest.raises(DataError) as refused:
        CurationLedger(tmp_path, write=True)
    assert LEDGER_NAME in str(refused.value)


def test_a_video_is_committed_whole_or_not_at_all(tmp_path):
    with CurationLedger(tmp_path, write=True) as ledger:
        broken = VideoResult("a", counts=Counter(kept=1), samples=[SamplePicture("kept", "dog", None)])
        with pytest.raises(sqlite3.IntegrityError):
            ledger.add(broken)
        assert not ledger.has("a")
        assert ledger.counts("chunk") == {}
        whole = VideoResult("a", counts=Counter(kept=1), samples=[SamplePicture("kept", "dog", b"x")])
        ledger.add(whole)
        ledger.add(whole)  # a second result of one video changes nothing
        assert ledger.counts("chunk") == {"kept": 1}
        assert ledger.counts("outcome") == {"nothing kept": 1}


def test_samples_are_bounded_and_do_not_depend_on_the_order(tmp_path):
    chosen = []
    numbers = list(range(60))
    for name in ("forward", "shuffled"):
        (tmp_path / name).mkdir()
        with CurationLedger(tmp_path / name, write=True) as ledger:
            for number in numbers:
                ledger.add(VideoResult(str(number), samples=[SamplePicture("kept", "dog", b"x")]))
            chosen.append(ledger.samples("kept"))
        random.Random(0).shuffle(numbers)
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == SAMPLES_PER_REASON


def test_cost_follows_from_what_was_done(tmp_path):
    with CurationLedger(tmp_path, write=True) as ledger:
        with pytest.raises(DataError):
            estimate(ledger, 10, 1)
        ledger.add(VideoResult("a", counts=Counter(kept=3), seconds={"detect": 2.0, "track": 4.0}))
        ledger.add(VideoResult("b", FAILED, "x", seconds={"detect": 2.0}))
        cost = estimate(ledger, 86400, 24)
        assert (cost.seconds, cost.tracks, cost.days) == (4.0, 1.5, 4 / 24)
        assert funnel(ledger)[0] == ("videos", 2)
        assert ledger.troubles() == [("b", FAILED, "x")]


def test_times_are_told_as_people_say_them():
    assert [show_time(s) for s in (40, 600, 9000, 6 * 86400)] == ["40 s", "10 min", "2.5 h", "6.0 days"]
    assert "1 tracks kept" in Pace(2).note(VideoResult("a", lines=[{}]))


def test_a_tracker_whose_scores_fit_no_threshold_is_named(curate, tmp_path):
    outcome = curate(tmp_path, "--track-score", "0.96", "--json")
    (told,) = outcome.lines
    assert told["tracks"] == 0
    assert told["lowest_track_scores"] == {"0.9": told["chunks"]["tracker unsure"]}
    assert "--track-score" in outcome.err
    assert "about 0.9" in outcome.err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_that_is_killed_five_times_loses_and_doubles_nothing(tmp_path):
    """SIGKILL at random moments; at the end all is as in a run that was left alone."""
    world = tmp_path / "world"
    write_world(world, World(videos=60, frames=12, side_px=96))
    environment = {**os.environ, WORLD_VARIABLE: str(world), "PYTHONPATH": os.pathsep.join([str(Path.cwd())])}
    options = [word for name, plugin in PLUGINS.items() for word in (f"--{name}", plugin)]

    def command(out: Path) -> list[str]:
        start = [sys.executable, "-m", "elysium_core.cli", "curate", str(world)]
        return [*start, "--captions", str(world / CAPTIONS), "--out", str(out), *options, "--shards"]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), env=environment, check=True, capture_output=True)
    rng = random.Random(7)
    for _ in range(5):
        done = _videos_done(killed)
        process = subprocess.Popen(command(killed), env=environment, stderr=subprocess.DEVNULL)
        # At a random moment of the work, not of the start, and at least one video later.
        while _videos_done(killed) < done + rng.randrange(1, 9) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
        assert not (killed / LINES).exists()
    last = subprocess.run(command(killed), env=environment, check=True, capture_output=True, text=True)
    assert "of 60 videos are done" in last.stderr
    assert (killed / LINES).read_bytes() == (whole / LINES).read_bytes()
    assert {path.name for path in (killed / "frames").iterdir()} == {path.name for path in (whole / "frames").iterdir()}
    assert (killed / f"{SPLIT}-000000.tar").read_bytes() == (whole / f"{SPLIT}-000000.tar").read_bytes()


def _videos_done(out: Path) -> int:
    try:
        with CurationLedger(out) as ledger:
            return sum(ledger.counts("outcome").values())
    except (DataError, sqlite3.OperationalError):
        return 0
