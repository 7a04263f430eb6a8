"""Every protocol against a slow scorer, written frame by frame from each toolkit's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.protocols import PROTOCOLS, get_protocol
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.scoring import BASELINES, run_baseline, score_benchmark, score_recording

NAN = float("nan")
GONE = [NAN] * 4


def make(predicted, truth, absent=None, size=(320, 240), **more):
    truth = np.asarray(truth, dtype=float)
    flags = np.zeros(len(truth), bool) if absent is None else np.asarray(absent, bool)
    return TrackResult("r", np.asarray(predicted, dtype=float), truth, flags, size, **more)


def random_result(seed, *, holes=True, size=(320, 240)):
    """Integer boxes with everything that is special: absences, empty boxes, missing answers."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    truth = np.column_stack([rng.integers(0, 200, (count, 2)), rng.integers(1, 110, (count, 2))]).astype(float)
    predicted = truth + np.round(rng.normal(0, 1, (count, 4)) * rng.choice([0, 2, 8, 40], (count, 1)))
    predicted[:, 2:] = np.maximum(predicted[:, 2:], 0)
    absent = rng.random(count) < 0.15
    if holes:
        truth[rng.random(count) < 0.1] = NAN
        truth[rng.random(count) < 0.1, 2] = 0
        predicted[rng.random(count) < 0.1] = NAN
    truth[0], absent[0] = [10, 20, 30, 40], False
    return make(predicted, truth, absent, size)


def iou(a, b):
    if any(math.isnan(v) for v in (*a, *b)):
        return 0.0
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inside = width * height if width > 0 and height > 0 else 0.0
    union = a[2] * a[3] + b[2] * b[3] - inside
    return inside / union if union > 0 else 0.0


def errors(a, b):
    """Centre error in px and normalised; infinite where undefined."""
    dx, dy = (a[0] + a[2] / 2) - (b[0] + b[2] / 2), (a[1] + a[3] / 2) - (b[1] + b[3] / 2)
    if math.isnan(dx) or math.isnan(dy):
        return math.inf, math.inf
    norm = math.hypot(dx / b[2], dy / b[3]) if b[2] > 0 and b[3] > 0 else math.inf
    return math.hypot(dx, dy), norm


def curves(frames, denominator):
    # Multiples of 0.05 as floating point has them (3 * 0.05 > 0.15), like every toolkit.
    success = [sum(f[0] > k * 0.05 for f in frames) / denominator for k in range(21)]
    pixels = [sum(f[1] <= k for f in frames) / denominator for k in range(51)]
    norm = [sum(f[2] <= k / 100 for f in frames) / denominator for k in range(51)]
    return sum(success) / 21, pixels[20], norm[20]


def repeat_empty(predicted):
    rows = [list(row) for row in predicted]
    for t in range(1, len(rows)):
        if rows[t][2] <= 0 or rows[t][3] <= 0:
            rows[t] = list(rows[t - 1])
    return rows


def slow_lasot(result):
    """Absent frames leave the numerators; a visible frame without a legal box is an error of -1."""
    predicted, truth = repeat_empty(result.predicted_xywh_px), result.truth_xywh_px.tolist()
    predicted[0] = truth[0]
    frames = []
    for t, box in enumerate(truth):
        if result.absent[t] or math.isnan(box[0]):
            continue
        legal = box[0] + 1 > 0 and box[1] + 1 > 0 and box[2] > 0 and box[3] > 0
        frames.append((iou(predicted[t], box), *errors(predicted[t], box)) if legal else (-1, -1, -1))
    return curves(frames, len(truth))


def slow_pytracking(result):
    predicted, truth = repeat_empty(result.predicted_xywh_px), result.truth_xywh_px.tolist()
    predicted[0] = truth[0]
    frames = []
    for t, box in enumerate(truth):
        if math.isnan(box[0]):
            frames.append((-1, -1, -1))
        elif result.absent[t]:
            frames.append((-1, math.inf, math.inf))
        elif min(box[2:]) <= 0:
            frames.append((-1, math.inf, -1))
        else:
            frames.append((iou(predicted[t], box), *errors(predicted[t], box)))
    return curves(frames, len(truth))


def slow_otb(result):
    predicted, truth = result.predicted_xywh_px.tolist(), result.truth_xywh_px.tolist()
    predicted[0] = truth[0]
    pairs = zip(predicted, truth, strict=True)
    frames = [(iou(p, b), *errors(p, b)) for p, b in pairs]
    auc, precision, _ = curves(frames, len(truth))
    return auc, precision, None


