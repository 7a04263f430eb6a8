"""Every benchmark by name, and a run from its name to its report: what the command line calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.description_benchmark import VideoDescription
from elysium_core.evaluation.grounding_benchmark import ImageGrounding
from elysium_core.evaluation.question_benchmark import VideoQuestions
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.run_folder import Manifest, Ranks, open_run, read_manifest
from elysium_core.evaluation.synthetic_benchmark import SyntheticVideo
from elysium_core.evaluation.tracking_benchmark import SingleObjectTracking
from elysium_core.types import PerceptionModel

KINDS: tuple[type[Benchmark], ...] = (
    SingleObjectTracking,
    VideoDescription,
    ImageGrounding,
    VideoQuestions,
    SyntheticVideo,
)
BENCHMARKS = tuple(dict.fromkeys(name for kind in KINDS for name in kind.names))
"""Every data set by name."""
ALL_TASKS = tuple(task for kind in KINDS for task in kind.tasks)
"""What can be asked about a tracking data set."""


def open_benchmark(request: EvalRequest) -> Benchmark:
    """Return the benchmark that a request names.

    Raises:
        ConfigError: A name is unknown, or the request does not fit the benchmark.
    """
    if request.benchmark not in BENCHMARKS:
        raise ConfigError(f"benchmark {request.benchmark!r} is not one of {', '.join(BENCHMARKS)}")
    if request.task not in ALL_TASKS:
        raise ConfigError(f"task {request.task!r} is not one of {', '.join(ALL_TASKS)}")
    fitting = (kind for kind in KINDS if request.benchmark in kind.names)
    return next(kind for kind in fitting if not kind.tasks or request.task in kind.tasks)(request)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A benchmark whose annotations were read once, so that damage shows before hours of work.

    Attributes:
        benchmark: The benchmark.
        entries: Name of each entry -> its number of frames.
        ranks: Which of how many processes this is.
    """

    benchmark: Benchmark
    entries: dict[str, int]
    ranks: Ranks

    @property
    def share(self) -> int:
        """Number of entries that fall to this process."""
        return len(list(self.ranks.share(self.entries)))

    def execute(self, model: PerceptionModel, model_name: str, folder: Path) -> Iterator[str]:
        """Answer what has no answer yet; yield the name of each entry of this process.

        Args:
            model: Answers.
            model_name: As asked for.
            folder: The run folder.

        Raises:
            ConfigError: The run folder holds another run.
            DataError: A frame or an entry is damaged.
        """
        request = self.benchmark.request
        manifest = Manifest(
            kind=self.benchmark.kind,
            benchmark=request.benchmark,
            split=self.benchmark.split,
            model=model_name,
            zoom=request.zoom,
            limit=request.limit,
            data=str(request.data or ""),
            device=asdict(model.info),
            entries=self.entries,
            **self.benchmark.settings(model),
        )
        open_run(folder, manifest)
        yield from self.benchmark.run(model, folder, self.ranks)


def prepare(request: EvalRequest, ranks: Ranks | None = None) -> PreparedRun:
    """Read all annotations of a benchmark once.

    Raises:
        DataError: Something is missing or damaged; the message names file and line.
        ConfigError: A name is unknown, or the data set has no such split.
    """
    benchmark = open_benchmark(request)
    entries: dict[str, int] = {}
    for name, frames in benchmark.entries():
        if name in entries:
            raise DataError(f"two entries of {request.benchmark} are called {name!r}; rename one")
        entries[name] = frames
    if not entries:
        raise DataError(f"split {benchmark.split!r} of {request.benchmark} is empty in {str(request.data)!r}")
    return PreparedRun(benchmark, entries, ranks or Ranks())


def make_report(folder: Path, protocols: Sequence[str] = ()) -> Report:
    """Report a run of any kind from its folder.

    Raises:
        DataError: The folder holds no run, or a file of it is damaged.
        ConfigError: A protocol is unknown.
    """
    return _kind_of(folder, read_manifest(folder)).report(folder, protocols)


def make_reports(folders: Sequence[Path], out: Path, protocols: Sequence[str] = ()) -> Iterator[tuple[Path, Report]]:
    """Report one run or several: side by side where their kind can be compared, else each alone.

    Args:
        folders: Run folders.
        out: Where a comparison goes.
        protocols: For tracking: rules to score by; those the first run was asked for if empty.

    Yields:
        Reports, and the folder that each belongs in.

    Raises:
        DataError: A folder holds no run, or a file of it is damaged.
        ConfigError: A protocol is unknown, or the runs are not over the same recordings.
    """
    kinds = {_kind_of(folder, read_manifest(folder)) for folder in folders}
    compared = kinds.pop().compare(folders, out, protocols) if len(kinds) == 1 and len(folders) > 1 else None
    if compared is not None:
        yield out, compared
        return
    for folder in folders:
        yield folder, make_report(folder, protocols)


def unanswered(folder: Path) -> int:
    """Return how many entries of a run have no answer yet, whichever process they fall to."""
    manifest = read_manifest(folder)
    return len(manifest.entries) - len(_kind_of(folder, manifest).answered(folder, manifest))


def _kind_of(folder: Path, manifest: Manifest) -> type[Benchmark]:
    kinds = {kind.kind: kind for kind in KINDS}
    if manifest.kind not in kinds:
        raise DataError(
            f"{str(folder)!r} holds a run of unknown kind {manifest.kind!r}; it needs another version of elysium"
        )
    return kinds[manifest.kind]
