"""Calibration of scores: how often an answer with a score is right.

The raw score of a box, exp(mean log-probability of its digits), orders answers well, but .6 does not mean that six of
ten are right. A checkpoint may bring two numbers, fitted on data that it was not trained on, which turn raw scores into
such chances. Shapes: N answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elysium_core.errors import ModelFileError

# Scores 0 and 1 have no finite logit.
_EDGE = 1e-6
_BINS = 10
# A small weight decay on the scale, so that scores that separate right from wrong without error have a finite fit.
_DECAY = 1e-3


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """Turns raw scores into chances: sigmoid(scale * logit(score) + shift). The order of scores stays.

    Attributes:
        scale: Above 0; 1 / temperature.
        shift: Added to the logit.

    Raises:
        ModelFileError: A number is not finite, or the scale is not above 0.
    """

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.shift) and self.scale > 0):
            raise ModelFileError(f"calibration {self.scale:g}, {self.shift:g} needs finite numbers, the first above 0")

    def __call__(self, score: float) -> float:
        """The chance 0..1 of a raw score 0..1; a score of 0, which no box has, stays 0."""
        if score <= 0 or (self.scale == 1 and self.shift == 0):
            return score
        inside = min(max(score, _EDGE), 1 - _EDGE)
        return 1 / (1 + math.exp(-(self.scale * math.log(inside / (1 - inside)) + self.shift)))

    def then(self, later: ScoreCalibration) -> ScoreCalibration:
        """One calibration for this one and a later one of its results."""
        return ScoreCalibration(later.scale * self.scale, later.scale * self.shift + later.shift)


UNCALIBRATED = ScoreCalibration()
"""Scores as they are."""


@dataclass(frozen=True, slots=True)
class NameCalibration:
    """Turns raw scores of things found by name into chances, with the picture's evidence for the name.

    The evidence is the log-probability, among ``names``, of the asked one for that visual token which lies nearest to
    it. A chance is sigmoid(scale * logit(score) + evidence_scale * evidence + shift).

    Attributes:
        scale: Above 0.
        shift: Added to the logit.
        evidence_scale: At least 0.
        names: The first so many names of the vocabulary are those whose words visual tokens were drawn to.

    Raises:
        ModelFileError: A number is not finite or out of range.
    """

    scale: float
    shift: float
    evidence_scale: float
    names: int

    def __post_init__(self) -> None:
        numbers = (self.scale, self.shift, self.evidence_scale)
        if not all(map(math.isfinite, numbers)) or self.scale <= 0 or self.evidence_scale < 0 or self.names < 1:
            raise ModelFileError(
                f"name calibration {self.scale:g}, {self.shift:g}, {self.evidence_scale:g}, {self.names} needs finite "
                "numbers, the first above 0, the third not below it, and at least one name"
            )

    def given(self, evidence: float) -> ScoreCalibration:
        """The calibration of the scores of a name with this evidence, <= 0."""
        return ScoreCalibration(self.scale, self.shift + self.evidence_scale * evidence)

    def then(self, later: ScoreCalibration) -> NameCalibration:
        """One calibration for this one and a later one of its results."""
        return NameCalibration(
            later.scale * self.scale,
            later.scale * self.shift + later.shift,
            later.scale * self.evidence_scale,
            self.names,
        )


def fit_calibration(scores: Sequence[float], right: Sequence[bool]) -> ScoreCalibration:
    """Fit a calibration by maximum likelihood (Platt 1999).

    Args:
        scores: N raw scores 0..1.
        right: N, whether each answer was right.

    Returns:
        The identity if there are no right or no wrong answers, or if higher scores are not more often right.
    """
    if not any(right) or all(right):
        return UNCALIBRATED
    scale, shift = _fitted([scores_to_logits(scores)], right)
    return ScoreCalibration(scale, shift) if scale > 0 else UNCALIBRATED


def fit_name_calibration(
    scores: Sequence[float], evidence: Sequence[float], right: Sequence[bool], names: int
) -> NameCalibration | None:
    """Fit a calibration by maximum likelihood, as :func:`fit_calibration`.

    Args:
        scores: N raw scores 0..1.
        evidence: N, the evidence of each.
        right: N, whether each answer was right.
        names: Number of names that evidence is known of.

    Returns:
        None if there are no right or no wrong answers, or if higher scores or more evidence are not more often right.
    """
    if not any(right) or all(right):
        return None
    scale, evidence_scale, shift = _fitted(
        [scores_to_logits(scores), torch.tensor(evidence, dtype=torch.float64)], right
    )
    return NameCalibration(scale, shift, evidence_scale, names) if scale > 0 and evidence_scale >= 0 else None


def scores_to_logits(scores: Sequence[float]) -> Tensor:
    """Log odds (N) of scores 0..1, float64; those of 0 and 1 are finite."""
    inside = torch.tensor(scores, dtype=torch.float64).clamp(_EDGE, 1 - _EDGE)
    return (inside / (1 - inside)).log()


def _fitted(values: Sequence[Tensor], right: Sequence[bool]) -> list[float]:
    """Factors of F values (N), and the shift, of the likeliest logistic regression."""
    columns, wanted = torch.stack(list(values), 1), torch.tensor(right, dtype=torch.float64)
    numbers = torch.zeros(len(values) + 1, dtype=torch.float64)
    numbers[0] = 1
    numbers.requires_grad_()
    optimizer = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        chance = columns @ numbers[:-1] + numbers[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(chance, wanted) + _DECAY * numbers[0] ** 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return [float(number) for number in numbers.detach()]


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error (ECE) of scores in ten bins of equal width: 0..1, 0 is best; 0 without scores."""
    if not scores:
        return 0.0
    values, hits = torch.tensor(scores, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    bins = (values * _BINS).long().clamp(0, _BINS - 1)
    zeros = torch.zeros(_BINS, dtype=torch.float64)
    gap = zeros.index_add(0, bins, values - hits)
    return float(gap.abs().sum() / len(values))
