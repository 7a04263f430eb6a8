from __future__ import annotations

import pytest

from elysium_core.data.readers.lasot import names_of_test_split


@pytest.fixture
def annotations(tmp_path):
    """Five frames of each recording of the test set; the target moves away, and is absent in the last frame."""
    (tmp_path / "absent").mkdir()
    boxes = "".join(f"{100 * number},50,40,30\n" for number in range(5))
    for name in names_of_test_split():
        (tmp_path / f"{name}.txt").write_text(boxes)
        (tmp_path / "absent" / f"{name}.txt").write_text("0\n0\n0\n0\n1\n")
    return tmp_path


def test_a_perfect_tracker_is_ahead_of_one_that_never_moves(bench, annotations):
    outcome = bench("lasot", annotations, "--json")
    assert outcome.code == 0
    (report,) = outcome.lines
    assert (report["recordings"], report["frames"], report["absent_frames"]) == (280, 280 * 5, 280)
    overlap = {(row["tracker"], row["protocol"]): row["average_overlap"] for row in report["scores"]}
    # LaSOT counts the absent frame as a failure; a box that never moves is right in the first frame only.
    assert overlap["perfect", "ope-lasot"] == pytest.approx(4 / 5)
    assert overlap["frozen", "ope-lasot"] == pytest.approx(1 / 5)
    # GOT-10k leaves out the first and the absent frame.
    assert overlap["perfect", "ope-got10k"] == pytest.approx(1)
    assert overlap["frozen", "ope-got10k"] == 0


def test_a_person_gets_a_table(bench, annotations):
    lines = bench("lasot", annotations).out.splitlines()
    assert lines[0] == "280 recordings, 1400 frames, 280 absent"
    assert lines[1].split() == ["tracker", "protocol", "AUC", "P_norm", "P", "AO"]
    assert any(line.split()[:2] == ["perfect", "ope-lasot"] for line in lines[2:])


def test_a_folder_without_annotations_is_named(bench, tmp_path):
    outcome = bench("lasot", tmp_path)
    assert outcome.code == 2
    assert str(tmp_path) in outcome.err
