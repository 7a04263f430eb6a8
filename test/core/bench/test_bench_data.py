from __future__ import annotations

import cv2


def test_rates_of_all_clip_lengths_are_measured(bench):
    threads = cv2.getNumThreads()
    outcome = bench("data", "--seconds", 0.01, "--side", 32, "--json")
    assert outcome.code == 0
    (result,) = outcome.lines
    assert result["side_px"] == 32
    assert set(result["frames_per_second"]) == {
        "1-frame clips",
        "4-frame clips",
        "30-frame clips",
        "4-frame clips, as PNG",
    }
    for rate in result["frames_per_second"].values():
        assert rate["frames"] > 0
        assert rate["wall"] > 0
        assert rate["core"] > 0
    assert cv2.getNumThreads() == threads


def test_a_person_gets_lines(bench):
    outcome = bench("data", "--seconds", 0.01, "--side", 32)
    assert outcome.code == 0
    assert outcome.out.count("frames/s") == 4
