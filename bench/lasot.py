"""``python -m bench.lasot``: scores of trackers without a model on LaSOT's test set, from its annotations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say

_PERCENT_COLUMNS = {"auc": "AUC", "norm_precision": "P_norm", "precision": "P", "average_overlap": "AO"}
# The annotations do not include the size of the frames. It matters for a box in the middle of the frame, for rounding
# to 0..100, and for two of the protocols.
_FRAME_SIZE = (1280, 720)


def command(
    annotations: Annotated[Path, typer.Argument(help="Folder 'annos' of the LaSOT evaluation toolkit.")],
    json: JsonOption = False,
) -> None:
    """Score trackers without a model by every protocol; needs no video.

    The annotations are at https://github.com/HengLan/LaSOT_Evaluation_Toolkit. All frames are taken to have
    1280x720 px.
    """
    from elysium_core.data.readers.annotation_files import read_boxes, read_flags
    from elysium_core.data.readers.lasot import names_of_test_split
    from elysium_core.evaluation.protocols import PROTOCOLS
    from elysium_core.evaluation.report import percent
    from elysium_core.evaluation.results import TrackResult
    from elysium_core.evaluation.scoring import BASELINES, run_baseline, score_benchmark

    truth = []
    for name in names_of_test_split():
        boxes = read_boxes(annotations / f"{name}.txt", negative_is_empty=True)
        absent = read_flags(annotations / "absent" / f"{name}.txt", len(boxes)) > 0
        truth.append(TrackResult(name, boxes, boxes, absent, _FRAME_SIZE))
    rows = []
    for name in BASELINES:
        answers = run_baseline(name, truth)
        for protocol in PROTOCOLS.values():
            scores = score_benchmark(answers, protocol)
            if scores is not None:
                figures = {key: getattr(scores, key) for key in _PERCENT_COLUMNS}
                rows.append({"tracker": name, "protocol": protocol.name, **figures})
    frames, absent_frames = (sum(r.frame_count for r in truth), sum(int(r.absent.sum()) for r in truth))
    if json:
        emit({"recordings": len(truth), "frames": frames, "absent_frames": absent_frames, "scores": rows})
        return
    say(f"{len(truth)} recordings, {frames} frames, {absent_frames} absent")
    say(f"{'tracker':<9} {'protocol':<16} " + " ".join(f"{title:>7}" for title in _PERCENT_COLUMNS.values()))
    for row in rows:
        columns = " ".join(f"{percent(row[key]):>7}" for key in _PERCENT_COLUMNS)
        say(f"{row['tracker']:<9} {row['protocol']:<16} {columns}")


if __name__ == "__main__":
    from bench.app import run

    run("lasot")
