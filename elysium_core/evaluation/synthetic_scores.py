"""Scores of the frozen test set, computed from the answer records of a run by pure functions.

Every score is given for the model and for baselines without a model: a random object of
the scene (true boxes, mean over all objects), the copied first box, a fixed box in the
middle, and the truth rounded to the precision of text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from elysium_core.data.synthetic.testset import SHORTEST_ABSENCE, SIDE_PX
from elysium_core.evaluation.metrics import Floats, xyxy_to_xywh
from elysium_core.evaluation.protocols import DEFAULT_PROTOCOL, get_protocol
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.scoring import centre, frozen, rounded, score_recording
from elysium_core.geometry import pairwise_iou

Record = Mapping[str, Any]
ByObjects = dict[str, float]
"""Number of objects in the scene (``"1"``, ``"2"`` ... and ``"all"``) -> a score 0..1."""
Figures = dict[str, dict[str, ByObjects]]
"""Name of the score -> model or baseline -> score by number of objects."""

MODEL = "model"
_CENTRE_BOX = (0.25, 0.25, 0.75, 0.75)
_DOUBTFUL = {"UNCERTAIN", "LOST", "REMOVED"}


class _Means:
    """Return the means of values, by number of objects and over all clips."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, objects: int, value: float) -> None:
        self._values[str(objects)].append(value)

    def result(self) -> ByObjects:
        figures = {key: float(np.mean(self._values[key])) for key in sorted(self._values)}
        everything = [value for values in self._values.values() for value in values]
        return figures | {"all": float(np.mean(everything))} if everything else {}


def score_stills(records: Iterable[Record]) -> Figures:
    """Return the REC and REG scores of single frames.

    Returns:
        ``REC Acc@0.5``, ``REC right object`` (the box's centre is nearer to the target's
        than to any other object's) and ``REG exact name``.
    """
    accuracy: dict[str, _Means] = defaultdict(_Means)
    right: dict[str, _Means] = defaultdict(_Means)
    named = _Means()
    for record in records:
        objects = len(record["names"])
        for still in record.get("stills", ()):
            truth = np.asarray([track[still["frame"]] for track in record["boxes"]])
            target = still["target"]
            answers = {MODEL: [still["box"]], "random object": list(truth), "fixed centre": [_CENTRE_BOX]}
            for who, boxes in answers.items():
                accuracy[who].add(objects, float(np.mean([_overlap(box, truth[target]) >= 0.5 for box in boxes])))
                right[who].add(objects, float(np.mean([nearest(box, truth) == target for box in boxes])))
            named.add(objects, float(is_name(still["answer"], record["names"][target], _color(record, target))))
    return _figures({"REC Acc@0.5": accuracy, "REC right object": right}) | {"REG exact name": {MODEL: named.result()}}


def score_video_reg(records: Iterable[Record]) -> Figures:
    """Return the score ``Video-REG exact name``."""
    named = _Means()
    for record in records:
        if answer := record.get("video_reg"):
            target = answer["target"]
            exact = is_name(answer["answer"], record["names"][target], _color(record, target))
            named.add(len(record["names"]), float(exact))
    return {"Video-REG exact name": {MODEL: named.result()}}


def score_tracks(records: Iterable[Record], task: str) -> Figures:
    """Return the success AUC (default protocol), the share of frames on the right object, and of frames with a box.

    Args:
        records: Clips.
        task: ``sot`` or ``rsot``.
    """
    protocol = get_protocol(DEFAULT_PROTOCOL)
    auc: dict[str, _Means] = defaultdict(_Means)
    right, answered = _Means(), _Means()
    for record in records:
        side_px = record.get("side_px", SIDE_PX)
        for track in (track for track in record.get("tracks", ()) if track["task"] == task):
            objects, truth = len(record["names"]), np.asarray(record["boxes"], np.float64)
            result = _as_result(track, truth, side_px)
            rivals: dict[str, Sequence[Floats]] = {
                MODEL: [result.predicted_xywh_px],
                "copied first box": [frozen(result)],
                "random object": [_to_px(boxes, side_px) for boxes in truth],
                "fixed centre": [centre(result)],
                "truth as text": [rounded(result)],
            }
            for who, answers in rivals.items():
                scores = [score_recording(result.with_predictions(boxes), protocol) for boxes in answers]
                auc[who].add(objects, float(np.mean([s.auc for s in scores if s is not None and s.auc is not None])))
            right.add(objects, _right_share(track, truth, task))
            answered.add(objects, float(np.mean([box is not None for box in track["boxes"]])))
    name = task.upper()
    shares = {f"{name} right object": {MODEL: right.result()}, f"{name} frames with a box": {MODEL: answered.result()}}
    return _figures({f"{name} AUC": auc}) | shares


def score_words(records: Iterable[Record]) -> Figures:
    """Return the scores for expressions with name, colour, size and place, where two objects may share a name.

    Returns:
        ``REC Acc@0.5 by <kind>`` and ``REC right object by <kind>``, with the baselines *random
        object* and *any of that name* (mean over the objects with the target's name);
        ``REG exact name``; and ``REG colour, too``: among the objects with a colour word, the
        share whose description has both the colour and the name.
    """
    accuracy: dict[str, dict[str, _Means]] = defaultdict(lambda: defaultdict(_Means))
    right: dict[str, _Means] = defaultdict(_Means)
    named, colored = _Means(), _Means()
    for record in records:
        names, objects = record["names"], len(record["names"])
        for still in record.get("stills", ()):
            truth = np.asarray([track[still["frame"]] for track in record["boxes"]])
            target = still["target"]
            color = _color(record, target)
            if "kind" not in still:
                named.add(objects, float(is_name(still["answer"], names[target], color)))
                if color:
                    colored.add(objects, float(is_name(still["answer"], f"{color} {names[target]}")))
                continue
            namesakes = [box for name, box in zip(names, truth, strict=True) if name == names[target]]
            answers = {MODEL: [still["box"]], "random object": list(truth), "any of that name": namesakes}
            for who, boxes in answers.items():
                hits = [_overlap(box, truth[target]) >= 0.5 for box in boxes]
                accuracy[f"REC Acc@0.5 by {still['kind']}"][who].add(objects, float(np.mean(hits)))
            right[f"REC right object by {still['kind']}"].add(objects, float(nearest(still["box"], truth) == target))
    figures = _figures(dict(sorted(accuracy.items()))) | {
        name: {MODEL: means.result()} for name, means in sorted(right.items())
    }
    return figures | {"REG exact name": {MODEL: named.result()}, "REG colour, too": {MODEL: colored.result()}}