def slow_trackingnet(result):
    predicted = [[round(v) if v == v else v for v in row] for row in result.predicted_xywh_px.tolist()]
    truth = [[round(v) if v == v else v for v in row] for row in result.truth_xywh_px.tolist()]
    predicted[0] = truth[0]
    frames = []
    for p, b in zip(predicted, truth, strict=True):
        frames.append((-1, math.inf, math.inf) if math.isnan(b[0]) else (iou(p, b), *errors(p, b)))
    count = len(frames)
    success = [sum(f[0] >= k * 0.05 for f in frames) / count for k in range(21)]
    pixels = [sum(f[1] <= k * 2.5 for f in frames) / count for k in range(21)]
    norm = [sum(f[2] <= k / 40 for f in frames) / count for k in range(21)]
    return tuple(sum((c[k] + c[k + 1]) / 2 / 20 for k in range(20)) for c in (success, pixels, norm))


def slow_reference(result):
    width, height = result.frame_size

    def text(box):
        corners = (box[0] / width, box[1] / height, (box[0] + box[2]) / width, (box[1] + box[3]) / height)
        return [round(v * 100) for v in corners]

    def clamped(box):
        x1, y1, x2, y2 = box[0] * width / 100, box[1] * height / 100, box[2] * width / 100, box[3] * height / 100
        return [min(max(v, 1), 100) for v in (x1, y1, x2 - x1, y2 - y1)]

    answers = [clamped(text(b)) for b in result.predicted_xywh_px.tolist() if not math.isnan(b[0])]
    answers += [[0, 0, 0, 0]] * (result.frame_count - len(answers))
    truth = [[0, 0, 0, 0] if math.isnan(b[0]) else text(b) for b in result.truth_xywh_px.tolist()]
    frames = []
    for answer, true in zip(answers, truth, strict=True):
        b = clamped(true)
        # The scorer's numbers are single, its thresholds double precision.
        frames.append(tuple(float(np.float32(v)) for v in (iou(answer, b), *errors(answer, b))))
    return curves(frames, len(frames))


