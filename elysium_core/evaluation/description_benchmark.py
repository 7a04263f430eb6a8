"""Video-REG benchmark: a model describes the object in a box of a clip.

The descriptions are scored by METEOR 1.5 and CIDEr-D with pycocoevalcap (an extra) and its Java tools.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS, get_tracking_benchmark
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import BackendError, BoxError, DataError, pip_line
from elysium_core.evaluation.answer_log import answer_missing, read_answers
from elysium_core.evaluation.benchmark import Benchmark
from elysium_core.evaluation.metrics import Floats
from elysium_core.evaluation.published import published_notes, published_rows
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report, Table
from elysium_core.evaluation.run_folder import Manifest, read_manifest
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import description_frames, sample_stored
from elysium_core.types import PerceptionModel


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Scores of one set of descriptions.

    Attributes:
        meteor: METEOR 1.5 of the set, 0..1; tables print it times 100.
        cider: CIDEr-D of the set, 0..10; tables print it times 100, so that 1.153 reads 115.3.
        meteor_each: METEOR of each item.
        cider_each: CIDEr-D of each item; it changes with the set it is scored in.
    """

    meteor: float
    cider: float
    meteor_each: tuple[float, ...]
    cider_each: tuple[float, ...]


class CaptionScorer:
    """Scores sets of descriptions with one METEOR process, whose start takes seconds and 2 GB of memory.

    Raises:
        BackendError: Java or pycocoevalcap is not installed.
    """

    def __init__(self) -> None:
        if shutil.which("java") is None:
            raise BackendError("METEOR and CIDEr need Java; install a Java runtime, such as default-jre-headless")
        try:
            from pycocoevalcap.cider.cider import Cider
            from pycocoevalcap.meteor.meteor import Meteor
            from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        except ImportError as error:
            raise BackendError(
                f"METEOR and CIDEr need pycocoevalcap, which is not installed: {pip_line('pycocoevalcap')}"
            ) from error
        self._tokenizer: Any = PTBTokenizer()
        self._meteor: Any = Meteor()
        self._cider: Any = Cider()

    def score(self, answers: Sequence[str], references: Sequence[str]) -> CaptionScores:
        """Score a set of descriptions, one reference each.

        Args:
            answers: Descriptions of the model; an empty one scores 0.
            references: Correct descriptions, in the same order; none is empty.

        Raises:
            BackendError: A Java tool failed.
        """
        # The tools print their progress to stdout, which is for results only.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                # One Java process for answers and references, because most of the time is its start.
                tokens = self._tokenizer.tokenize(_captions([*answers, *references]))
                answer_tokens = {index: tokens[index] for index in range(len(answers))}
                reference_tokens = {index: tokens[len(answers) + index] for index in range(len(references))}
                meteor, meteor_each = self._meteor.compute_score(reference_tokens, answer_tokens)
                cider, cider_each = self._cider.compute_score(reference_tokens, answer_tokens)
            except (OSError, ValueError, AssertionError) as error:
                raise BackendError(
                    f"a Java tool of pycocoevalcap failed ({error!r}); is there 2 GB of memory?"
                ) from error
        return CaptionScores(
            float(meteor), float(cider), tuple(float(v) for v in meteor_each), tuple(float(v) for v in cider_each)
        )


def _captions(texts: Sequence[str]) -> dict[int, list[dict[str, str]]]:
    """Return texts in the tokenizer's format: one line each, none empty, without METEOR's field separator.

    An empty text becomes a full stop, which the tokenizer removes. It would drop an empty last line.
    """
    return {index: [{"caption": " ".join(text.replace("|||", " ").split()) or "."}] for index, text in enumerate(texts)}


