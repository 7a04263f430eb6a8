from __future__ import annotations

import pytest


def test_yield_purity_and_memory_are_measured(bench):
    outcome = bench("curation", "--videos", 8, "--frames", 5, "--side", 48, "--repeat", 2, "--json")
    assert outcome.code == 0, outcome.err
    (result,) = outcome.lines
    assert result["videos"] == result["stages"]["videos"] == 16
    assert 0 < result["tracks"] == result["stages"]["track agrees in the last frame"]
    assert result["tracks"] < result["stages"]["name one visible object"]  # the detector errs
    assert result["purity"] >= 0.95
    assert result["by_track_score"] == {"0.8": [result["tracks"], result["purity"]]}
    assert set(result["memory_mib"]) == {"after a tenth", "at the end"}


def test_without_gates_a_detector_that_errs_spoils_the_tracks(bench, monkeypatch):
    """The purity is the work of the gates, not of the measurement."""
    from elysium_core.curation import curate_video

    monkeypatch.setattr(curate_video, "rejection", lambda *arguments: None)
    outcome = bench("curation", "--videos", 8, "--frames", 5, "--side", 48, "--errors", 0.6, "--json")
    assert outcome.lines[0]["purity"] < 0.95


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_many_videos(bench):
    outcome = bench("curation", "--videos", 25, "--frames", 4, "--side", 32, "--repeat", 40, "--json")
    memory = outcome.lines[0]["memory_mib"]
    assert memory["at the end"] < memory["after a tenth"] + 16
