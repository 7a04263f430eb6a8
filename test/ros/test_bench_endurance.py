from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.endurance import Ends, LongRun, as_text

ROOT = Path(__file__).resolve().parents[2]


def test_only_a_node_that_was_ended_must_leave_nothing():
    assert Ends("SIGTERM", 3, (0,), 0.0).are_clean
    assert not Ends("SIGTERM", 3, (0, -11), 0.0).are_clean
    assert not Ends("SIGTERM", 3, (0,), 0.5).are_clean
    assert Ends("SIGKILL", 1, (-9,), 18.0).are_clean


@pytest.mark.parametrize(
    ("slope", "shared_end", "is_clean"),
    [(9.4, 18.0, True), (-30.0, 17.0, True), (None, 18.0, True), (9.6, 18.0, False), (1.0, 18.1, False)],
)
def test_a_long_run_may_not_take_ten_megabytes_an_hour_or_more_shared_memory(slope, shared_end, is_clean):
    assert LongRun(600.0, 18000, 17990, 300.0, 301.0, slope, 18.0, shared_end).is_clean is is_clean


def test_results_are_said_in_one_line_each():
    run = LongRun(60.0, 900, 899, 300.0, 301.5, 4.2, 18.0, 18.0)
    first, second = as_text(run, [Ends("SIGTERM", 2, (0,), 0.0)]).splitlines()
    assert all(part in first for part in ("899 of 900", "300.0 -> 301.5 MiB", "+4.2 MiB/h", "18.0 -> 18.0"))
    assert all(part in second for part in ("SIGTERM x 2", "exit codes 0", "0.0 MiB"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_follows_and_ends_without_a_trace():
    arguments = ["--model", "identity", "--seconds", "2", "--terms", "1", "--kills", "1", "--json"]
    command = [sys.executable, "-m", "bench", "endurance", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["run"]["answered"] >= found["run"]["sent"] - 1 > 20
    assert found["run"]["rss_slope_mib_per_h"] is None
    assert [(each["how"], each["count"], each["exit_codes"]) for each in found["ends"]] == [
        ("SIGTERM", 1, [0]),
        ("SIGKILL", 1, [-9]),
    ]
