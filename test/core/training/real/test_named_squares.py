"""A tiny model that learns the names of coloured squares, from made-up readings to a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from elysium_core.api import Elysium
from elysium_core.training.real.real_export import export_run
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import run_stage

LEARNT = [
    "model.frame_px=128", "model.frame_tokens=16", "stages.read.steps=400", "stages.read.lr=2e-3",
    "stages.select.steps=500", "stages.select.selector_lr=4e-3", "stages.select.lr=2e-3",
    "stages.joint.steps=150", "stages.joint.lr=1e-3", "stages.joint.selector_lr=1e-3", "data.pool=64",
    "data.frame_pool=1024", "data.cutout_share=0", "data.true_box_share=1", "data.absent_share=0.05",
    *[f"stages.{name}.{key}" for name in ("read", "select", "joint")
      for key in ("batch=2", "frame_batch=12", "evaluate_every=0")],
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trained_model_finds_the_named_one_of_two_squares(real_file, tmp_path, two_squares):
    recipe = load_any_recipe(real_file, LEARNT)
    for name in recipe.stages:
        run_stage(recipe, name, tmp_path / "run")
    model = Elysium.from_pretrained(export_run(recipe, tmp_path / "run"), device="cpu")
    right, shown, absent = [], [], []
    for number in range(20):
        image, boxes = two_squares(number)
        for name, box in boxes.items():
            found = model.ground(image, f"the {name}")
            rival = next(other for word, other in boxes.items() if word != name)
            right.append(found.box is not None and found.box.iou(box) > found.box.iou(rival))
            shown.append(found.score)
        missing = next(word for word in recipe.model.words if word not in boxes)
        absent.append(model.ground(image, f"the {missing}").score)
    # By chance half of them are right.
    assert np.mean(right) > 0.68
    assert np.mean(shown) > 2 * np.mean(absent)