def score_absence(records: Iterable[Record]) -> Figures:
    """Return the share of targets marked UNCERTAIN or LOST in the tenth frame without them.

    Returns:
        ``absent from the start``: for a name that is not in the clip; ``gone later``: for an
        object that disappears, among those that were tracked until then; and ``followed
        until it was gone``: the share of objects that were tracked until then.
    """
    absent, gone, followed = _Means(), _Means(), _Means()
    for record in records:
        objects = len(record["names"])
        if track := record.get("absent"):
            absent.add(objects, float(track["states"][SHORTEST_ABSENCE - 1] in _DOUBTFUL))
        for track in record.get("tracks", ()):
            first_gone = _gone_from(record["visible"][track["target"]])
            if first_gone is None:
                continue
            is_followed = track["states"][first_gone - 1] not in _DOUBTFUL
            followed.add(objects, float(is_followed))
            if is_followed:
                gone.add(objects, float(track["states"][first_gone + SHORTEST_ABSENCE - 1] in _DOUBTFUL))
    means = {"absent from the start": absent, "gone later": gone, "followed until it was gone": followed}
    return {name: {MODEL: mean.result()} for name, mean in means.items()}


def score_all(records: Sequence[Record]) -> dict[str, Figures]:
    """Return all scores, by part of the test set."""
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[record["part"]].append(record)
    seen, vanishing, words, small = (parts[f"test{name}"] for name in ("", "-vanishing", "-words", "-small"))
    scores = {
        "test": score_stills(seen) | score_video_reg(seen) | score_tracks(seen, "sot") | score_tracks(seen, "rsot"),
        "test-unseen": score_tracks(parts["test-unseen"], "sot"),
        "small": score_stills(small) | score_tracks(small, "sot") | score_tracks(small, "rsot") | score_absence(small),
        "words": score_words(words) | score_tracks(words, "rsot"),
        "absence": score_absence([*seen, *vanishing]),
    }
    return {part: {name: by for name, by in figures.items() if any(by.values())} for part, figures in scores.items()}


def nearest(box: Sequence[float] | None, truth_xyxy: Floats) -> int | None:
    """Return the index of the object whose centre is nearest to the centre of a box; None without a box.

    Objects without a box (all zeros) are absent and are skipped.
    """
    if box is None:
        return None
    centres = (truth_xyxy[:, :2] + truth_xyxy[:, 2:]) / 2
    distance = np.hypot(*(centres - (np.asarray(box[:2]) + np.asarray(box[2:])) / 2).T)
    return int(np.where(truth_xyxy[:, 2] > truth_xyxy[:, 0], distance, np.inf).argmin())


def is_name(answer: str, name: str, color: str | None = None) -> bool:
    """Return whether an answer is exactly a name; article, the colour of the object and full stop are optional."""
    said = answer.strip().rstrip(".").lower().removeprefix("the ").strip()
    return said == name.lower() or (color is not None and said == f"{color} {name.lower()}")


def _color(record: Record, target: int) -> str | None:
    """Return the colour word of an object; None in records of older versions."""
    colors: Sequence[str | None] = record.get("colors", ())
    return colors[target] if colors else None


def _figures(tables: Mapping[str, Mapping[str, _Means]]) -> Figures:
    return {name: {who: means.result() for who, means in table.items()} for name, table in tables.items()}


def _overlap(box: Sequence[float] | None, truth: Floats) -> float:
    return 0.0 if box is None else float(pairwise_iou([box], [truth])[0])


def _to_px(boxes_xyxy: Floats, side_px: int) -> Floats:
    return xyxy_to_xywh(boxes_xyxy * side_px)


def _as_result(track: Record, truth: Floats, side_px: int) -> TrackResult:
    missing = [float("nan")] * 4
    predicted = np.asarray([missing if box is None else box for box in track["boxes"]], np.float64)
    return TrackResult(
        name="",
        predicted_xywh_px=_to_px(predicted, side_px),
        truth_xywh_px=_to_px(truth[track["target"]], side_px),
        absent=np.zeros(len(predicted), bool),
        frame_size=(side_px, side_px),
        first_box_given=track["task"] == "sot",
    )


def _right_share(track: Record, truth: Floats, task: str) -> float:
    # The first box of a SOT track is given, so it is not scored.
    first = 1 if task == "sot" else 0
    hits = [nearest(box, truth[:, t]) == track["target"] for t, box in enumerate(track["boxes"]) if t >= first]
    return float(np.mean(hits))


def _gone_from(visible: Sequence[float]) -> int | None:
    """Return the first frame of the final absence, if it is long enough and the object was visible before."""
    seen = [t for t, value in enumerate(visible) if value > 0]
    if not seen or len(visible) - 1 - seen[-1] < SHORTEST_ABSENCE:
        return None
    return seen[-1] + 1