SLOW = {
    "ope-lasot": slow_lasot,
    "ope-pytracking": slow_pytracking,
    "ope-otb": slow_otb,
    "ope-trackingnet": slow_trackingnet,
    "elysium-ref": slow_reference,
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", SLOW)
def test_one_recording_equals_the_slow_scorer(name, seed):
    # A frame of 100 x 100 px keeps the reference's rescaled text free of rounding at the thresholds.
    result = random_result(seed, size=(100, 100) if name == "elysium-ref" else (320, 240))
    scores = score_recording(result, PROTOCOLS[name])
    expected = SLOW[name](result)
    for got, want in zip((scores.auc, scores.precision, scores.norm_precision), expected, strict=True):
        assert got == (want if want is None else pytest.approx(want, abs=1e-12))


@pytest.mark.parametrize("seed", range(6))
def test_got10k_pools_the_frames_of_all_recordings(seed):
    results = [random_result(10 * seed + k) for k in range(3)]
    width, height = results[0].frame_size

    def bounded(box):
        x, y = min(max(box[0], 0), width), min(max(box[1], 0), height)
        return [x, y, min(max(box[2], 0), width - x), min(max(box[3], 0), height - y)]

    pooled = []
    for result in results:
        rows = zip(result.predicted_xywh_px.tolist(), result.truth_xywh_px.tolist(), result.absent, strict=True)
        for t, (p, b, absent) in enumerate(rows):
            if t > 0 and not absent and not math.isnan(b[0]):
                pooled.append(0.0 if math.isnan(p[0]) else iou(bounded(p), bounded(b)))
    scores = score_benchmark(results, PROTOCOLS["ope-got10k"])
    assert scores.average_overlap == pytest.approx(sum(pooled) / len(pooled))
    assert scores.success_50 == pytest.approx(sum(v > 0.5 for v in pooled) / len(pooled))
    assert scores.success_75 == pytest.approx(sum(v > 0.75 for v in pooled) / len(pooled))
    assert scores.frames == len(pooled)
    assert scores.auc is scores.precision is scores.norm_precision is None


@pytest.mark.parametrize(
    ("name", "ceiling"),
    [
        ("ope-lasot", (95.24, 100, 100)),
        ("ope-pytracking", (95.24, 100, 100)),
        ("ope-otb", (95.24, 100, None)),
        ("ope-trackingnet", (100, 100, 100)),
        ("elysium-ref", (95.24, 100, 100)),
    ],
)
def test_the_ceiling_of_each_protocol_without_absences(name, ceiling):
    # Hundredths of this frame are whole pixels: in single precision, too, equal boxes overlap by 1 and not more.
    result = random_result(3, holes=False, size=(400, 300))
    result = make(result.truth_xywh_px, result.truth_xywh_px, size=result.frame_size)
    scores = score_benchmark([result], PROTOCOLS[name])
    got = [v if v is None else round(100 * v, 2) for v in (scores.auc, scores.precision, scores.norm_precision)]
    assert got == list(ceiling)


def test_a_perfect_tracker_loses_absent_frames_under_the_lasot_rules():
    truth = np.tile([10.0, 10, 20, 20], (10, 1))
    result = make(truth, truth, absent=[0] * 9 + [1])
    scores = score_recording(result, PROTOCOLS["ope-lasot"])
    assert scores.auc == pytest.approx(0.9 * 20 / 21)
    assert scores.precision == scores.norm_precision == scores.norm_precision_mean == pytest.approx(0.9)
    assert score_recording(result, PROTOCOLS["ope-otb"]).auc == pytest.approx(20 / 21)
    assert score_recording(result, PROTOCOLS["ope-got10k"]).frames == 8


def test_a_true_box_without_area_counts_as_a_hit_in_precision_but_not_in_success():
    truth = [[10, 10, 20, 20], [10, 10, 0, 0]]
    far = [[10, 10, 20, 20], [300, 200, 5, 5]]
    lasot = score_recording(make(far, truth), PROTOCOLS["ope-lasot"])
    assert (lasot.precision, lasot.norm_precision, lasot.success_50) == (1.0, 1.0, 0.5)
    pytracking = score_recording(make(far, truth), PROTOCOLS["ope-pytracking"])
    assert (pytracking.precision, pytracking.norm_precision) == (0.5, 1.0)


def test_nan_truth_is_a_hit_in_precision_for_pytracking_and_a_miss_for_lasot():
    result = make([[10, 10, 20, 20]] * 2, [[10, 10, 20, 20], GONE])
    assert score_recording(result, PROTOCOLS["ope-pytracking"]).precision == 1.0
    assert score_recording(result, PROTOCOLS["ope-lasot"]).precision == 0.5


def test_a_box_at_the_left_edge_is_legal_in_data_that_counts_from_zero():
    scores = score_recording(make([[0, 0, 9, 9]], [[0, 0, 9, 9]]), PROTOCOLS["ope-lasot"])
    assert scores.auc == pytest.approx(20 / 21)


def test_missing_answers_fail_and_the_first_frame_is_forced_only_if_its_box_was_given():
    truth = [[10, 10, 20, 20]] * 4
    sot = score_recording(make([GONE] * 4, truth), PROTOCOLS["ope-lasot"])
    rsot = score_recording(make([GONE] * 4, truth, first_box_given=False), PROTOCOLS["ope-lasot"])
    assert (sot.success_50, rsot.success_50) == (0.25, 0.0)
    assert rsot.precision == rsot.norm_precision == rsot.auc == 0.0


def test_a_missing_recording_scores_zero_and_is_never_skipped():
    truth = np.tile([10.0, 10, 20, 20], (5, 1))
    protocol = PROTOCOLS["ope-lasot"]
    scores = score_benchmark([make(truth, truth)], protocol, missing={"other": 5})
    assert scores.auc == pytest.approx(10 / 21)
    assert scores.frames == 10


def test_pooling_weighs_a_missing_recording_by_its_frames():
    truth = np.tile([10.0, 10, 20, 20], (6, 1))
    scores = score_benchmark([make(truth, truth)], PROTOCOLS["ope-got10k"], missing={"long": 15})
    assert scores.average_overlap == pytest.approx(5 / 20)


def test_truth_of_first_boxes_only_cannot_be_scored():
    result = make([[1, 1, 5, 5]] * 2, [[1, 1, 5, 5], GONE], first_box_only=True)
    assert score_benchmark([result], PROTOCOLS["ope-lasot"]) is None


class TestReferenceDefects:
    """Each defect of the released scorer: reproduced by elysium-ref, absent from ope-lasot."""

    def test_the_clamp_makes_far_boxes_equal(self):
        # All values over 100 px become 100: a box that never moves is "perfect".
        truth = [[200, 200, 300, 300], [800, 600, 150, 110], [500, 350, 200, 120]]
        result = make([truth[0]] * 3, truth, size=(1280, 720))
        reference = score_recording(result, PROTOCOLS["elysium-ref"])
        right = score_recording(result, PROTOCOLS["ope-lasot"])
        assert reference.auc == pytest.approx(20 / 21)
        assert reference.precision == 1.0
        assert right.precision == pytest.approx(1 / 3)

    def test_the_truth_is_the_rounded_text(self):
        truth = [[10.4, 10.4, 20, 20]]
        result = make([[10, 10, 20, 20]], truth, size=(100, 100), first_box_given=False)
        assert score_recording(result, PROTOCOLS["elysium-ref"]).average_overlap == 1.0
        assert score_recording(result, PROTOCOLS["ope-lasot"]).average_overlap < 0.97

    def test_recordings_without_a_box_are_skipped(self):
        truth = [[10, 10, 20, 20]] * 2
        results = [make(truth, truth, size=(100, 100)), make([GONE] * 2, truth, size=(100, 100))]
        assert score_benchmark(results, PROTOCOLS["elysium-ref"]).auc == pytest.approx(20 / 21)
        assert score_benchmark(results, PROTOCOLS["ope-lasot"]).auc == pytest.approx(0.75 * 20 / 21)

    def test_the_first_frame_is_not_forced(self):
        result = make([[60, 60, 20, 20]], [[10, 10, 20, 20]], size=(100, 100))
        assert score_recording(result, PROTOCOLS["elysium-ref"]).auc == 0.0
        assert score_recording(result, PROTOCOLS["ope-lasot"]).auc == pytest.approx(20 / 21)

    def test_one_missing_answer_moves_all_later_ones(self):
        truth = [[10 * k, 10, 8, 20] for k in range(1, 7)]
        predicted = [truth[0], GONE, *truth[2:]]
        result = make(predicted, truth, size=(100, 100))
        assert score_recording(result, PROTOCOLS["elysium-ref"]).success_50 == pytest.approx(1 / 6)
        assert score_recording(result, PROTOCOLS["ope-lasot"]).success_50 == pytest.approx(5 / 6)

    def test_it_is_marked_as_not_comparable(self):
        assert [name for name, protocol in PROTOCOLS.items() if not protocol.comparable] == ["elysium-ref"]


class TestBaselines:
    def test_frozen_repeats_the_first_true_box_also_when_it_comes_late(self):
        result = make([GONE] * 3, [GONE, [5, 6, 7, 8], [50, 60, 7, 8]])
        assert BASELINES["frozen"](result).tolist() == [[5, 6, 7, 8]] * 3

    def test_centre_ignores_the_video(self):
        result = make([GONE] * 2, [[5, 6, 7, 8]] * 2, size=(640, 480))
        assert BASELINES["centre"](result).tolist() == [[160, 120, 320, 240]] * 2

    def test_rounded_is_the_truth_in_hundredths(self):
        result = make([GONE], [[3.2, 3.2, 32, 24]], size=(320, 240))
        assert BASELINES["rounded"](result)[0] == pytest.approx([3.2, 2.4, 32, 24])

    def test_their_order_on_a_moving_target(self):
        truth = [[10 + 4 * k, 10 + 2 * k, 40, 50] for k in range(40)]
        results = [make([GONE] * 40, truth)]
        protocol = PROTOCOLS["ope-lasot"]
        auc = {name: score_benchmark(run_baseline(name, results), protocol).auc for name in BASELINES}
        assert auc["perfect"] == pytest.approx(20 / 21)
        assert auc["perfect"] > auc["rounded"] > 0.8 > 0.5 > auc["frozen"]


def test_an_unknown_protocol_is_refused_with_the_list():
    with pytest.raises(ConfigError, match="'ope-vot' is not one of ope-lasot"):
        get_protocol("ope-vot")


def test_arrays_of_different_length_are_refused():
    with pytest.raises(DataError, match="one row for each frame"):
        make([[1, 1, 2, 2]], [[1, 1, 2, 2]] * 2)
