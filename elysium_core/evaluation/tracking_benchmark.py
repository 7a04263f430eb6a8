"""Single object tracking benchmark: SOT (the first box is given) and RSOT (words are given)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from elysium_core.data.readers.annotation_files import usable
from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS, get_tracking_benchmark
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import DataError
from elysium_core.evaluation.answer_log import left_out_log, require_some
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.protocols import default_protocol, get_protocol
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.results import (
    RESULT_FOLDER,
    TrackResult,
    read_result,
    result_path,
    same_rows,
    write_result,
)
from elysium_core.evaluation.run_folder import Manifest
from elysium_core.evaluation.track_recording import TASKS, TrackingTask, track_recording
from elysium_core.evaluation.tracking_report import TRACKING, comparison_report, tracking_report
from elysium_core.settings import TrackingConfig
from elysium_core.types import PerceptionModel


class SingleObjectTracking(Benchmark):
    """SOT and RSOT on one data set, with one result file per recording."""

    kind = TRACKING
    names = tuple(TRACKING_BENCHMARKS)
    tasks = TASKS

    def __init__(self, request: EvalRequest) -> None:
        super().__init__(request)
        self.task = TrackingTask(request.task, request.words)
        self._config = TrackingConfig(
            mode=request.mode,
            clip_length=request.clip_length,
            # One target that is never removed, because a recording is scored to its end.
            max_targets=1,
            remove_after_s=0.0,
            score_threshold=_score_threshold(request),
            zoom=request.zoom,
        )
        for name in request.protocols:
            get_protocol(name)

    @property
    def split(self) -> str:
        """The requested split, or the default of the data set; empty if it has no splits."""
        return self.request.split or get_tracking_benchmark(self.request.benchmark).default_split

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each recording and its number of frames."""
        yield from ((recording.name, recording.frame_count) for recording in self._recordings())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the task, the settings of the tracker and the protocols."""
        config = self._resolved(model)
        return {
            "task": self.task.task,
            "words": self.task.words,
            "mode": config.mode,
            "score_threshold": config.score_threshold,
            "clip_length": config.clip_length,
            "protocols": self.request.protocols or (default_protocol(self.request.benchmark),),
        }

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Track every recording that has no result yet; yield its name."""
        config = self._resolved(model)
        with left_out_log(folder, ranks.rank) as left_out:
            for recording in ranks.share(self._recordings()):
                if (path := result_path(folder, recording.name)).is_file():
                    _require_same_truth(read_result(path), recording, path)
                else:
                    tracker = model.tracker(mode=config.mode, config=config)
                    try:
                        write_result(folder, track_recording(recording, tracker, self.task))
                    except DataError as error:
                        left_out.append(recording.name, {"reason": str(error)})
                yield recording.name
            require_some(left_out, any((folder / RESULT_FOLDER).glob("*.json")))

    @staticmethod
    def report(folder: Path, protocols: Sequence[str] = (), /) -> Report:
        """Score a run and the baselines, and draw the plots."""
        return tracking_report(folder, protocols)

    @staticmethod
    def compare(folders: Sequence[Path], out: Path, protocols: Sequence[str] = (), /) -> Report:
        """Score several runs and the baselines, and draw the plots."""
        return comparison_report(folders, out, protocols)

    @staticmethod
    def answered(folder: Path, manifest: Manifest) -> Collection[str]:
        """Return the recordings that have a result file."""
        return {name for name in manifest.entries if result_path(folder, name).is_file()}

    def _recordings(self) -> Iterable[LabelledRecording]:
        data_set = get_tracking_benchmark(self.request.benchmark)
        recordings = usable(data_set.read(self.data, self.split, self.skip), self.task.checked, self.skip)
        return islice(recordings, self.request.limit)

    def _resolved(self, model: PerceptionModel) -> TrackingConfig:
        return self._config.resolved(model.info.clip_length)


def _score_threshold(request: EvalRequest) -> float:
    if request.score_threshold is not None:
        return request.score_threshold
    return TrackingConfig().score_threshold if request.mode == "stream" else 0.0


def _require_same_truth(result: TrackResult, recording: LabelledRecording, path: Path) -> None:
    if not same_rows(result.truth_xywh_px, recording.boxes_xywh_px):
        raise DataError(
            f"{str(path)!r} was made with other true boxes than {str(recording.truth_file)!r} holds now; "
            "delete it, or choose another --out"
        )
