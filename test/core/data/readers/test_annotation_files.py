"""Boxes, flags and JSON lines: every separator that occurs, and every line that must be refused by number."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.readers.annotation_files import (
    iterate_json_objects,
    read_boxes,
    read_flags,
    read_json,
    read_text,
)
from elysium_core.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\n5\t6\t7\t8",
        "1 2  3 4\n5   6 7 8\n\n",
        "1, 2,\t3, 4\r\n5,6,7,8\r\n",
        "1;2;3;4\n5;6;7;8",
        "1.0,2.0,3.0,4.0,\n5,6,7,8,\n",  # a comma at the end of the line
        "\ufeff1,2,3,4\n5,6,7,8\n",
    ],
)
def test_boxes_with_any_separator(write, text):
    assert read_boxes(write("gt.txt", text)).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("nan", ["NaN,NaN,NaN,NaN", "nan nan nan nan", "NAN\tNaN\tnan\tNaN"])
def test_four_times_nan_is_an_absent_target(write, nan):
    boxes = read_boxes(write("gt.txt", f"1,2,3,4\n{nan}\n"))
    assert np.isnan(boxes[1]).all()


@pytest.mark.parametrize(
    "line",
    [
        "1,2,3",
        "1,2,3,4,5",
        "1,,3,4",
        "a,b,c,d",
        "1,2,NaN,4",
        "1,2,inf,4",
        "1,2,-3,4",
        "1_0,2,3,4",
        "",
    ],
)
def test_a_bad_line_is_named_with_file_and_number(write, line):
    path = write("some/gt.txt", f"1,2,3,4\n{line}\n5,6,7,8\n")
    with pytest.raises(DataError, match=r"line 2 of '.*some/gt\.txt'") as caught:
        read_boxes(path)
    assert caught.value.code == "DATA"


def test_a_negative_size_is_taken_as_no_size_where_a_published_set_writes_it(write):
    path = write("gt.txt", "1,2,3,4\n1,1,-1,-1\n5,6,7,-8\n")
    assert read_boxes(path, negative_is_empty=True).tolist() == [[1, 2, 3, 4], [1, 1, 0, 0], [5, 6, 7, 0]]


def test_an_overlong_line_is_not_printed_whole(write):
    with pytest.raises(DataError) as caught:
        read_boxes(write("gt.txt", "x" * 10_000))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_boxes_is_refused(write, text):
    with pytest.raises(DataError, match="holds no boxes"):
        read_boxes(write("gt.txt", text))


def test_missing_files_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_text(tmp_path / "no.txt")
    (tmp_path / "bin.txt").write_bytes(b"1,2,\xff\xfe,4")
    with pytest.raises(DataError, match="UTF-8"):
        read_boxes(tmp_path / "bin.txt")


@given(st.binary(max_size=200))
def test_any_bytes_give_boxes_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "gt.txt"
    path.write_bytes(content)
    try:
        boxes = read_boxes(path)
    except DataError:
        return
    assert boxes.ndim == 2
    assert boxes.shape[1] == 4
    assert not np.isinf(boxes).any()


@pytest.mark.parametrize("text", ["0,0,1,8", "0\n0\n1\n8\n", "0 0 1 8 \n", "0,0,1,8,\n"])
def test_flags_in_one_line_or_one_a_line(write, text):
    assert read_flags(write("cover.label", text), 4).tolist() == [0, 0, 1, 8]


def test_flags_of_wrong_number_or_kind(write):
    with pytest.raises(DataError, match="2 flags for 3 frames"):
        read_flags(write("a.txt", "0,1"), 3)
    with pytest.raises(DataError, match=r"line 2 of .* holds 'x'"):
        read_flags(write("b.txt", "0\nx\n"), 2)
    with pytest.raises(DataError, match=r"'0\.5'"):
        read_flags(write("c.txt", "0.5"), 1)


def test_json_lines_are_numbered_as_in_the_file(write):
    path = write("a.json", '{"k": 1}\n\n{"k": 2}\n')
    assert list(iterate_json_objects(path)) == [(1, {"k": 1}), (3, {"k": 2})]


def test_json_lines_are_streamed(write):
    # The damage is behind the first object, which must be out before it is seen.
    lines = iterate_json_objects(write("a.json", '{"k": 1}\n{"k": \n'))
    assert next(lines) == (1, {"k": 1})
    with pytest.raises(DataError, match=r"line 2 of '.*a\.json'"):
        next(lines)


def test_one_json_list_is_accepted_too(write):
    path = write("a.json", json.dumps([{"k": 1}, {"k": 2}], indent=1))
    assert [item["k"] for _, item in iterate_json_objects(path)] == [1, 2]


def test_a_line_that_is_no_object_is_refused(write):
    with pytest.raises(DataError, match=r"line 1 of .* is a JSON int"):
        list(iterate_json_objects(write("a.json", "7\n")))
    with pytest.raises(DataError, match=r"item 2 of .* is a JSON str"):
        list(iterate_json_objects(write("b.json", '[{}, "x"]')))


def test_deeply_nested_json_is_an_error_not_a_crash(write):
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(write("a.json", "[" * 100_000))
