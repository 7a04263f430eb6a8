from __future__ import annotations

import errno
import io
import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import DataError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.tracks import TrackWriter, parse_track_line, read_tracks, resume_point
from elysium_core.tracking.target import Target
from elysium_core.types import Grounding, TrackingConfig, TrackState, TrackUpdate

BOX = Box(0.125, 0.25, 0.5, 0.75)
GOOD = {"frame": 0, "stamp_ns": 0, "target": "1", "box": [0, 0, 1, 1], "score": 1.0, "state": "TRACKED"}


def update(frame: int, target_id: str = "1", state: TrackState = TrackState.TRACKED) -> TrackUpdate:
    has_box = state in (TrackState.TRACKED, TrackState.UNCERTAIN)
    return TrackUpdate(target_id, frame, BOX if has_box else None, 0.5 if has_box else 0.0, state, stamp_ns=frame * 10)


def write(path, updates) -> None:
    with TrackWriter(path) as writer:
        for each in updates:
            writer.write(each, 640, 480)


UPDATES = [update(0), update(1, state=TrackState.UNCERTAIN), update(2, state=TrackState.LOST), update(3)]


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "new" / "a.jsonl", UPDATES)
    assert read_tracks(tmp_path / "new" / "a.jsonl") == UPDATES


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=30), st.floats(0.1, 1), st.floats(0, 1))
def test_whatever_a_target_goes_through_can_be_read_again(tmp_path_factory, scores, lost_after_s, remove_after_s):
    target, config = Target("1", ""), TrackingConfig(lost_after_s=lost_after_s, remove_after_s=remove_after_s)
    updates = []
    for number, score in enumerate(scores):
        frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns=number, index=number)
        seen = Grounding(None, 0.0, reason="no box") if score is None else Grounding(BOX, round(score, 6))
        updates.append(target.observe(frame, number / 10, seen, config))
    path = tmp_path_factory.mktemp("tracks") / "a.jsonl"
    write(path, updates)
    again = read_tracks(path)
    assert [(u.frame_index, u.state, u.box, u.score) for u in again] == [
        (u.frame_index, u.state, u.box, u.score) for u in updates
    ]


def test_each_line_is_on_disk_before_the_next(tmp_path):
    with TrackWriter(tmp_path / "a.jsonl") as writer:
        for number, each in enumerate(UPDATES, start=1):
            writer.write(each, 640, 480)
            assert len(read_tracks(tmp_path / "a.jsonl")) == number


def test_a_file_cut_at_any_byte_loses_at_most_its_last_line(tmp_path, caplog):
    write(tmp_path / "a.jsonl", UPDATES)
    content = (tmp_path / "a.jsonl").read_bytes()
    for size in range(0, len(content), 3):
        (tmp_path / "b.jsonl").write_bytes(content[:size])
        whole = content[:size].count(b"\n")
        assert read_tracks(tmp_path / "b.jsonl")[:whole] == UPDATES[:whole]
        lines, done = resume_point(tmp_path / "b.jsonl", ["1"])
        assert done[:whole] == UPDATES[:whole]
        assert len(lines) == len(done) <= whole + 1
    assert any(record.levelno == logging.WARNING and "last line" in record.message for record in caplog.records)


def test_damage_before_the_last_line_is_an_error_with_its_place(tmp_path):
    write(tmp_path / "a.jsonl", UPDATES)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    lines[1] = lines[1][:20]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"a\.jsonl:2: .* is not JSON"):
        read_tracks(tmp_path / "a.jsonl")


def test_blank_lines_and_bytes_that_are_no_text(tmp_path):
    write(tmp_path / "a.jsonl", UPDATES)
    (tmp_path / "b.jsonl").write_bytes(b"\n\n" + (tmp_path / "a.jsonl").read_bytes() + b"\n \n\xff\xfe")
    assert read_tracks(tmp_path / "b.jsonl") == UPDATES


