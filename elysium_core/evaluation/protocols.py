"""The tracking protocols: one table of the scoring rules in which the common toolkits differ.

Each :class:`Protocol` follows the source code of the toolkit it names. Where the paper of
the data set disagrees with the code, published tables follow the code. The rules are
explained in ``docs/evaluation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from elysium_core.errors import ConfigError
from elysium_core.evaluation.metrics import Floats

DEFAULT_PROTOCOL = "ope-lasot"
# Data sets whose published tables come from a server with rules of its own.
_OWN_PROTOCOLS = {"got10k": "ope-got10k", "trackingnet": "ope-trackingnet"}
REFERENCE_PROTOCOL = "elysium-ref"


class Verdict(Enum):
    """How a frame with an absent, missing or empty true box is scored."""

    SCORE = "scored like any other"
    MISS = "a failure, kept in the denominator"
    DROP = "left out"
    HIT = "fails in success, counts as a hit in both precisions"
    NORM_HIT = "fails in success and precision, counts as a hit in normalised precision"


class FirstFrame(Enum):
    """How the first frame is scored when its true box was given to the tracker."""

    FORCED = "counted with the true box"
    COUNTED = "counted with the tracker's own box"
    EXCLUDED = "not counted"


class Summary(Enum):
    """How a curve is reduced to one number."""

    MEAN = "mean of the curve"
    AREA = "area under the curve"
    AT_20 = "value at threshold number 20"
    NONE = "not defined"


@dataclass(frozen=True, slots=True)
class Protocol:
    """The scoring rules of one tracking protocol.

    Attributes:
        name: Name, as on the command line.
        source: Toolkit whose code it follows.
        absent: Verdict on frames where the data set marks the target as absent.
        no_truth: Verdict on frames whose true box is NaN.
        empty_truth: Verdict on frames whose true box has no area or starts before the first pixel.
        first_frame: Treatment of the first frame if its box was given (SOT); otherwise (RSOT) it counts like any other.
        round_boxes: Round truth and prediction to whole pixels first.
        clamp_boxes: Clamp truth and prediction to the frame first.
        reference_text: Apply the text rounding, clamp and single precision of the released scorer to both
            (:func:`elysium_core.evaluation.metrics.reference_errors`).
        repeat_empty: Replace an answer without area by the previous box.
        inclusive: Compare overlap with >= instead of >.
        success_points: Overlap thresholds, evenly spaced over 0..1.
        precision_points: Error thresholds, evenly spaced over 0..50 px and over 0..0.5.
        auc: Summary of the success curve, called "AUC".
        precision: Summary of the precision curve, called "P".
        norm_precision: Summary of the normalised precision curve, called "P_norm".
        pool_frames: Take the mean over all frames of all recordings instead of over recordings.
        skip_unanswered: Leave recordings without any box out of the mean instead of scoring them 0.
        comparable: Whether figures may be compared with tables of the literature.
    """

    name: str
    source: str
    absent: Verdict
    no_truth: Verdict
    empty_truth: Verdict
    first_frame: FirstFrame = FirstFrame.FORCED
    round_boxes: bool = False
    clamp_boxes: bool = False
    reference_text: bool = False
    repeat_empty: bool = False
    inclusive: bool = False
    success_points: int = 21
    precision_points: int = 51
    auc: Summary = Summary.MEAN
    precision: Summary = Summary.AT_20
    norm_precision: Summary = Summary.AT_20
    pool_frames: bool = False
    skip_unanswered: bool = False
    comparable: bool = True

    @property
    def overlap_thresholds(self) -> Floats:
        """Shape (success_points,), 0..1."""
        return np.linspace(0.0, 1.0, self.success_points)

    @property
    def pixel_thresholds(self) -> Floats:
        """Shape (precision_points,), 0..50 [px]."""
        return np.linspace(0.0, 50.0, self.precision_points)

    @property
    def norm_thresholds(self) -> Floats:
        """Shape (precision_points,), 0..0.5."""
        return np.arange(self.precision_points) / (2.0 * (self.precision_points - 1))


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("ope-lasot", "LaSOT evaluation toolkit", Verdict.MISS, Verdict.MISS, Verdict.HIT, repeat_empty=True),
        Protocol(
            "ope-otb",
            "OTB toolkit, got10k ExperimentOTB",
            Verdict.SCORE,
            Verdict.MISS,
            Verdict.SCORE,
            norm_precision=Summary.NONE,
        ),
        Protocol(
            "ope-pytracking",
            "pytracking extract_results",
            Verdict.MISS,
            Verdict.HIT,
            Verdict.NORM_HIT,
            repeat_empty=True,
        ),
        Protocol(
            "ope-got10k",
            "got10k ExperimentGOT10k",
            Verdict.DROP,
            Verdict.DROP,
            Verdict.SCORE,
            first_frame=FirstFrame.EXCLUDED,
            clamp_boxes=True,
            success_points=101,
            auc=Summary.NONE,
            precision=Summary.NONE,
            norm_precision=Summary.NONE,
            pool_frames=True,
        ),
        Protocol(
            "ope-trackingnet",
            "TrackingNet devkit",
            Verdict.SCORE,
            Verdict.MISS,
            Verdict.SCORE,
            round_boxes=True,
            inclusive=True,
            precision_points=21,
            auc=Summary.AREA,
            precision=Summary.AREA,
            norm_precision=Summary.AREA,
        ),
        Protocol(
            "elysium-ref",
            "the scorer released with the Elysium paper, with its defects",
            Verdict.SCORE,
            Verdict.SCORE,
            Verdict.SCORE,
            first_frame=FirstFrame.COUNTED,
            reference_text=True,
            skip_unanswered=True,
            comparable=False,
        ),
    )
}
"""Every protocol by name."""


def default_protocol(benchmark: str) -> str:
    """Return the name of the protocol by which a data set is scored if none is named."""
    return _OWN_PROTOCOLS.get(benchmark, DEFAULT_PROTOCOL)


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        ConfigError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name!r} is not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