class VideoDescription(Benchmark):
    """Video-REG: describe the target of each recording of a tracking data set."""

    kind = "describing"
    names = tuple(TRACKING_BENCHMARKS)
    tasks = ("video-reg",)

    @property
    def split(self) -> str:
        """The requested split, or the default of the data set; empty if it has no splits."""
        return self.request.split or get_tracking_benchmark(self.request.benchmark).default_split

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each recording and its number of frames."""
        yield from ((recording.name, recording.frame_count) for recording in self._recordings())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the task and the number of frames shown."""
        return {"task": self.request.task, "frames": self._frames(model)}

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Describe every target that has no description yet; yield the name of its recording."""
        count, zoom = self._frames(model), self.request.zoom
        yield from answer_missing(
            folder,
            ranks,
            self._recordings(),
            lambda recording: recording.name,
            lambda recording: describe_recording(recording, model, count, zoom=zoom),
        )

    @staticmethod
    def report(folder: Path, _protocols: Sequence[str] = (), /) -> Report:
        """Report METEOR and CIDEr-D beside the baselines."""
        return describing_report(folder)

    def _frames(self, model: PerceptionModel) -> int:
        return self.request.frames or description_frames(model.info.clip_length)

    def _recordings(self) -> Iterable[LabelledRecording]:
        data_set = get_tracking_benchmark(self.request.benchmark)
        return islice(data_set.read(self.data, self.split, self.skip), self.request.limit)


def describe_recording(
    recording: LabelledRecording, model: PerceptionModel, frame_count: int, *, zoom: bool = False
) -> dict[str, Any]:
    """Have a model describe the target of a recording.

    The model sees frames spread evenly over the recording, and the true box in the first of them that has one.

    Args:
        recording: The recording.
        model: The model to evaluate.
        frame_count: Maximum number of frames shown.
        zoom: See :meth:`elysium_core.api.Elysium.describe`.

    Returns:
        The record for the answer file: answer and ground truth.

    Raises:
        DataError: The recording has no words to compare with, or no box in the frames.
    """
    reference = recording.expression or recording.category
    if not reference:
        raise DataError(f"{recording.name!r} has no description to compare with; Video-REG needs one")
    source = recording.frames
    frames = sample_stored(source, source.name, frame_count, source.count)
    for position, frame in enumerate(frames):
        if frame.index >= recording.frame_count:
            raise DataError(f"{source.name!r} has more frames than {str(recording.truth_file)!r} has boxes")
        row = recording.boxes_xywh_px[frame.index]
        if np.isfinite(row).all():
            box = _box(recording, row, frame)
            answer = model.describe(frames, box, frame_index=position, zoom=zoom)
            words = {"reference": reference, "category": recording.category, "answer": answer}
            return words | {"frame": frame.index, "box": list(box)}
    raise DataError(f"{recording.name!r} has no true box in any of the {len(frames)} frames shown to the model")


def _box(recording: LabelledRecording, row: Floats, frame: Frame) -> Box:
    x, y, w, h = (float(value) for value in row)
    try:
        return Box.from_xywh_px(x, y, w, h, *(recording.frame_size or (frame.width, frame.height)))
    except BoxError as error:
        raise DataError(f"{recording.name!r}, frame {frame.index}: {error}") from error


def describing_report(folder: Path) -> Report:
    """Score the descriptions of a run.

    Raises:
        DataError: There is no description yet.
    """
    manifest = read_manifest(folder)
    answers = read_answers(folder, "answers")
    records = [answers[name] for name in manifest.entries if name in answers]
    if not records:
        raise DataError(f"{str(folder)!r} holds no description yet; run elysium eval {manifest.benchmark} first")
    missing = len(manifest.entries) - len(records)
    warnings = [f"{missing} recordings have no description yet and are left out."] if missing else []
    try:
        scores = _all_scores(manifest, records)
    except BackendError as error:
        scores, warnings = {}, [*warnings, str(error)]
    return Report(
        title=f"{manifest.model} on {manifest.benchmark} {manifest.split}, video-reg",
        facts={
            "Protocol": "METEOR 1.5 and CIDEr-D (pycocoevalcap), one reference, the set scored together",
            "Recordings": f"{len(records)} of {len(manifest.entries)}",
            "Empty descriptions": str(sum(not record["answer"].strip() for record in records)),
            "Version": manifest.version,
        },
        warnings=warnings,
        tables=[_table(manifest, scores)] if scores else [],
        scores={name: {"meteor": s.meteor, "cider": s.cider} for name, s in scores.items()},
    )


def _all_scores(manifest: Manifest, records: list[dict[str, Any]]) -> dict[str, CaptionScores]:
    references = [record["reference"] for record in records]
    rivals = {
        manifest.model: [record["answer"] for record in records],
        "perfect": references,
        "class name": [record["category"] or "object" for record in records],
    }
    scorer = CaptionScorer()
    return {name: scorer.score(answers, references) for name, answers in rivals.items()}


def _table(manifest: Manifest, scores: dict[str, CaptionScores]) -> Table:
    rows = [[name, f"{100 * s.meteor:.1f}", f"{100 * s.cider:.1f}"] for name, s in scores.items()]
    notes = ["CIDEr depends on the set: figures of two sets, or of a part of one, cannot be compared."]
    paper = published_rows(manifest)
    rows += [[row.label, row.cell("METEOR", 1), row.cell("CIDEr", 1)] for row in paper]
    notes += published_notes(paper)
    return Table("Descriptions", ["", "METEOR x100", "CIDEr x100"], rows, notes)
