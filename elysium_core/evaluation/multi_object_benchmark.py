"""Multi-object tracking: all objects of the annotated names are found and followed, and scored by HOTA, IDF1, MOTA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elysium_core.data.readers.mot import CrowdRecording, read_mot
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.answer_log import answer_missing, read_answers
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.multi_object_scores import CrowdFigures, Tracks, score_tracks
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.follow import follow_recording
from elysium_core.tracking.multi_object import ALL_OBJECTS, MultiObjectTracker
from elysium_core.types import PerceptionModel, TrackState

MOT = "mot"
_COLUMNS = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "recall", "precision", "switches", "objects", "tracks")


class MultiObjectTracking(Benchmark):
    """All objects of the annotated names in sequences in the layout of MOT17."""

    kind = "multi-object"
    names = (MOT,)

    def __init__(self, request: EvalRequest) -> None:
        super().__init__(request)
        if request.mode != "stream":
            raise ConfigError(f"benchmark {MOT!r} follows in mode 'stream', not {request.mode!r}")
        self._config = TrackingConfig(
            max_targets=ALL_OBJECTS.max_targets,
            remove_after_s=ALL_OBJECTS.remove_after_s,
            clip_length=request.clip_length,
            zoom=request.zoom,
            score_threshold=ALL_OBJECTS.score_threshold if request.score_threshold is None else request.score_threshold,
        )

    @property
    def split(self) -> str:
        """There are no splits: the folder of one is given."""
        return ""

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each sequence and its number of frames."""
        yield from ((each.name, each.frames.count) for each in self._recordings())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the settings of the tracker."""
        config = self._config.resolved(model.info.clip_length)
        return {
            "task": "all objects",
            "mode": "stream",
            "clip_length": config.clip_length,
            "score_threshold": config.score_threshold,
        }

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Follow everything in each sequence that has no answer yet; yield its name."""
        make = getattr(model, "tracker_of_all", None)
        if make is None:
            raise ConfigError(f"the model {model.info.name!r} finds nothing by names, which {MOT!r} needs", code="MODE")
        yield from answer_missing(
            folder,
            ranks,
            self._recordings(),
            lambda each: each.name,
            lambda each: follow_crowd(each, make(list(each.names.values()), self._config), model),
        )

    @staticmethod
    def report(folder: Path, _protocols: Sequence[str] = (), /) -> Report:
        """Report the scores of all sequences together, and of each."""
        return multi_object_report(folder)

    def _recordings(self) -> Iterator[CrowdRecording]:
        for number, each in enumerate(read_mot(self.data, self.skip)):
            if self.request.limit is not None and number >= self.request.limit:
                return
            yield each


def follow_crowd(recording: CrowdRecording, tracker: MultiObjectTracker, model: PerceptionModel) -> dict[str, Any]:
    """Follow all objects of a recording.

    Args:
        recording: The recording.
        tracker: A new tracker of its names.
        model: Says how it calls these names.

    Returns:
        The record for the answer file: boxes found and true ones, as lines of frame, id, x1, y1, x2, y2 [px], by name.
    """
    spoken = {number: model.clean_words(name) for number, name in recording.names.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in spoken.values()}
    sizes: dict[int, tuple[int, int]] = {}
    seconds, frames = 0.0, 0
    for step in follow_recording(tracker, recording.frames, lambda _: None):
        seconds += step.seconds
        if step.frame is None:
            continue
        frames += 1
        sizes[step.frame.index] = step.frame.width, step.frame.height
        for update in step.updates:
            if update.state is TrackState.TRACKED and update.box is not None and update.name in found:
                box = [round(value, 2) for value in update.box.to_px(step.frame.width, step.frame.height)]
                found[update.name].append([update.frame_index, int(update.target_id), *box])
    return {"frames": frames, "seconds": round(seconds, 3), "found": found, **_truth(recording, spoken, sizes)}


def _truth(
    recording: CrowdRecording, spoken: dict[int, str], sizes: dict[int, tuple[int, int]]
) -> dict[str, dict[str, list[list[float]]] | list[list[float]]]:
    """True boxes by name, cut to their frames as a tracker's are, and those that do not count."""
    truth: dict[str, list[list[float]]] = {name: [] for name in spoken.values()}
    ignored: list[list[float]] = []
    for index, (x, y, w, h) in enumerate(recording.boxes_xywh_px):
        frame = int(recording.frame[index])
        width, height = sizes[frame]
        box = [max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)]
        line = [frame, int(recording.object_id[index]), *(round(float(value), 2) for value in box)]
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        if recording.counts[index]:
            truth[spoken[int(recording.class_id[index])]].append(line)
        else:
            ignored.append(line)
    return {"truth": truth, "ignored": ignored}


def multi_object_report(folder: Path) -> Report:
    """Score the answers of a run.

    Raises:
        DataError: There is no answer yet.
        BackendError: ``trackeval`` is not installed (``PACKAGE_MISSING``).
    """
    manifest = read_manifest(folder)
    answers = read_answers(folder, "answers")
    records = {name: answers[name] for name in manifest.entries if name in answers}
    if not records:
        raise DataError(f"{str(folder)!r} holds no answer yet; run elysium eval {MOT} first")
    each = {name: score_tracks(_tracks(name, record)) for name, record in records.items()}
    everything = {key: tracks for name, record in records.items() for key, tracks in _tracks(name, record).items()}
    total = score_tracks(everything)
    frames, seconds = (sum(record[key] for record in records.values()) for key in ("frames", "seconds"))
    missing = len(manifest.entries) - len(records)
    rows = [[f"{manifest.model}, all", *_cells(total)], *([name, *_cells(figures)] for name, figures in each.items())]
    return Report(
        title=f"{manifest.model} follows all objects of {len(records)} recordings",
        facts={
            "Protocol": "HOTA, IDF1 and MOTA of trackeval; boxes of state TRACKED; ids start with the first sure box",
            "Recordings": f"{len(records)} of {len(manifest.entries)}",
            "Model": ", ".join(f"{key} {value}" for key, value in manifest.device.items()),
            "Speed": f"{frames / seconds:.1f} frames per second" if seconds else "-",
            "Version": manifest.version,
        },
        warnings=[f"{missing} recordings have no answer yet and are left out."] if missing else [],
        tables=[Table("All objects", ["[%]", *_COLUMNS], rows)],
        scores={
            "all": _numbers_of(total),
            "recordings": {name: _numbers_of(figures) for name, figures in each.items()},
        },
    )


def _tracks(name: str, record: dict[str, Any]) -> dict[str, Tracks]:
    return {
        f"{name}/{words}": Tracks(record["frames"], record["truth"][words], record["ignored"], found)
        for words, found in record["found"].items()
    }


def _cells(figures: CrowdFigures) -> list[str]:
    shares = (getattr(figures, name) for name in _SHARES)
    return [*map(percent, shares), *(str(getattr(figures, name)) for name in _COUNTS)]


def _numbers_of(figures: CrowdFigures) -> dict[str, float]:
    return {name: round(getattr(figures, name), 5) for name in (*_SHARES, *_COUNTS)}


_SHARES = ("hota", "detection", "association", "idf1", "mota", "recall", "precision")
_COUNTS = ("switches", "objects", "tracks")