@pytest.mark.parametrize("name", ["none.jsonl", ".", "\0"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(DataError) as error:
        read_tracks(tmp_path / name)
    assert repr(str(tmp_path / name)) in str(error.value)


def test_only_whole_frames_are_kept(tmp_path):
    write(tmp_path / "a.jsonl", [update(0, "1"), update(0, "2"), update(1, "1")])
    lines, done = resume_point(tmp_path / "a.jsonl", ["1", "2"])
    assert done == [update(0, "1"), update(0, "2")]
    with TrackWriter(tmp_path / "a.jsonl", keep=lines) as writer:
        writer.write(update(1, "1"), 640, 480)
    assert read_tracks(tmp_path / "a.jsonl") == [*done, update(1, "1")]


def test_a_removed_target_needs_no_more_lines(tmp_path):
    updates = [update(0, "1"), update(0, "2", TrackState.REMOVED), update(1, "1"), update(2, "1")]
    write(tmp_path / "a.jsonl", updates)
    assert resume_point(tmp_path / "a.jsonl", ["1", "2"])[1] == updates


def test_there_is_nothing_to_resume_without_a_file(tmp_path):
    assert resume_point(tmp_path / "none.jsonl", ["1"]) == ([], [])
    (tmp_path / "empty.jsonl").touch()
    assert resume_point(tmp_path / "empty.jsonl", ["1"]) == ([], [])


def test_the_file_of_other_targets_is_refused(tmp_path):
    write(tmp_path / "a.jsonl", [update(0, "7")])
    with pytest.raises(DataError, match="target '7'"):
        resume_point(tmp_path / "a.jsonl", ["1"])


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as error:
        TrackWriter(tmp_path / "file" / "a.jsonl")
    assert error.value.code == "TRACKS_WRITE"


def test_a_full_disk_is_said(tmp_path):
    class FullDisk(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    writer = TrackWriter(tmp_path / "a.jsonl")
    writer.close()
    writer._file = FullDisk()
    with pytest.raises(DataError, match="No space left on device") as error:
        writer.write(update(0), 640, 480)
    assert error.value.code == "TRACKS_WRITE"


@pytest.mark.parametrize(
    "change",
    [
        {"frame": -1}, {"frame": 1.0}, {"frame": True}, {"frame": None}, {"frame": 10**400}, {"stamp_ns": "0"},
        {"target": ""}, {"target": 1}, {"target": None}, {"score": 2}, {"score": float("nan")}, {"score": True},
        {"score": None}, {"score": "1"}, {"state": "tracked"}, {"state": None}, {"state": []}, {"state": "LOST"},
        {"box": [0, 0, 1]}, {"box": [0, 0, 1, 1, 1]}, {"box": [0, 0, 0, 0]}, {"box": [1, 1, 0, 0]},
        {"box": [0, 0, 1, float("inf")]}, {"box": ["0", 0, 1, 1]}, {"box": [0, 0, 64, 48]}, {"box": 3},
        {"box": {}}, {"box": None}, {"box": [0, 0, 10**400, 1]}, {"box": [False, 0, 1, 1]},
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(change):
    with pytest.raises(DataError) as error:
        parse_track_line(json.dumps({**GOOD, **change}))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("line", ["", "null", "[]", "3", "{", "[" * 9_000, "{}", '{"frame":' * 900, "x" * 20_000])
def test_a_line_that_is_no_track_line_is_refused_shortly(line):
    with pytest.raises(DataError) as error:
        parse_track_line(line)
    assert len(str(error.value)) < 300


def test_more_fields_than_needed_are_fine():
    assert parse_track_line(json.dumps({**GOOD, "box_px": [0, 0, 1, 1], "note": "x"})).box == Box(0, 0, 1, 1)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, JSON)))
def test_any_json_is_a_track_line_or_a_data_error(fields):
    try:
        parse_track_line(json.dumps({**GOOD, **fields}))
    except DataError:
        return


@given(st.text())
def test_any_text_is_a_track_line_or_a_data_error(text):
    try:
        parse_track_line(text)
    except DataError:
        return
