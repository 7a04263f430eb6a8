from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import av
import numpy as np
import pytest

from elysium_core.errors import DataError
from elysium_core.frames import Frame
from elysium_core.io import files
from elysium_core.io.files import atomic_path, is_same_file, publish
from elysium_core.io.image import write_image
from elysium_core.io.render import open_writer
from elysium_core.io.tracks import TrackWriter, read_tracks
from elysium_core.types import TrackState, TrackUpdate

UPDATE = TrackUpdate("1", 0, None, 0.0, TrackState.LOST)


def test_the_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("content")
        assert not (tmp_path / "new" / "a.txt").exists()
        assert temporary.suffix == ".txt"
    assert (tmp_path / "new" / "a.txt").read_text() == "content"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_failure_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def write_and_fail(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        temporary.write_text(str(1 // 0))


def write_text(path):
    with atomic_path(path) as temporary:
        temporary.write_text("content")


def write_picture(path):
    write_image(path, np.zeros((8, 8, 3), np.uint8))


def write_animation(path):
    with open_writer(path, 10.0) as writer:
        for index in range(2):
            writer.write(Frame(np.full((16, 16, 3), 90 * index, np.uint8), index * 100_000_000, index))


def write_lines(path):
    with TrackWriter(path) as writer:
        writer.write(UPDATE, 64, 48)


# Every kind of writer, each with an ending that it accepts.
WRITERS = [
    (write_text, "a.txt"), (write_picture, "a.png"), (write_animation, "a.mp4"), (write_animation, "a.gif"),
    (write_animation, "a.jpg"), (write_lines, "a.jsonl"),
]  # fmt: skip
every_writer = pytest.mark.parametrize(("write", "name"), WRITERS, ids=lambda value: getattr(value, "__name__", value))


@every_writer
def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path, write, name):
    (tmp_path / "far").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "far" / f"new-{name}")  # there is no such file yet
    for _ in range(2):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "far" / f"new-{name}").stat().st_size > 0
    assert len(list(tmp_path.rglob("*"))) == 3


@every_writer
def test_permissions_of_a_file_are_kept(tmp_path, write, name):
    (tmp_path / name).touch()
    for mode in (0o600, 0o664):
        (tmp_path / name).chmod(mode)
        write(tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
        assert (tmp_path / name).stat().st_size > 0


@every_writer
def test_a_pipe_is_written_into(tmp_path, write, name):
    os.mkfifo(tmp_path / name)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / name).read_bytes()), daemon=True)
    reader.start()
    write(tmp_path / name)
    reader.join(timeout=10)
    assert received[0]
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1


@every_writer
def test_a_device_is_written_into(tmp_path, write, name):
    # A link to the device: a writer that replaced its output would replace the link only.
    (tmp_path / name).symlink_to("/dev/null")
    write(tmp_path / name)
    assert (tmp_path / name).is_symlink()
    assert stat.S_ISCHR((tmp_path / name).stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@every_writer
def test_a_device_is_never_replaced(tmp_path, write, name):
    try:
        os.mknod(tmp_path / name, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (tmp_path / name).read_bytes()
    except PermissionError:
        pytest.skip("this container makes no devices")
    write(tmp_path / name)
    assert stat.S_ISCHR((tmp_path / name).stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_disk_is_refused(tmp_path):
    try:
        os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(1, 15))
    except PermissionError:
        pytest.skip("this container makes no devices")
    with pytest.raises(OSError, match="it is a disk"):
        write_text(tmp_path / "disk")
    assert stat.S_ISBLK((tmp_path / "disk").stat().st_mode)


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path):
        pytest.fail("the block must not run")
    with pytest.raises(DataError, match="it is a folder"):
        TrackWriter(tmp_path)


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        write_text(tmp_path / "a")


def test_a_file_that_is_a_mount_point_is_written_into(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("an old and longer content")
    node = path.stat().st_ino

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(files.os, "replace", busy)
    write_text(path)
    assert (path.read_text(), path.stat().st_ino) == ("content", node)
    assert len(list(tmp_path.iterdir())) == 1


def test_standard_output_that_goes_to_a_file_is_written_into(tmp_path):
    code = "from elysium_core.io.files import atomic_path\nprint('before', flush=True)\n"
    code += "with atomic_path('/dev/stdout') as t: t.write_text('content')"
    with (tmp_path / "out.txt").open("ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        node = os.fstat(out.fileno()).st_ino
    assert (tmp_path / "out.txt").stat().st_ino == node
    assert "content" in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("name", ["12:30:45", "file:a", "concat:a|b", "%03d", "a?b", "-a", "ä 🦊"])
@pytest.mark.parametrize("ending", [".mp4", ".gif", ".png"])
def test_any_name_can_be_written_and_read(tmp_path, monkeypatch, name, ending):
    monkeypatch.chdir(tmp_path)
    write_animation(files.Path(name + ending))
    assert [path.name for path in tmp_path.iterdir()] == [name + ending]
    with av.open(f"file:{name}{ending}", options={"pattern_type": "none"}) as container:
        assert container.streams.video


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("红" * 83 + "ab.txt")  # 255 bytes
    write_text(path)
    assert path.read_text() == "content"


def test_one_file_is_known_by_all_its_names(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    (tmp_path / "b").write_text("a")
    known = [
        n for n in ("a", "link", "hard", "b", "no") if is_same_file(tmp_path / n, [tmp_path / "no", tmp_path / "a"])
    ]
    assert known == ["a", "link", "hard"]


def test_a_draft_of_another_file_system_is_published(tmp_path, monkeypatch):
    (tmp_path / "draft").write_text("content")

    def other(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "replace", other)
    publish(tmp_path / "draft", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_track_lines_reach_a_pipe_one_by_one(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with subprocess.Popen(["cat", tmp_path / "a.jsonl"], stdout=subprocess.PIPE) as cat:
        writer = TrackWriter(tmp_path / "a.jsonl")
        writer.write(UPDATE, 64, 48)
        assert cat.stdout is not None
        assert b'"LOST"' in cat.stdout.readline()
        writer.close()


def test_lines_behind_a_link_are_read_again(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    write_lines(tmp_path / "a.jsonl")
    assert read_tracks(tmp_path / "b.jsonl") == [UPDATE]
