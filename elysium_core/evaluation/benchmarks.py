"""One benchmark run from its name to its report: what the command line calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS, get_tracking_benchmark
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.data.readers.refcoco import SPLITS as REFCOCO_SPLITS
from elysium_core.data.readers.refcoco import read_refcoco
from elysium_core.data.readers.video_qa import READERS as QA_READERS
from elysium_core.data.readers.video_qa import read_video_qa
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation import answering, describing, expression_benchmark, synthetic_run
from elysium_core.evaluation.answer_files import AnswerLog, read_answers
from elysium_core.evaluation.metrics import Ranks
from elysium_core.evaluation.protocols import DEFAULT_PROTOCOL, get_protocol
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.results import result_path
from elysium_core.evaluation.run_folder import Manifest, open_run, read_manifest
from elysium_core.evaluation.synthetic_scores import synthetic_report
from elysium_core.evaluation.tracking_report import tracking_report
from elysium_core.evaluation.tracking_run import TASKS, TrackingTask, run_recordings
from elysium_core.evaluation.zoomed import ZoomedModel
from elysium_core.types import RANGES, PerceptionModel, TrackingConfig

TRACKING = "tracking"
BENCHMARKS = (*TRACKING_BENCHMARKS, *REFCOCO_SPLITS, *QA_READERS)
"""Every benchmark by name."""
ALL_TASKS = (*TASKS, "video-reg")
"""What can be asked about a tracking data set."""


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What the user asked for.

    Attributes:
        benchmark: One of :data:`BENCHMARKS`.
        data: Folder of the data set.
        out: Run folder.
        model_name: As asked for.
        split: Split of the data set, empty for its usual one.
        task: For tracking data sets ``sot``, ``rsot`` or ``video-reg``; ignored elsewhere.
        words: See :class:`TrackingTask`.
        mode: Tracking mode.
        score_threshold: Score below which a box is not sure; None = 0 in clip mode, where the paper
            takes every box, and the usual one in stream mode, where a robot would not.
        zoom: Whether models look closer (tracking in stream mode, grounding, descriptions).
        protocols: Tracking protocols to report; the default one if empty.
        limit: Entries at most, None for all.
        frames: Frames shown to the model for descriptions and questions, None for the usual number.
        ranks: Which of how many processes this is.

    Raises:
        ConfigError: A name is unknown.
    """

    benchmark: str
    data: Path
    out: Path
    model_name: str
    split: str = ""
    task: str = "sot"
    words: str = "description"
    mode: str = "stream"
    score_threshold: float | None = None
    zoom: bool = False
    protocols: tuple[str, ...] = ()
    limit: int | None = None
    frames: int | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        if self.benchmark not in BENCHMARKS:
            raise ConfigError(f"benchmark {self.benchmark!r} is not one of {', '.join(BENCHMARKS)}")
        if self.task not in ALL_TASKS:
            raise ConfigError(f"task {self.task!r} is not one of {', '.join(ALL_TASKS)}")
        if self.zoom and self.kind == answering.KIND:
            raise ConfigError("zoom is for tracking, grounding and descriptions; questions are about whole pictures")
        if self.kind == TRACKING:
            TrackingTask(self.task, self.words)
            self.tracking_config(TrackingConfig().clip_length)
            for name in self.protocols:
                get_protocol(name)

    @property
    def kind(self) -> str:
        """Which kind of run it is."""
        if self.benchmark in REFCOCO_SPLITS:
            return expression_benchmark.KIND
        if self.benchmark in QA_READERS:
            return answering.KIND
        return describing.KIND if self.task == "video-reg" else TRACKING

    @property
    def real_split(self) -> str:
        """The split asked for, or the data set's usual one."""
        if self.split:
            return self.split
        if self.benchmark in TRACKING_BENCHMARKS:
            return get_tracking_benchmark(self.benchmark).default_split
        return "val" if self.benchmark in REFCOCO_SPLITS else "test"

    def tracking_config(self, clip_length: int) -> TrackingConfig:
        """Return the settings of the tracker, for a model that was trained on clips of this length."""
        usual = 0.0 if self.mode == "clip" else TrackingConfig().score_threshold
        shortest, longest = (int(value) for value in RANGES["clip_length"])
        return TrackingConfig(
            mode=self.mode,
            clip_length=min(max(clip_length, shortest), longest),
            # One target, and never removed: a recording is scored to its end.
            max_targets=1,
            remove_after_s=0.0,
            score_threshold=usual if self.score_threshold is None else self.score_threshold,
            zoom=self.zoom,
        )

    @property
    def shown_frames(self) -> int | None:
        """Frames shown with each question, None where whole recordings or single images are."""
        usual = {answering.KIND: answering.FRAMES, describing.KIND: describing.FRAMES}
        return (self.frames or usual[self.kind]) if self.kind in usual else None

    def recordings(self) -> Iterator[LabelledRecording]:
        """Read the recordings of a tracking data set, up to the limit."""
        return islice(get_tracking_benchmark(self.benchmark).read(self.data, self.real_split), self.limit)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run whose data were read once, so that damage shows before hours of work.

    Attributes:
        request: What was asked for.
        entries: Name of each entry -> its number of frames.
    """

    request: EvalRequest
    entries: dict[str, int]

    @property
    def share(self) -> int:
        """Number of entries that fall to this process."""
        return len(list(self.request.ranks.share(self.entries)))

    def execute(self, model: PerceptionModel) -> Iterator[str]:
        """Answer what has no answer yet; yield a note after each entry of this process.

        Raises:
            ConfigError: The run folder holds another run.
            DataError: A frame or an entry is damaged.
        """
        request = self.request
        if request.zoom:
            model = ZoomedModel(model)
        open_run(request.out, _manifest(self, model))
        if request.kind == TRACKING:
            yield from _execute_tracking(request, model)
            return
        with AnswerLog(request.out, "answers", request.ranks.rank) as log:
            yield from _item_runner(request, model, log)


def prepare(request: EvalRequest) -> PreparedRun:
    """Read all annotations of a benchmark once.

    Raises:
        DataError: Something is missing or damaged; the message names file and line.
        ConfigError: The data set has no such split.
    """
    entries: dict[str, int] = {}
    for name, frames in _list_entries(request):
        if name in entries:
            raise DataError(f"two entries of {request.benchmark} are called {name!r}; rename one")
        entries[name] = frames
    if not entries:
        raise DataError(f"split {request.real_split!r} of {request.benchmark} is empty in {str(request.data)!r}")
    return PreparedRun(request, entries)


def make_report(folder: Path, protocols: tuple[str, ...] = ()) -> Report:
    """Report a run of any kind from its folder.

    Raises:
        DataError: The folder holds no run, or a file of it is damaged.
    """
    kind = read_manifest(folder).kind
    if kind == TRACKING:
        return tracking_report(folder, protocols)
    reporters: dict[str, Callable[[Path], Report]] = {
        expression_benchmark.KIND: expression_benchmark.grounding_report,
        describing.KIND: describing.describing_report,
        answering.KIND: answering.questions_report,
        synthetic_run.KIND: synthetic_report,
    }
    if kind not in reporters:
        raise DataError(f"{str(folder)!r} holds a run of unknown kind {kind!r}; it needs another version of elysium")
    return reporters[kind](folder)


def unanswered(folder: Path) -> int:
    """Return how many entries of a run have no answer yet, whichever process they fall to."""
    manifest = read_manifest(folder)
    if manifest.kind == TRACKING:
        return sum(not result_path(folder, name).is_file() for name in manifest.entries)
    return len(manifest.entries.keys() - read_answers(folder, "answers").keys())


def _list_entries(request: EvalRequest) -> Iterator[tuple[str, int]]:
    if request.kind == expression_benchmark.KIND:
        samples = read_refcoco(request.data, request.benchmark, request.real_split)
        yield from ((sample.sample_id, 1) for sample in islice(samples, request.limit))
    elif request.kind == answering.KIND:
        items = read_video_qa(request.data, request.benchmark, request.real_split)
        yield from ((item.question_id, 1) for item in islice(items, request.limit))
    else:
        task = TrackingTask(request.task, request.words) if request.kind == TRACKING else None
        for recording in request.recordings():
            if task is not None:
                task.check(recording)
            yield recording.name, recording.frame_count


def _manifest(run: PreparedRun, model: PerceptionModel) -> Manifest:
    request = run.request
    tracking = request.kind == TRACKING
    tasks = {expression_benchmark.KIND: "rec", answering.KIND: "ask"}
    return Manifest(
        kind=request.kind,
        benchmark=request.benchmark,
        split=request.real_split,
        model=request.model_name,
        task=tasks.get(request.kind, request.task),
        words=request.words if tracking else "",
        mode=request.mode if tracking else "",
        score_threshold=request.tracking_config(model.info.clip_length).score_threshold if tracking else None,
        zoom=request.zoom,
        protocols=(request.protocols or (DEFAULT_PROTOCOL,)) if tracking else (),
        limit=request.limit,
        frames=request.shown_frames,
        data=str(request.data),
        device=asdict(model.info),
        entries=run.entries,
    )


def _execute_tracking(request: EvalRequest, model: PerceptionModel) -> Iterator[str]:
    config = request.tracking_config(model.info.clip_length)
    mine = request.ranks.share(request.recordings())
    task = TrackingTask(request.task, request.words)
    for result in run_recordings(mine, lambda: model.tracker(mode=request.mode, config=config), task, request.out):
        yield "" if result is None else result.name


def _item_runner(request: EvalRequest, model: PerceptionModel, log: AnswerLog) -> Iterable[str]:
    share = request.ranks.share
    if request.kind == expression_benchmark.KIND:
        samples = islice(read_refcoco(request.data, request.benchmark, request.real_split), request.limit)
        return expression_benchmark.run_grounding(share(samples), model, request.data, log)
    if request.kind == answering.KIND:
        items = islice(read_video_qa(request.data, request.benchmark, request.real_split), request.limit)
        return answering.run_questions(share(items), model, log, request.shown_frames or answering.FRAMES)
    return describing.run_descriptions(
        share(request.recordings()), model, log, request.shown_frames or describing.FRAMES
    )
