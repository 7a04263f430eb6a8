"""What the demo counts, and when it says no."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elysium_core.errors import DataError
from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.demo.report import Report, TruthObject, percentile, read_truth, summarize_target


def box_at(x: float) -> Box:
    return Box(x, 0.4, x + 0.2, 0.6)


# The object moves a quarter of its width a frame, and cannot be seen in the last frame.
TRUTH = TruthObject("mug", "the red mug", (*(box_at(0.1 + 0.05 * i) for i in range(6)), None))


def update(index: int, box: Box | None, state: TrackState = TrackState.TRACKED) -> TrackUpdate:
    return TrackUpdate("1", index, box, 1.0, state)


OTHER = TruthObject("cup", "the blue cup", tuple(Box(0.7, 0.0, 0.9, 0.2) for _ in range(7)))


def report_of(updates: list[TrackUpdate], truth: TruthObject | None = TRUTH) -> Report:
    return Report(7, 7, 0, 0.1, 0.2, [summarize_target("1", "the red mug", updates, truth, [OTHER])])


def test_a_target_that_is_followed_passes() -> None:
    report = report_of([update(i, TRUTH.boxes[i]) for i in range(6)])
    assert report.failure == ""
    assert report.targets[0].mean_iou == pytest.approx(1.0)


def test_a_box_that_stands_still_fails() -> None:
    report = report_of([update(i, TRUTH.boxes[0]) for i in range(6)])
    assert report.targets[0].mean_iou == pytest.approx(report.targets[0].frozen_iou)
    assert "no better than a frozen first box" in report.failure


def test_the_wrong_object_fails_and_is_named() -> None:
    report = report_of([update(i, OTHER.boxes[i]) for i in range(6)])
    assert "lies on 'the blue cup': mean IoU 1.000 with that" in report.failure


def test_the_wrong_object_fails_also_when_it_beats_the_frozen_box() -> None:
    # The objects overlap a little, so that lying on the other one is better than standing still at the start.
    near = TruthObject("cup", "the blue cup", tuple(box_at(0.2 + 0.05 * i) for i in range(6)))
    far = TruthObject("mug", "the red mug", tuple(box_at(0.1 + 0.05 * i) for i in range(6)))
    updates = [update(i, near.boxes[i]) for i in range(6)]
    target = summarize_target("1", "the red mug", updates, far, [near])
    assert target.wrong_iou == pytest.approx(1.0)
    assert "lies on 'the blue cup'" in target.failure


def test_a_box_round_everything_fails() -> None:
    # The object leaves its first place for good, so that a frozen box is worth almost nothing.
    gone = TruthObject("mug", "the red mug", (box_at(0.0), *[box_at(0.8)] * 40))
    target = summarize_target("1", "the red mug", [update(i, Box(0, 0, 1, 1)) for i in range(41)], gone)
    assert target.mean_iou > target.frozen_iou
    assert "no better than the whole frame" in target.failure


def test_a_frame_without_a_box_counts_as_a_miss() -> None:
    updates = [update(i, TRUTH.boxes[i]) for i in range(3)] + [update(i, None, TrackState.LOST) for i in range(3, 6)]
    assert report_of(updates).targets[0].mean_iou == pytest.approx(0.5)


def test_only_frames_since_the_target_was_asked_for_count() -> None:
    target = report_of([update(i, TRUTH.boxes[i]) for i in range(4, 6)]).targets[0]
    # From frame 4 to 5 the object moves a quarter of its width: 0.15 of 0.25 remain.
    assert target.frozen_iou == pytest.approx((1.0 + 0.6) / 2)


def test_a_box_where_nothing_can_be_seen_is_counted_apart() -> None:
    target = report_of([update(i, TRUTH.boxes[i] or box_at(0.5)) for i in range(7)]).targets[0]
    assert (target.false_boxes, target.mean_iou) == (1, pytest.approx(1.0))


def test_a_target_that_is_never_tracked_fails_without_truth_too() -> None:
    report = report_of([update(i, None, TrackState.LOST) for i in range(6)], truth=None)
    assert "target 1 ('the red mug') was never tracked" in report.failure


def test_a_tracked_target_passes_without_truth() -> None:
    report = report_of([update(0, box_at(0.5))], truth=None)
    assert report.failure == ""
    assert report.targets[0].mean_iou is None
    assert "IoU" not in report.as_table()


def test_no_target_fails() -> None:
    assert "nothing was tracked" in Report(7, 7, 0, None, None).failure


def test_the_table_names_everything() -> None:
    table = report_of([update(i, TRUTH.boxes[i]) for i in range(6)]).as_table()
    assert "7 sent, 7 answered, 0 dropped for a newer one, 0 lost in transport" in table
    assert "p50 100 ms, p95 200 ms" in table
    assert "the red mug" in table
    assert "1.000" in table


def test_frames_that_nobody_speaks_of_are_lost_and_no_failure() -> None:
    target = summarize_target("1", "the red mug", [update(i, TRUTH.boxes[i]) for i in range(6)], TRUTH)
    report = Report(20, 6, 9, 0.1, 0.2, [target])
    assert (report.lost, report.failure) == (5, "")
    assert report.as_json()["lost"] == 5
    assert "20 sent, 6 answered, 9 dropped for a newer one, 5 lost in transport" in report.as_table()


def test_the_json_holds_the_verdict() -> None:
    data = json.loads(json.dumps(report_of([update(0, TRUTH.boxes[0])]).as_json()))
    assert data["targets"][0]["states"] == {"TRACKED": 1}
    assert "frozen first box" in data["failure"]


def test_percentiles() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([], 50) is None


def test_a_truth_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"objects": [{"name": "a", "expression": "the a", "boxes": [[0, 0, 0.5, 0.5], None]}]}))
    truth = read_truth(path)
    assert (truth.frame_count, truth.objects[0].box_at(0), truth.objects[0].box_at(1)) == (2, Box(0, 0, 0.5, 0.5), None)
    assert truth.objects[0].box_at(99) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"objects": []}',
        '{"objects": [{"name": "a", "expression": "b"}]}',
        '{"objects": [{"name": "a", "expression": "b", "boxes": [[0, 0]]}]}',
        '{"objects": [{"name": "a", "expression": "b", "boxes": [[0.5, 0, 0.2, 1]]}]}',
        (
            '{"objects": [{"name": "a", "expression": "b", "boxes": [null]}, '
            '{"name": "c", "expression": "d", "boxes": []}]}'
        ),
    ],
)
def test_a_damaged_truth_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"truth\.json"):
        read_truth(path)


def test_a_missing_truth_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"truth\.json"):
        read_truth(tmp_path / "truth.json")
