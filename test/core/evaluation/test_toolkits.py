"""Scores of stored recordings, as the toolkits' own code computed them once; and LaSOT's whole test set, where it is.

``stored_cases.json`` holds boxes and, for each toolkit, its version, the function that was run on them and what
that returned. Coordinates are whole numbers where a toolkit stores results like that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from elysium_core.data.readers.annotation_files import read_boxes, read_flags
from elysium_core.data.readers.lasot import names_of_test_split
from elysium_core.evaluation.protocols import PROTOCOLS
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.scoring import run_baseline, score_benchmark

CASES = json.loads(Path(__file__).with_name("stored_cases.json").read_text(encoding="utf-8"))
ANNOS = "ELYSIUM_LASOT_ANNOS"


def recording(name: str, unanswered=()) -> TrackResult:
    case = next(case for case in CASES["recordings"] if case["name"] == name)
    origin = [case["counted_from"]] * 2 + [0, 0]
    boxes = {
        key: np.asarray([[np.nan] * 4 if row is None else row for row in case[key]], float) - origin
        for key in ("predicted", "truth")
    }
    boxes["predicted"][list(unanswered)] = np.nan
    absent = np.isin(np.arange(len(boxes["truth"])), case["absent"])
    size = (case["frame_size"][0], case["frame_size"][1])
    return TrackResult(name, boxes["predicted"], boxes["truth"], absent, size, pixel_origin=case["counted_from"])


@pytest.mark.parametrize("case", CASES["expected"], ids=lambda case: f"{case['protocol']}: {case['source']}")
def test_stored_cases_score_as_the_toolkits_own_code_scores_them(case):
    results = [recording(name, case["unanswered"]) for name in case["recordings"]]
    scores = score_benchmark(results, PROTOCOLS[case["protocol"]])
    got = {figure: getattr(scores, figure) for figure in case["figures"]}
    # The released scorer computes in single precision.
    assert got == pytest.approx(case["figures"], abs=5e-7)


def test_the_stored_cases_are_worth_storing():
    kinds = {case["protocol"] for case in CASES["expected"]}
    assert kinds == PROTOCOLS.keys() - {"ope-lasot"}, "LaSOT's toolkit is MATLAB; see slow_lasot"
    everything = [recording(case["name"]) for case in CASES["recordings"]]
    assert any(r.absent.any() for r in everything)
    assert any(not r.has_truth.all() for r in everything)
    assert any((r.predicted_xywh_px[:, 2] == 0).any() for r in everything)


def test_without_absences_lasot_and_pytracking_are_the_same():
    results = [recording("plain"), recording("hd")]
    lasot, pytracking = (score_benchmark(results, PROTOCOLS[name]) for name in ("ope-lasot", "ope-pytracking"))
    assert np.array_equal(lasot.success, pytracking.success)
    assert np.array_equal(lasot.precision_px, pytracking.precision_px)
    assert np.array_equal(lasot.precision_norm, pytracking.precision_norm)


@pytest.fixture(scope="module")
def truth():
    folder, results = Path(os.environ[ANNOS]), []
    for name in names_of_test_split():
        boxes = read_boxes(folder / f"{name}.txt", negative_is_empty=True)
        absent = read_flags(folder / "absent" / f"{name}.txt", len(boxes)) > 0
        results.append(TrackResult(name, boxes, boxes, absent, (1280, 720)))
    return results


@pytest.mark.skipif(ANNOS not in os.environ, reason=f"{ANNOS} does not name the annos of LaSOT's evaluation toolkit")
class TestLasot:
    """The whole test set, frame size taken as 1280x720; the figures were computed by the toolkits' own rules."""

    @pytest.mark.parametrize(
        ("baseline", "protocol", "figures"),
        [
            ("perfect", "ope-lasot", (92.74, 97.38, 97.38, 97.38)),
            ("perfect", "ope-pytracking", (92.74, 97.38, 97.38, 97.38)),
            ("frozen", "ope-lasot", (14.5, 6.0, 9.3, 12.7)),
            ("frozen", "elysium-ref", (57.2, 60.8, 49.6, 52.8)),
            ("centre", "elysium-ref", (58.0, 53.0, 49.2, 50.9)),
        ],
    )
    def test_baselines(self, truth, baseline, protocol, figures):
        scores = score_benchmark(run_baseline(baseline, truth), PROTOCOLS[protocol])
        got = (scores.auc, scores.precision, scores.norm_precision, scores.norm_precision_mean)
        assert [100 * v for v in got] == pytest.approx(figures, abs=0.055)

    def test_counts(self, truth):
        assert (sum(r.frame_count for r in truth), sum(int(r.absent.sum()) for r in truth)) == (685_360, 18_346)
