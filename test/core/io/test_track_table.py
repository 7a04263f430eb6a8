"""Tracks as tables and as supervision's detections; without those packages, stand-ins take what they would get."""

from __future__ import annotations

import csv
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from elysium_core.cli.app import app
from elysium_core.errors import BackendError, DataError
from elysium_core.geometry import Box
from elysium_core.io.detections import as_detections
from elysium_core.io.image import write_image
from elysium_core.io.track_table import COLUMNS, TrackTable, track_columns
from elysium_core.types import Grounding, TrackState, TrackUpdate

UPDATES = [
    TrackUpdate("1", 0, Box(0.25, 0.5, 0.75, 1.0), 0.9, TrackState.TRACKED, 5, "the mug, red"),
    TrackUpdate("2", 0, None, 0.0, TrackState.LOST, 5),
]


@pytest.fixture
def elysium(invoke):
    return partial(invoke, app)


def test_columns_have_a_value_for_each_update_and_null_for_no_box():
    columns = track_columns(UPDATES, 640, 480)
    assert list(columns) == list(COLUMNS)
    assert columns["x1"] == [0.25, None]
    assert columns["state"] == ["TRACKED", "LOST"]
    assert columns["expression"] == ["the mug, red", ""]
    assert columns["width_px"] == [640, 640]


def test_track_writes_a_csv_with_a_row_for_each_frame_and_target(elysium, tmp_path):
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", np.full((48, 64, 3), 90, np.uint8))
    out = tmp_path / "tracks.csv"
    arguments = ("track", tmp_path / "in", "-m", "identity", "-b", "0.1,0.2,0.5,0.6", "-o", out)
    assert elysium(*arguments).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["frame"], row["target"], row["x2"], row["state"]) for row in rows] == [
        (str(frame), "1", "0.5", "TRACKED") for frame in range(3)
    ]
    outcome = elysium(*arguments, "--resume")
    assert (outcome.code, "tracks.csv" in outcome.err) == (2, True)


def test_a_run_that_fails_leaves_no_table(tmp_path):
    table = TrackTable(tmp_path / "tracks.csv")
    table.write(UPDATES[0], 64, 48)
    table.__exit__(KeyboardInterrupt, None, None)
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        TrackTable(tmp_path / "tracks.xlsx")
    assert "tracks.xlsx" in str(caught.value)


def test_a_parquet_file_has_typed_columns(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    with TrackTable(tmp_path / "tracks.parquet") as table:
        for update in UPDATES:
            table.write(update, 640, 480)
    read = parquet.read_table(tmp_path / "tracks.parquet")
    assert {field.name: str(field.type) for field in read.schema} == {
        name: kind.replace("float64", "double") for name, kind in COLUMNS.items()
    }
    assert read.to_pydict() == track_columns(UPDATES, 640, 480)


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("pyarrow", lambda folder: TrackTable(folder / "tracks.parquet")),
        ("supervision", lambda folder: as_detections(UPDATES, 64, 48)),
    ],
)
def test_a_missing_package_is_one_sentence_with_the_command_before_the_run(package, use, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError) as caught:
        use(tmp_path)
    assert caught.value.code == "PACKAGE_MISSING"
    assert package in str(caught.value)


@pytest.fixture
def supervision(monkeypatch):
    """The package, or a stand-in for the two things that are used of it."""
    try:
        import supervision
    except ImportError:
        detections = type(
            "Detections", (SimpleNamespace,), {"empty": classmethod(lambda cls: cls(xyxy=np.empty((0, 4))))}
        )
        supervision = SimpleNamespace(Detections=detections)
        monkeypatch.setitem(sys.modules, "supervision", supervision)
    return supervision


def test_updates_become_detections_with_pixels_numbers_and_words(supervision):
    detections = as_detections(UPDATES, 640, 480)
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.tolist() == [[160, 240, 480, 480]]
    assert detections.confidence == pytest.approx([0.9])
    assert detections.tracker_id.tolist() == [1]
    assert detections.data["class_name"].tolist() == ["the mug, red"]
    assert detections.data["state"].tolist() == ["TRACKED"]


def test_an_answer_of_ground_becomes_detections_too_and_nothing_becomes_none(supervision):
    found = as_detections(Grounding(Box(0, 0, 1, 1), 0.5), 10, 20)
    assert found.xyxy.tolist() == [[0, 0, 10, 20]]
    assert found.tracker_id.tolist() == [-1]
    assert len(as_detections(UPDATES[1:], 10, 20).xyxy) == 0
