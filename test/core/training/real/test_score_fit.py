from __future__ import annotations

import json

import numpy as np
import pytest

from elysium_core.api import Elysium
from elysium_core.calibration import NameCalibration, ScoreCalibration
from elysium_core.training.real.real_export import export_run
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.score_fit import ScoreFit, fit_find_scores, fit_scores, follow_answers
from elysium_core.vision.torch_vision import TorchVision


def test_the_error_is_told_on_answers_that_were_not_fitted():
    rng, truth = np.random.default_rng(0), ScoreCalibration(3.0, 1.0)
    scores = rng.uniform(0.02, 0.9, 3000)
    answers = [(float(score), bool(rng.random() < truth(score))) for score in scores]
    fit = fit_scores(answers)
    assert fit.answers == 3000
    assert fit.calibration.scale == pytest.approx(3.0, abs=0.5)
    assert fit.after < 0.05 < fit.before


def test_an_absent_object_is_never_found_rightly(real_recipe, tmp_path):
    run = RealStageRun(real_recipe, "joint", tmp_path)
    (batch,) = run.held_out()
    answers = follow_answers(run.model.eval(), batch.pairs)
    assert len(answers) == len(batch.pairs.is_present)
    assert not any(right for (_, right), shown in zip(answers, batch.pairs.is_present, strict=True) if not shown)


def test_the_checkpoint_brings_its_calibration(real_recipe, tmp_path, monkeypatch):
    run = RealStageRun(real_recipe, "joint", tmp_path)
    run.loop._finish()
    monkeypatch.setattr(
        "elysium_core.training.real.score_fit.fit_calibration", lambda scores, right: ScoreCalibration(2.0, -0.5)
    )
    folder = export_run(real_recipe, tmp_path)
    assert json.loads((folder / "config.json").read_text())["elysium"]["follow_scores"] == [2.0, -0.5]
    settings = Elysium.from_pretrained(folder, device="cpu").runtime.family.settings
    assert settings.follow_scores == ScoreCalibration(2.0, -0.5)


@pytest.mark.parametrize("by_name", [None, NameCalibration(1.0, 0.5, 0.5, names=4)])
def test_scores_of_a_model_that_looks_at_parts_are_those_of_its_answers(real_recipe, tmp_path, monkeypatch, by_name):
    looks = real_recipe.model.model_copy(update={"find": "parts"})
    run = RealStageRun(real_recipe.model_copy(update={"model": looks}), "joint", tmp_path)
    (batch,) = run.held_out()
    fits = iter([ScoreCalibration(2.0, 1.0), ScoreCalibration(0.5, -3.0), ScoreCalibration(2.0, -2.5)])
    monkeypatch.setattr("elysium_core.training.real.score_fit.fit_name_calibration", lambda *_: by_name)
    monkeypatch.setattr(
        "elysium_core.training.real.score_fit.fit_scores", lambda answers: ScoreFit(next(fits), len(answers), 0.3, 0.1)
    )
    encoded = []
    monkeypatch.setattr(TorchVision, "encode", count_pictures(encoded, TorchVision.encode))
    fit = fit_find_scores(run.model.eval(), run.model.words, batch.frames, evidence_names=3)
    assert fit.alone.calibration == ScoreCalibration(1.0, -2.5)
    # Whole frame and quarters, then one closer look for each name.
    frames = len(batch.frames.names)
    assert encoded.count(5) == frames * (1 if by_name is None else 2)
    expected = None if by_name is None else NameCalibration(2.0, -1.5, 1.0, names=4)
    assert fit.by_name == expected


def count_pictures(counts, encode):
    def counted(vision, images):
        counts.append(len(images))
        return encode(vision, images)

    return counted
