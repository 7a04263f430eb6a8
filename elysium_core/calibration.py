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
    inside = torch.tensor(scores, dtype=torch.float64).clamp(_EDGE, 1 - _EDGE)
    logits, wanted = (inside / (1 - inside)).log(), torch.tensor(right, dtype=torch.float64)
    numbers = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        chance = numbers[0] * logits + numbers[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(chance, wanted) + _DECAY * numbers[0] ** 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    scale, shift = numbers.detach().tolist()
    return ScoreCalibration(scale, shift) if scale > 0 else UNCALIBRATED


def calibration_error(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error (ECE) of scores in ten bins of equal width: 0..1, 0 is best; 0 without scores."""
    if not scores:
        return 0.0
    values, hits = torch.tensor(scores, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    bins = (values * _BINS).long().clamp(0, _BINS - 1)
    zeros = torch.zeros(_BINS, dtype=torch.float64)
    gap = zeros.index_add(0, bins, values - hits)
    return float(gap.abs().sum() / len(values))
