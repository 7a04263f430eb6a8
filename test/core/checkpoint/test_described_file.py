from __future__ import annotations

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.checkpoint.integrity import (
    described_file,
    description_path,
    generated_files,
    read_description,
    stale_reason,
    untrusted_reason,
    write_manifest,
)

MADE_FROM = {"weights": "abc", "tokens": 6}


@pytest.fixture(autouse=True)
def _own_cache(cache):
    """What is made here is not noted in the cache of whoever runs the tests."""


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


# Who vouches for a file.


def test_what_was_made_here_is_trusted_on_this_machine_wherever_it_lies(file, tmp_path, monkeypatch):
    moved = shutil.copytree(file.parent, tmp_path / "moved") / file.name
    assert untrusted_reason(file) == untrusted_reason(moved) == ""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert str(file) in untrusted_reason(file)


@pytest.mark.parametrize(
    "digest", ["", "0" * 64, "../made", "/etc/passwd", ".", "\0", "x" * 5000, None, 7, ["a"], {"a": 1}]
)
def test_a_description_vouches_for_nothing(file, tmp_path, monkeypatch, digest):
    monkeypatch.setattr("elysium_core.checkpoint.integrity._read_json_object", lambda path: {"sha256": digest})
    assert str(file) in untrusted_reason(file)


def test_a_file_in_the_cache_is_trusted_and_one_beside_it_is_not(file, cache, tmp_path):
    shutil.rmtree(cache / "made")
    inside = shutil.copytree(file.parent, cache / "abc-float32") / file.name
    (tmp_path / "evil").symlink_to(cache)
    assert untrusted_reason(inside) == ""
    assert untrusted_reason(cache / ".." / ".." / "folder" / file.name) != ""


def test_the_manifest_of_a_folder_follows_what_is_made_in_it(file, tmp_path):
    manifest = write_manifest(file.parent, [file])
    shutil.rmtree(tmp_path / "cache")
    for content in (b"a new graph", b"a newer graph"):
        with described_file(file, MADE_FROM) as temporary:
            temporary.write_bytes(content)
            assert "vision.onnx" in manifest.read_text()
        shutil.rmtree(tmp_path / "cache")
        assert untrusted_reason(file) == ""
    with described_file(file.with_name("crop.onnx"), MADE_FROM) as temporary:
        temporary.write_bytes(b"a graph of crops")
    assert [line.split("  ")[1] for line in manifest.read_text().splitlines()] == ["crop.onnx", "vision.onnx"]
    assert generated_files(file.parent) == [file.with_name("crop.onnx"), file]


def test_killed_between_file_and_manifest_leaves_a_file_that_no_manifest_contradicts(file, monkeypatch):
    manifest = write_manifest(file.parent, [file])
    monkeypatch.setattr("elysium_core.checkpoint.integrity.description_path", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError), described_file(file, MADE_FROM) as temporary:
        temporary.write_bytes(b"another graph")
    assert file.read_bytes() == b"another graph"
    assert manifest.read_text() == ""


@pytest.mark.parametrize("content", [b"\xff", b"no manifest", b"\0", b"x" * 1000])
def test_a_manifest_of_another_kind_is_left_alone(file, content):
    manifest = file.with_name("SHA256SUMS")
    manifest.write_bytes(content)
    with described_file(file, MADE_FROM) as temporary:
        temporary.write_bytes(b"a graph")
    assert manifest.read_bytes() == content
    assert untrusted_reason(file) == ""


def test_without_a_cache_only_the_manifest_counts(file, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with described_file(file, MADE_FROM) as temporary:
        temporary.write_bytes(b"a graph")
    assert untrusted_reason(file) != ""
    write_manifest(file.parent, [file])
    assert untrusted_reason(file) == ""
