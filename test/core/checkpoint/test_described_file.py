from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.checkpoint.integrity import described_file, description_path, read_description, stale_reason

MADE_FROM = {"weights": "abc", "tokens": 6}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "vision.onnx"
    with described_file(path, MADE_FROM) as temporary:
        temporary.write_bytes(b"a graph")
    return path


def test_a_file_is_current_as_long_as_its_description_holds(file):
    assert file.read_bytes() == b"a graph"
    assert read_description(file) == MADE_FROM
    assert stale_reason(file, MADE_FROM) == stale_reason(file, {"tokens": 6}) == stale_reason(file, {}) == ""
    assert sorted(path.name for path in file.parent.iterdir()) == ["vision.onnx", "vision.onnx.json"]


def test_what_changed_is_named(file):
    reason = stale_reason(file, {"weights": "abd", "tokens": 6, "opset": 18})
    assert reason == f"{file} is stale: weights is 'abc', not 'abd', opset is None, not 18"


def test_no_file_no_description_and_a_damaged_file_are_named(file, tmp_path):
    assert stale_reason(tmp_path / "x.onnx", {}) == f"there is no file {tmp_path / 'x.onnx'}"
    file.write_bytes(b"a grapf")
    assert "is damaged" in stale_reason(file, MADE_FROM)
    description_path(file).unlink()
    assert description_path(file).name in stale_reason(file, MADE_FROM)


def test_a_run_that_fails_changes_nothing(file):
    def write():
        with described_file(file, {"weights": "new"}) as temporary:
            temporary.write_bytes(b"half a gra")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert stale_reason(file, MADE_FROM) == ""
    assert len(list(file.parent.iterdir())) == 2


def test_a_run_that_is_killed_before_the_description_leaves_a_stale_file(file):
    old = description_path(file).read_bytes()
    with described_file(file, MADE_FROM) as temporary:
        temporary.write_bytes(b"another graph")
    description_path(file).write_bytes(old)
    assert "is damaged" in stale_reason(file, MADE_FROM)


@given(content=st.binary() | st.recursive(st.text() | st.integers(), st.lists).map(lambda value: repr(value).encode()))
def test_a_description_that_is_none_is_never_believed(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "v.onnx"
    path.write_bytes(b"a graph")
    description_path(path).write_bytes(content)
    assert stale_reason(path, {}) != ""
