"""Figures that the Elysium paper prints, for tables; none of them was measured by this project."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Elysium paper (arXiv 2403.16558)"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a table of the paper.

    Attributes:
        model: Whose figures they are.
        figures: Name of the figure -> value as printed, percent unless the name says otherwise.
        note: What must be known to read them.
    """

    model: str
    figures: dict[str, float]
    note: str = ""


_SOT_NOTE = "the scorer behind these figures is not known for certain"
_MINIGPT = "MiniGPT-v2, frame by frame"

PUBLISHED: dict[tuple[str, str, str], tuple[PublishedRow, ...]] = {
    ("lasot", "test", "sot"): (PublishedRow("Elysium 7B", {"AUC": 56.1, "P_norm": 61.0, "P": 50.1}, _SOT_NOTE),),
    ("uav123", "", "sot"): (PublishedRow("Elysium 7B", {"AUC": 56.6, "P": 79.2}, _SOT_NOTE),),
    ("elysiumtrack", "val500", "sot"): (
        PublishedRow("Elysium 7B", {"AUC": 88.7, "P_norm": 94.6, "P": 93.8}, _SOT_NOTE),
    ),
    ("elysiumtrack", "val500", "rsot"): (
        PublishedRow("Elysium 7B", {"AUC": 87.5, "P_norm": 94.5, "P": 93.7}, _SOT_NOTE),
        PublishedRow(_MINIGPT, {"AUC": 65.4, "P_norm": 70.1, "P": 67.4}, _SOT_NOTE),
    ),
    ("elysiumtrack", "val500", "video-reg"): (
        PublishedRow("Elysium 7B", {"METEOR": 46.7, "CIDEr": 115.3}),
        PublishedRow("MiniGPT-v2", {"METEOR": 16.9, "CIDEr": 76.6}),
    ),
    ("refcoco", "val", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 89.07}),),
    ("refcoco", "testA", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 92.12}),),
    ("refcoco", "testB", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 84.95}),),
    ("refcoco+", "val", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 82.86}),),
    ("refcoco+", "testA", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 88.93}),),
    ("refcoco+", "testB", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 75.64}),),
    ("refcocog", "val", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 82.92}),),
    ("refcocog", "test", "rec"): (PublishedRow("Elysium 7B", {"Acc@0.5": 83.62}),),
    ("msvd-qa", "test", "ask"): (PublishedRow("Elysium 7B", {"Accuracy": 75.8, "Score 0..5": 3.7}),),
    ("msrvtt-qa", "test", "ask"): (PublishedRow("Elysium 7B", {"Accuracy": 67.5, "Score 0..5": 3.2}),),
    ("tgif-qa", "test", "ask"): (PublishedRow("Elysium 7B", {"Accuracy": 66.6, "Score 0..5": 3.6}),),
    ("activitynet-qa", "test", "ask"): (PublishedRow("Elysium 7B", {"Accuracy": 43.4, "Score 0..5": 2.9}),),
}
"""Benchmark, split and task -> rows of the paper."""


def published_rows(benchmark: str, split: str, task: str) -> tuple[PublishedRow, ...]:
    """Return the paper's rows for a benchmark, none if it has none."""
    return PUBLISHED.get((benchmark, split, task), ())
