"""All benchmarks by name, and the functions that run and report them for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.description_benchmark import VideoDescription
from elysium_core.evaluation.grounding_benchmark import ImageGrounding
from elysium_core.evaluation.multi_object_benchmark import MultiObjectTracking
from elysium_core.evaluation.question_benchmark import VideoQuestions
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.run_folder import Manifest, open_run, read_manifest
from elysium_core.evaluation.synthetic_benchmark import SyntheticVideo
from elysium_core.evaluation.tracking_benchmark import SingleObjectTracking
from elysium_core.types import PerceptionModel

KINDS: tuple[type[Benchmark], ...] = (
    SingleObjectTracking,
    VideoDescription,
    ImageGrounding,
    VideoQuestions,
    SyntheticVideo,
    MultiObjectTracking,
)
BENCHMARKS = tuple(dict.fromkeys(name for kind in KINDS for name in kind.names))
"""Names of all data sets."""
_MOST_REASONS = 10
ALL_TASKS = tuple(task for kind in KINDS for task in kind.tasks)
"""Tasks on tracking data sets."""


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
    """A benchmark whose annotations were all read once, so that damaged files are found before a long run.

    Attributes:
        benchmark: The benchmark.
        entries: Name of each entry -> its number of frames.
        ranks: This process among all processes of the run.
    """

    benchmark: Benchmark
    entries: dict[str, int]
    ranks: Ranks

    @property
    def share(self) -> int:
        """Number of entries that this process answers."""
        return len(list(self.ranks.share(self.entries)))

    def execute(self, model: PerceptionModel, model_name: str, folder: Path) -> Iterator[str]:
        """Answer the entries that have no answer yet; yield the name of each entry of this process.

        Args:
            model: The model to evaluate.
            model_name: Its name, as on the command line.
            folder: The run folder.

        Raises:
            ConfigError: The run folder holds another run.
            DataError: A result file of an earlier run does not fit.
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
            left_out=self.benchmark.left_out,
            **self.benchmark.settings(model),
        )
        open_run(folder, manifest)
        yield from self.benchmark.run(model, folder, self.ranks)


def prepare(request: EvalRequest, ranks: Ranks | None = None) -> PreparedRun:
    """Read all annotations of a benchmark once. Damaged entries are left out; ``benchmark.left_out`` names them.

    Raises:
        DataError: The files are missing, or no entry can be used; the message names file and line.
        ConfigError: A name is unknown, or the data set has no such split.
    """
    benchmark = open_benchmark(request)
    entries: dict[str, int] = {}
    for name, frames in benchmark.entries():
        if name in entries:
            raise DataError(f"two entries of {request.benchmark} are called {name!r}; rename one")
        entries[name] = frames
    if not entries and (reasons := benchmark.left_out):
        others = f"; {len(reasons) - 1} more entries cannot be used either" if len(reasons) > 1 else ""
        raise DataError(reasons[0] + others)
    if not entries:
        raise DataError(f"split {benchmark.split!r} of {request.benchmark} is empty in {str(request.data)!r}")
    return PreparedRun(benchmark, entries, ranks or Ranks())


def make_report(folder: Path, protocols: Sequence[str] = ()) -> Report:
    """Report a run of any kind from its folder.

    Raises:
        DataError: The folder holds no run, or a file of it is damaged.
        ConfigError: A protocol is unknown.
    """
    manifest = read_manifest(folder)
    _require_entries(folder, manifest)
    return _with_left_out(_kind_of(folder, manifest).report(folder, protocols), manifest.left_out)


def make_reports(folders: Sequence[Path], out: Path, protocols: Sequence[str] = ()) -> Iterator[tuple[Path, Report]]:
    """Report one run or several: in one comparison if their kind has one, else each in its own report.

    Args:
        folders: Run folders.
        out: Folder for a comparison.
        protocols: For tracking: protocols to score by; those of the first run if empty.

    Yields:
        The folder to write each report to, and the report.

    Raises:
        DataError: A folder holds no run, or a file of it is damaged.
        ConfigError: A protocol is unknown, or the runs are not over the same recordings.
    """
    kinds = {_kind_of(folder, read_manifest(folder)) for folder in folders}
    compared = kinds.pop().compare(folders, out, protocols) if len(kinds) == 1 and len(folders) > 1 else None
    if compared is not None:
        reasons = dict.fromkeys(reason for folder in folders for reason in read_manifest(folder).left_out)
        yield out, _with_left_out(compared, tuple(reasons))
        return
    for folder in folders:
        yield folder, make_report(folder, protocols)


def _require_entries(folder: Path, manifest: Manifest) -> None:
    if not manifest.entries and manifest.left_out:
        raise DataError(
            f"none of the {len(manifest.left_out)} entries of the run in {str(folder)!r} could be used; the first: "
            f"{manifest.left_out[0]}"
        )


def _with_left_out(report: Report, reasons: Sequence[str]) -> Report:
    """Return a report that names the damaged entries that are not in its figures."""
    if not reasons:
        return report
    more = f" ... and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
    warning = f"Damaged entries are left out, the figures are those of the others: {'; '.join(reasons[:_MOST_REASONS])}"
    facts = {**report.facts, "Left out": str(len(reasons))}
    scores = {**report.scores, "left_out": list(reasons)}
    return replace(report, facts=facts, warnings=[warning + more, *report.warnings], scores=scores)


def unanswered(folder: Path) -> int:
    """Return how many entries of a run have no answer yet, over all processes."""
    manifest = read_manifest(folder)
    return len(manifest.entries) - len(_kind_of(folder, manifest).answered(folder, manifest))


def _kind_of(folder: Path, manifest: Manifest) -> type[Benchmark]:
    kinds = {kind.kind: kind for kind in KINDS}
    if manifest.kind not in kinds:
        raise DataError(
            f"{str(folder)!r} holds a run of unknown kind {manifest.kind!r}; it needs another version of elysium"
        )
    return kinds[manifest.kind]
