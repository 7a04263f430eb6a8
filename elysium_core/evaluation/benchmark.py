"""Base class of benchmarks: list the entries, run a model over them, and report on the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.answer_log import read_answers
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.run_folder import Manifest
from elysium_core.types import PerceptionModel


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """What the user asked to measure.

    Attributes:
        benchmark: Name of a data set; see :data:`elysium_core.evaluation.benchmarks.BENCHMARKS`.
        data: Folder of the data set; None where it is generated.
        split: Split of the data set, empty for its default.
        task: For tracking data sets ``sot``, ``rsot`` or ``video-reg``; ignored elsewhere.
        words: For ``rsot``: ``description`` or ``class``.
        mode: Tracking mode.
        score_threshold: A box with a lower score is UNCERTAIN. None = 0 in clip mode, where every box counts as in
            the paper, and the tracker's default in stream mode.
        clip_length: Most frames the tracker sees at once, 2..32. None = 8 in clip mode, as in the paper, and the
            length of the training clips in stream mode and for models with shorter training clips.
        zoom: Whether the model also sees parts of frames at full resolution (tracking in stream mode, grounding,
            descriptions).
        protocols: Tracking protocols to report; the data set's usual one if empty.
        limit: Maximum number of entries, None for all; for generated video, clips of each part.
        frames: Frames shown to the model for descriptions and questions, None for the default.
    """

    benchmark: str
    data: Path | None = None
    split: str = ""
    task: str = "sot"
    words: str = "description"
    mode: str = "stream"
    score_threshold: float | None = None
    clip_length: int | None = None
    zoom: bool = False
    protocols: tuple[str, ...] = ()
    limit: int | None = None
    frames: int | None = None


class Benchmark(ABC):
    """One kind of benchmark on one data set. A new kind is a subclass in ``benchmarks.KINDS``.

    The report needs the run folder only, so that a run can be scored again without data and model.

    Attributes:
        kind: Name of the kind, as ``run.json`` holds it.
        names: Data sets of this kind, as on the command line.
        tasks: Tasks on these data sets; empty if there is only one.

    Args:
        request: What to measure.

    Raises:
        ConfigError: The request does not fit this kind.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, request: EvalRequest) -> None:
        self.request = request
        self._left_out: dict[str, None] = {}

    def skip(self, error: DataError) -> None:
        """Leave an entry out: note the reason, which names it."""
        self._left_out[str(error)] = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Why each entry that cannot be used is left out, as found by :meth:`entries`."""
        return tuple(self._left_out)

    @property
    def data(self) -> Path:
        """Folder of the data set.

        Raises:
            ConfigError: None was given.
        """
        if self.request.data is None:
            raise ConfigError(f"benchmark {self.request.benchmark!r} needs --data, the folder of its files")
        return self.request.data

    @property
    @abstractmethod
    def split(self) -> str:
        """The requested split, or the default of the data set; empty if it has no splits."""

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, int]]:
        """Read all annotations; yield the name of each entry and its number of frames (1 for single images).

        An entry that is damaged is left out, see :attr:`left_out`.

        Raises:
            DataError: The files are missing, or none can be read.
            ConfigError: The data set has no such split.
        """

    @abstractmethod
    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return further fields of :class:`Manifest` for ``run.json``."""

    @abstractmethod
    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Answer the entries of this process that have no answer yet, and write each answer at once.

        An entry whose images turn out to be damaged is left out.

        Yields:
            The name of each entry, including those answered by an earlier run.
        """

    @staticmethod
    @abstractmethod
    def report(folder: Path, protocols: Sequence[str] = (), /) -> Report:
        """Score the answers in a run folder.

        Args:
            folder: The run folder.
            protocols: For tracking: protocols to score by; those of the run if empty.

        Raises:
            DataError: There is no answer, or a file is damaged.
            ConfigError: A protocol is unknown.
        """

    @staticmethod
    def compare(_folders: Sequence[Path], _out: Path, _protocols: Sequence[str] = (), /) -> Report | None:
        """Compare several runs over the same entries in one report; None if this kind has no such report.

        Args:
            _folders: The run folders.
            _out: Folder for the plots.
            _protocols: As for :meth:`report`.

        Raises:
            DataError: There is no answer, or a file is damaged.
            ConfigError: A protocol is unknown, or the runs are not over the same entries.
        """
        return None

    @staticmethod
    def answered(folder: Path, manifest: Manifest) -> Collection[str]:
        """Return the entries that have an answer from any process."""
        return manifest.entries.keys() & read_answers(folder, "answers").keys()
