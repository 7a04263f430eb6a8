from __future__ import annotations

import pytest

from elysium_core.curation.captioned_videos import count_videos, read_captions, safe_id
from elysium_core.errors import DataError


def written(tmp_path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_webvids_csv_is_read(tmp_path):
    (tmp_path / "page1").mkdir()
    (tmp_path / "page1" / "21.mp4").touch()
    text = (
        'videoid,contentUrl,duration,page_dir,name\n21,https://x,PT10S,page1,"A dog, running"\n22,,PT3S,page2,A cat\n'
    )
    path = written(tmp_path, "webvid.csv", text)
    first, second = read_captions(path, tmp_path)
    assert (first.vid, first.path, first.caption) == ("21", tmp_path / "page1" / "21.mp4", "A dog, running")
    assert second.path == tmp_path / "page2" / "22.mp4"  # missing; the run says so
    assert count_videos(path) == 2


def test_json_lines_and_plain_csv_are_read(tmp_path):
    lines = '{"video": "a b/c.mp4", "caption": " A  red\\nmug "}\n\n{"id": 7, "text": null}\n'
    first, second = read_captions(written(tmp_path, "c.jsonl", lines), tmp_path)
    assert (first.path, first.caption) == (tmp_path / "a b" / "c.mp4", "A red mug")
    assert (second.vid, second.caption) == ("7", "")
    (plain,) = read_captions(written(tmp_path, "c.csv", "File,Caption\nx.webm,A dog\n"), tmp_path)
    assert (plain.vid, plain.path.name) == ("x", "x.webm")


def test_a_byte_order_mark_and_broken_letters_do_no_harm(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(b"\xef\xbb\xbfvideo,caption\nx.mp4,A caf\xe9 cup\n")
    (video,) = read_captions(path, tmp_path)
    assert video.caption.endswith("cup")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("c.txt", "x", "c.txt"),
        ("c.csv", "a,b\n1,2\n", "a, b"),
        ("c.jsonl", "[1]\n", "line 1"),
        ("c.jsonl", '{"caption": "x"}\n', "line 1"),
        ("c.jsonl", '{"video": "../../etc/passwd", "caption": "x"}\n', "../../etc/passwd"),
        ("c.jsonl", '{"video": "/etc/passwd", "caption": "x"}\n', "/etc/passwd"),
    ],
)
def test_what_names_no_video_is_refused(tmp_path, name, text, named):
    with pytest.raises(DataError) as refused:
        list(read_captions(written(tmp_path, name, text), tmp_path))
    assert named in str(refused.value)


def test_a_bad_line_behind_good_ones_is_named_and_stops_nothing(tmp_path):
    lines = '{"vid": "a", "caption": "x"}\nhalf a li\n{"caption": "x"}\n{"video": "/b", "caption": "x"}\n{"vid": "c"}\n'
    path = written(tmp_path, "c.jsonl", lines)
    videos = list(read_captions(path, tmp_path))
    assert count_videos(path) == len(videos) == len({video.vid for video in videos}) == 5
    assert [bool(video.problem) for video in videos] == [False, True, True, True, False]
    assert "line 2" in videos[1].problem
    assert "'/b'" in videos[3].problem


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError) as refused:
        count_videos(tmp_path / "none.csv")
    assert "none.csv" in str(refused.value)


@pytest.mark.parametrize("vid", ["a/b", "x.y", "", "..", "é" * 9, "a" * 101])
def test_an_id_becomes_a_safe_and_distinct_name(vid):
    name = safe_id(vid)
    assert name != vid
    assert name == safe_id(vid) != safe_id(vid + "!")
    assert set("./") & set(name) == set()
    assert safe_id("-Ab_9") == "-Ab_9"
