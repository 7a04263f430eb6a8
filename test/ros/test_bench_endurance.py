from __future__ import annotations

import signal

import pytest

from bench.endurance import Ends, LongRun, as_text, ends, long_run


def test_only_a_node_that_was_ended_must_leave_nothing():
    assert Ends("SIGTERM", 3, (0,), 0.0).are_clean
    assert not Ends("SIGTERM", 3, (0, -11), 0.0).are_clean
    assert not Ends("SIGTERM", 3, (0,), 0.5).are_clean
    assert Ends("SIGKILL", 1, (-9,), 18.0).are_clean


def test_results_are_said_in_one_line_each():
    run = LongRun(60.0, 900, 899, 300.0, 301.5, 4.2, 18.0, 18.0)
    first, second = as_text(run, [Ends("SIGTERM", 2, (0,), 0.0)]).splitlines()
    assert all(part in first for part in ("899 of 900", "300.0 -> 301.5 MiB", "+4.2 MiB/h", "18.0 -> 18.0"))
    assert all(part in second for part in ("SIGTERM x 2", "exit codes 0", "0.0 MiB"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_follows_and_ends_without_a_trace():
    run = long_run("identity", 15.0, 2.0)
    assert run.answered >= run.sent - 1 > 20
    assert run.rss_slope_mib_per_h is None
    assert ends("identity", signal.SIGTERM, 1).are_clean
    killed = ends("identity", signal.SIGKILL, 1)
    assert (killed.exit_codes, killed.count) == ((-9,), 1)
