"""REC benchmark on RefCOCO, RefCOCO+ and RefCOCOg: share of sentences whose box has IoU >= 0.5 with the true box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from elysium_core.data.readers.refcoco import SPLITS, GroundingSample, find_image, read_refcoco
from elysium_core.errors import DataError, ExpressionError
from elysium_core.evaluation.answer_log import answer_missing, read_answers
from elysium_core.evaluation.benchmark import Benchmark
from elysium_core.evaluation.published import published_notes, published_rows
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.geometry import Box, pairwise_iou
from elysium_core.io.image import read_image
from elysium_core.types import PerceptionModel

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class GroundingScores:
    """Scores of one split.

    Attributes:
        accuracy: Share of sentences with overlap >= 0.5; a sentence without a box is wrong.
        ties: Sentences with an overlap of exactly 0.5, which other scorers (> 0.5) count as wrong.
        without_box: Sentences without a box.
        sentences: Number of sentences.
    """

    accuracy: float
    ties: int
    without_box: int
    sentences: int


class ImageGrounding(Benchmark):
    """REC on RefCOCO, RefCOCO+ or RefCOCOg: find the object that each sentence names in its image."""

    kind = "grounding"
    names = tuple(SPLITS)

    @property
    def split(self) -> str:
        """The requested split, or ``val``."""
        return self.request.split or "val"

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the id of each sentence, and 1."""
        yield from ((sample.sample_id, 1) for sample in self._samples())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the task."""
        return {"task": "rec"}

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Ground every sentence that has no answer yet; yield its id."""
        zoom = self.request.zoom
        yield from answer_missing(
            folder,
            ranks,
            self._samples(),
            lambda sample: sample.sample_id,
            lambda sample: ground_sample(sample, model, self.data, zoom=zoom),
        )

    @staticmethod
    def report(folder: Path, _protocols: Sequence[str] = (), /) -> Report:
        """Report Acc@0.5 beside the baselines."""
        return grounding_report(folder)

    def _samples(self) -> Iterable[GroundingSample]:
        return islice(read_refcoco(self.data, self.request.benchmark, self.split, self.skip), self.request.limit)


def ground_sample(sample: GroundingSample, model: PerceptionModel, root: Path, *, zoom: bool = False) -> dict[str, Any]:
    """Have a model ground one sentence.

    Args:
        sample: The sentence.
        model: The model to evaluate.
        root: Folder of the images.
        zoom: See :meth:`elysium_core.api.Elysium.ground`.

    Returns:
        The record for the answer file: answer and ground truth.
    """
    image = read_image(find_image(root, sample.image), (sample.width, sample.height))
    try:
        grounding = model.ground(image, sample.expression, zoom=zoom)
        box, text, reason = grounding.box, grounding.text, "" if grounding.box else "no box in the answer"
    except ExpressionError as error:
        # A sentence that the model refuses is a failure of the model, not of the data.
        box, text, reason = None, "", str(error)
    return {
        "image": sample.image,
        "expression": sample.expression,
        "text": text,
        "reason": reason,
        # Fractions of the frame: scaling x and y separately does not change the IoU.
        "box": None if box is None else list(box),
        "truth": _normalised(sample),
    }


def _normalised(sample: GroundingSample) -> list[float]:
    x1, y1, x2, y2 = sample.box_xyxy_px
    return [x1 / sample.width, y1 / sample.height, x2 / sample.width, y2 / sample.height]


def score_grounding(boxes: list[list[float] | None], truths: list[list[float]]) -> GroundingScores:
    """Score boxes against true ones.

    Args:
        boxes: One ``x1, y1, x2, y2`` per sentence, None where there is no box. A box with
            reversed corners counts as wrong.
        truths: One true box per sentence, in the same unit.
    """
    missing = [0.0] * 4
    overlap = pairwise_iou([missing if box is None else box for box in boxes], truths)
    return GroundingScores(
        accuracy=float((overlap >= THRESHOLD).mean()),
        ties=int((overlap == THRESHOLD).sum()),
        without_box=sum(box is None for box in boxes),
        sentences=len(truths),
    )


def grounding_report(folder: Path) -> Report:
    """Score the answers of a run.

    Raises:
        DataError: There is no answer yet.
    """
    manifest = read_manifest(folder)
    answers = read_answers(folder, "answers")
    records: list[Mapping[str, Any]] = [answers[name] for name in manifest.entries if name in answers]
    if not records:
        raise DataError(f"{str(folder)!r} holds no answer yet; run elysium eval {manifest.benchmark} first")
    truths = [record["truth"] for record in records]
    missing = len(manifest.entries) - len(records)
    boxes = [record["box"] for record in records]
    scores = {
        # A sentence without an answer counts as wrong; its true box does not matter.
        manifest.model: score_grounding(boxes + [None] * missing, truths + [[0.0, 0.0, 1.0, 1.0]] * missing),
        "perfect": score_grounding(list(truths), truths),
        "whole image": score_grounding([list(Box(0, 0, 1, 1))] * len(truths), truths),
        "centre": score_grounding([[0.25, 0.25, 0.75, 0.75]] * len(truths), truths),
    }
    rows = [[n, percent(s.accuracy), str(s.without_box), str(s.ties)] for n, s in scores.items()]
    notes = ["Overlap >= 0.5 counts as correct. Scorers that require > 0.5 count the ties as wrong."]
    paper = published_rows(manifest)
    rows += [[row.label, row.cell("Acc@0.5", 2), "-", "-"] for row in paper]
    notes += published_notes(paper)
    return Report(
        title=f"{manifest.model} on {manifest.benchmark} {manifest.split}, rec",
        facts={
            "Protocol": "Acc@0.5 over sentences, overlap >= 0.5" + (", with zoom" if manifest.zoom else ""),
            "Sentences": f"{len(records)} of {len(manifest.entries)}",
            "Unparseable answers": str(sum(box is None for box in boxes)),
            "Version": manifest.version,
        },
        warnings=[f"{missing} sentences have no answer yet and count as wrong."] if missing else [],
        tables=[Table("Acc@0.5", ["", "Acc@0.5", "without a box", "ties"], rows, notes)],
        scores={name: {"accuracy": s.accuracy, "ties": s.ties, "sentences": s.sentences} for name, s in scores.items()},
    )
