"""What trackers without a model score on LaSOT's test set by each protocol; needs its annotations only, no video.

The annotations are the folder ``annos`` of the LaSOT evaluation toolkit
(https://github.com/HengLan/LaSOT_Evaluation_Toolkit). They do not tell the size of the
frames; 1280x720 is taken for all, which matters for ``centre``, ``rounded``,
``ope-got10k`` and ``elysium-ref``.

Usage: python bench/scorer_on_lasot.py ANNOS
"""

from __future__ import annotations

import sys
from pathlib import Path

from elysium_core.data.readers.annotation_files import read_boxes, read_flags
from elysium_core.data.readers.lasot import names_of_test_split
from elysium_core.errors import ElysiumError
from elysium_core.evaluation.protocols import PROTOCOLS
from elysium_core.evaluation.report import percent
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.scoring import BASELINES, run_baseline, score_benchmark

FRAME_SIZE = (1280, 720)


def read_truth(folder: Path, name: str) -> TrackResult:
    """Read the truth of one recording; the answers are the truth itself until a baseline replaces them."""
    boxes = read_boxes(folder / f"{name}.txt", negative_is_empty=True)
    absent = read_flags(folder / "absent" / f"{name}.txt", len(boxes)) > 0
    return TrackResult(name, boxes, boxes, absent, FRAME_SIZE)


def main(folder: Path) -> None:
    """Print one line for each baseline and protocol."""
    truth = [read_truth(folder, name) for name in names_of_test_split()]
    frames, absent = sum(r.frame_count for r in truth), sum(int(r.absent.sum()) for r in truth)
    print(f"{len(truth)} recordings, {frames} frames, {absent} absent")
    print(f"{'tracker':<9} {'protocol':<16} {'AUC':>7} {'P_norm':>7} {'P':>7} {'AO':>7}")
    for name in BASELINES:
        answers = run_baseline(name, truth)
        for protocol in PROTOCOLS.values():
            scores = score_benchmark(answers, protocol)
            if scores is not None:
                figures = (scores.auc, scores.norm_precision, scores.precision, scores.average_overlap)
                print(f"{name:<9} {protocol.name:<16} " + " ".join(f"{percent(value):>7}" for value in figures))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except ElysiumError as error:
        sys.exit(f"scorer_on_lasot: {error}")
