"""Calibration of a trained model's scores on held-out pairs and photos.

Shapes: B pairs or frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress

import torch
from torch import Tensor

from elysium_core.calibration import (
    UNCALIBRATED,
    NameCalibration,
    ScoreCalibration,
    calibration_error,
    fit_calibration,
    fit_name_calibration,
)
from elysium_core.families.elysium import as_elysium
from elysium_core.families.name_evidence import name_evidence
from elysium_core.network.model_config import FIND_MODES
from elysium_core.runtime import Runtime
from elysium_core.tracking.find_parts import find_in_picture
from elysium_core.training.real.box_measures import overlaps
from elysium_core.training.real.frame_features import FrameFeatures, FrameObjects
from elysium_core.training.real.pair_answers import answer_pairs
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.training.real.real_stages import RealTrainingModel
from elysium_core.training.real.word_answers import answer_names, asked_names
from elysium_core.training.real.word_parts import WordParts
from elysium_core.training.sample_answers import training_runtime
from elysium_core.types import Grounding

_RIGHT_FROM = 0.5


@dataclass(frozen=True, slots=True)
class ScoreFit:
    """A calibration and what it is worth.

    Attributes:
        calibration: Fitted to all answers.
        answers: Their number.
        before: ECE of the raw scores of every second answer.
        after: ECE of the same answers with a calibration that was fitted to the other ones.
    """

    calibration: ScoreCalibration = UNCALIBRATED
    answers: int = 0
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class FindFits:
    """Calibrations of found boxes.

    Attributes:
        alone: Of the scores alone.
        by_name: With the evidence for the name; None if it does not help.
        after: ECE with it, as in :class:`ScoreFit`; 0 if it was not measured.
    """

    alone: ScoreFit
    by_name: NameCalibration | None = None
    after: float = 0.0


def fit_scores(answers: list[tuple[float, bool]]) -> ScoreFit:
    """Fit the calibration of answers, each with its raw score and whether it is right."""
    scores, right = [score for score, _ in answers], [hit for _, hit in answers]
    half = fit_calibration(scores[::2], right[::2])
    rest, hits = scores[1::2], right[1::2]
    return ScoreFit(
        fit_calibration(scores, right),
        len(answers),
        calibration_error(rest, hits),
        calibration_error([half(score) for score in rest], hits),
    )


@torch.no_grad()
def follow_answers(model: RealTrainingModel, pairs: PairFeatures) -> list[tuple[float, bool]]:
    """Score and rightness of what the model writes about pairs; an answer about an absent object is wrong."""
    anchors, live, _ = model.look(pairs)
    told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
    runtime = training_runtime(model.network, model.tokenizer)
    answers = answer_pairs(runtime, model.prompts, told, seen, pairs.anchor_box)
    rows = zip(answers, pairs.live_box, pairs.is_present.tolist(), strict=True)
    return [(answer.score, present and _fits(answer, box)) for answer, box, present in rows]


@dataclass(frozen=True, slots=True)
class FoundAnswers:
    """What a model answers about whole frames: names that are shown once, and some that are not shown.

    Attributes:
        scores: N scores.
        evidence: N, the evidence for the asked names (:mod:`elysium_core.families.name_evidence`); None = not known.
        right: N, whether each answer is right; one about an absent object is wrong.
    """

    scores: list[float]
    evidence: list[float | None]
    right: list[bool]


@torch.no_grad()
def find_answers(
    model: RealTrainingModel, words: WordParts, frames: FrameFeatures, evidence_names: int
) -> FoundAnswers:
    """Ask about whole frames; scores are raw."""
    visual = model.network.llm_proj(words.seen(model.encoder, model.adapter, frames).kept)
    runtime = training_runtime(model.network, model.tokenizer)
    rows = model.network.llm.embed(words.prompts.name_ids[:evidence_names].to(visual.device))
    answers = FoundAnswers([], [], [])
    for row, found in enumerate(answer_names(runtime, words.prompts.names, visual, frames.objects)):
        evidence = name_evidence(visual[row], rows).tolist() if evidence_names else []
        for name, score, right in _judged(row, found, frames.objects):
            answers.scores.append(score)
            answers.evidence.append(evidence[name] if name < evidence_names else None)
            answers.right.append(right)
    return answers


def _fit_by_name(answers: FoundAnswers, names: int) -> NameCalibration | None:
    """The calibration by evidence of the answers that have some; None if it does not help."""
    evidence = [value for value in answers.evidence if value is not None]
    known = [value is not None for value in answers.evidence]
    scores, right = list(compress(answers.scores, known)), list(compress(answers.right, known))
    return fit_name_calibration(scores, evidence, right, names) if evidence else None


@torch.no_grad()
def fit_find_scores(model: RealTrainingModel, words: WordParts, frames: FrameFeatures, evidence_names: int) -> FindFits:
    """Fit the calibrations of found boxes: of the scores alone, and with the evidence for the name.

    The scores of a model that also looks at parts are fitted twice: how far a part is believed depends on calibrated
    scores, and the higher one of several scores is too high.
    """
    answers = find_answers(model, words, frames, evidence_names)
    fit = fit_scores(list(zip(answers.scores, answers.right, strict=True)))
    by_name = _fit_by_name(answers, evidence_names)
    runtime = training_runtime(model.network, model.tokenizer)
    family = as_elysium(runtime.family)
    settings = family.settings
    if settings.find == FIND_MODES[0] or frames.pixels is None:
        return FindFits(fit, by_name)
    family.settings = replace(settings, find_scores=fit.calibration)
    again = fit_scores(_answers_in_pictures(runtime, words, frames))
    alone = ScoreFit(fit.calibration.then(again.calibration), again.answers, fit.before, again.after)
    if by_name is None:
        return FindFits(alone)
    family.settings = replace(settings, find_scores=fit.calibration, name_scores=by_name)
    again = fit_scores(_answers_in_pictures(runtime, words, frames))
    return FindFits(alone, by_name.then(again.calibration), again.after)


def _answers_in_pictures(runtime: Runtime, words: WordParts, frames: FrameFeatures) -> list[tuple[float, bool]]:
    """Score and rightness of answers about pictures and their parts."""
    answers: list[tuple[float, bool]] = []
    pictures = () if frames.pixels is None else frames.pixels.cpu().numpy()
    for row, pixels in enumerate(pictures):
        found = find_in_picture(runtime, pixels, asked_names(words.prompts.names, frames.objects, row))
        judged = _judged(row, {int(name): answer for name, answer in found.items()}, frames.objects)
        answers += [(score, right) for _, score, right in judged]
    return answers


def _judged(row: int, answers: dict[int, Grounding], objects: FrameObjects) -> list[tuple[int, float, bool]]:
    """Name, score and rightness of the answers that count."""
    judged = []
    for name, answer in answers.items():
        (members,) = (objects.names[row] == name).nonzero(as_tuple=True)
        if len(members) and not objects.is_usable[row, members[0]]:
            continue
        judged.append((name, answer.score, bool(len(members)) and _fits(answer, objects.boxes[row, members[0]])))
    return judged


def _fits(answer: Grounding, truth: Tensor) -> bool:
    if answer.box is None:
        return False
    iou, _ = overlaps(torch.tensor(list(answer.box), device=truth.device), truth)
    return bool(iou >= _RIGHT_FROM)
