"""``elysium eval mot``: from a folder in MOT17's layout to HOTA, IDF1 and MOTA."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench.crowds import Crowd, write_crowd
from elysium_core.errors import BackendError, ConfigError
from elysium_core.evaluation.benchmark import EvalRequest
from elysium_core.evaluation.benchmarks import make_report, prepare
from elysium_core.evaluation.multi_object_scores import Tracks, score_tracks
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.tracking.multi_object import MultiObjectTracker
from elysium_core.tracking.newcomers import InstanceSearch
from elysium_core.types import Grounding

STILL = [[frame, 1, 10, 10, 30, 30] for frame in range(4)]
OTHER = [[frame, 2, 60, 60, 90, 90] for frame in range(4)]


@pytest.fixture
def trackeval():
    """The package that computes the scores; an extra that is not installed everywhere."""
    pytest.importorskip("scipy")
    return pytest.importorskip("trackeval")


@pytest.mark.usefixtures("trackeval")
def test_the_truth_scores_one():
    figures = score_tracks({"a": Tracks(4, STILL + OTHER, [], STILL + OTHER)})
    shares = (figures.hota, figures.detection, figures.association, figures.idf1, figures.mota)
    assert shares == pytest.approx([1, 1, 1, 1, 1])
    assert (figures.switches, figures.objects, figures.tracks) == (0, 2, 2)


@pytest.mark.usefixtures("trackeval")
def test_a_change_of_identity_costs_identity_and_one_switch():
    swapped = [[frame, 1 if frame < 2 else 5, *box] for frame, _, *box in STILL]
    figures = score_tracks({"a": Tracks(4, STILL, [], swapped)})
    assert figures.detection == pytest.approx(1)
    assert (figures.switches, figures.mota, figures.idf1) == (1, pytest.approx(0.75), pytest.approx(0.5))


@pytest.mark.usefixtures("trackeval")
def test_boxes_on_what_does_not_count_are_neither_right_nor_wrong():
    figures = score_tracks({"a": Tracks(4, STILL, OTHER, STILL + OTHER)})
    assert (figures.precision, figures.mota, figures.tracks) == (1, 1, 1)
    wrong = score_tracks({"a": Tracks(4, STILL, [], STILL + OTHER)})
    assert (wrong.precision, wrong.mota) == (0.5, 0)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackeval", None)
    with pytest.raises(BackendError) as caught:
        score_tracks({"a": Tracks(4, STILL, [], STILL)})
    assert caught.value.code == "PACKAGE_MISSING"
    assert "trackeval==" in str(caught.value)


class KnowingModel(IdentityModel):
    """Finds two things of each name; what it follows does not move."""

    def find_all(self, image, names, *, known=()):
        return {
            name: [Grounding(Box(0.1, 0.1, 0.3, 0.3), 0.9), Grounding(Box(0.6, 0.6, 0.9, 0.9), 0.9)] for name in names
        }

    def tracker_of_all(self, names, config=None):
        return MultiObjectTracker(IdentityTracker(config), InstanceSearch(self, list(names)))


@pytest.fixture
def crowd(tmp_path):
    """Two cups that do not move, one of which is hidden in the end, in the layout of MOT17."""
    boxes = np.tile(np.array([[10, 10, 30, 30], [60, 60, 90, 90]], float)[:, None], (1, 3, 1))
    visible = np.ones((2, 3))
    visible[1, 2] = 0.1
    write_crowd(tmp_path / "data" / "c0", Crowd(np.zeros((3, 100, 100, 3), np.uint8), ("cup", "cup"), boxes, visible))
    return tmp_path / "data"


@pytest.mark.usefixtures("trackeval")
def test_from_a_folder_to_a_report(crowd, tmp_path):
    prepared = prepare(EvalRequest("mot", crowd))
    assert list(prepared.execute(KnowingModel(), "knowing", tmp_path / "run")) == ["c0"]
    report = make_report(tmp_path / "run")
    assert report.scores["all"]["hota"] == pytest.approx(1), "the hidden cup may be followed or not"
    assert (report.scores["all"]["objects"], report.scores["all"]["tracks"]) == (2, 2)
    assert report.tables[0].rows[0][0] == "knowing, all"


def test_a_model_that_finds_nothing_by_names_is_refused(crowd, tmp_path):
    with pytest.raises(ConfigError) as caught:
        list(prepare(EvalRequest("mot", crowd)).execute(IdentityModel(), "identity", tmp_path / "run"))
    assert caught.value.code == "MODE"
    with pytest.raises(ConfigError):
        prepare(EvalRequest("mot", crowd, mode="clip"))
