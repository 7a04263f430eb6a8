"""The recipes of the paper's stages: whole, and run end to end on a tiny model and tiny data."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from elysium_core.api import Elysium
from elysium_core.errors import DataError, ModelFileError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.training.finetune.base_model import load_base
from elysium_core.training.finetune.finetune_recipe import BaseConfig, FineTuneRecipe, require_inputs
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import run_stage, steps_done

FOLDER = Path(__file__).resolve().parents[4] / "training"
NAMES = ("published_stage1", "published_stage2", "published_long")


def load(name: str, *overrides: str) -> FineTuneRecipe:
    recipe = load_any_recipe(FOLDER / f"{name}.yaml", overrides)
    assert isinstance(recipe, FineTuneRecipe)
    return recipe


def small(
    name: str, data_folder: Path, sets: ModuleType, tmp_path: Path, stage: str, steps: int, *more: str
) -> FineTuneRecipe:
    """A published recipe with every path filled in, few steps and small batches."""
    paths = {"conversation": data_folder / "chat.jsonl", "elysiumtrack": data_folder / "track"}
    overrides = ["device=cpu", "precision=float32", "stored_as=float32", *more]
    for source, config in load(name).data.items():
        if config.reader.startswith("refcoco"):
            # The three sets have one layout; only one of them is on the tiny disk.
            overrides += [f"data.{source}.reader=refcoco", f"data.{source}.path={data_folder}"]
        elif config.reader in sets.SETS:
            folder = tmp_path / source
            overrides += [
                f"data.{source}.{key}={place}" for key, place in sets.write_set(config.reader, folder).items()
            ]
            continue
        else:
            overrides.append(f"data.{source}.path={paths[config.reader]}")
        if config.reader != "elysiumtrack":
            overrides.append(f"data.{source}.media={data_folder / 'pictures'}")
    for key, value in (("steps", steps), ("batch", 2), ("workers", 0), ("log_every", 1)):
        overrides.append(f"stages.{stage}.{key}={value}")
    return load(name, *overrides)


@pytest.mark.parametrize("name", NAMES)
def test_unfilled_paths_are_named_all_at_once(name):
    recipe = load(name)
    with pytest.raises(DataError) as told:
        require_inputs(recipe)
    message = str(told.value)
    assert all(f"data.{source}.path is not filled in" in message for source in recipe.data)
    assert ("base.checkpoint is not filled in" in message) == (name != "published_stage1")
    assert "\n" not in message


def test_what_the_paper_says_is_what_the_recipes_say():
    stage1, stage2, long = (load(name) for name in NAMES)
    selector, images = stage1.stages["selector"], stage1.stages["images"]
    assert (selector.trained, selector.lr, selector.batch) == (("selector", "projector"), 1e-3, 32)
    assert (images.steps, images.batch, images.frames) == (30000, 16, (1, 1))
    videos, clips = stage2.stages["videos"], long.stages["long"]
    assert (videos.steps, videos.batch, videos.frames, videos.interval) == (20000, 16, (2, 8), (1, 60))
    assert (clips.steps, clips.batch, clips.frames) == (2000, 1, (32, 32))
    assert {stage.warmup_share for stage in (selector, images, videos, clips)} == {0.03}
    assert len(images.trained) == len(videos.trained) == len(clips.trained) == 4
    assert set(stage2.data) - set(stage1.data) == {"elysiumtrack", "videochat"}
    assert set(stage1.data) - set(stage2.data) == {"llava_pretrain", "grit"}


@pytest.mark.timeout(300)
def test_all_three_run_one_after_the_other(towers, data_folder, sets, tmp_path):
    first = small(
        "published_stage1",
        data_folder,
        sets,
        tmp_path / "sets1",
        "selector",
        2,
        f"base.vision={towers / 'vision'}",
        f"base.llm={towers / 'llm'}",
        "base.visual_tokens=6",
        "stages.images.steps=2",
        "stages.images.batch=2",
        "stages.images.workers=0",
    )
    for name in first.stages:
        run_stage(first, name, tmp_path / "first")
    assert steps_done(first, tmp_path / "first") == {"selector": 2, "images": 2}
    images = tmp_path / "first" / "images" / "checkpoint"
    second = small("published_stage2", data_folder, sets, tmp_path / "sets2", "videos", 2, f"base.checkpoint={images}")
    run_stage(second, "videos", tmp_path / "second")
    videos = tmp_path / "second" / "videos" / "checkpoint"
    third = small(
        "published_long",
        data_folder,
        sets,
        tmp_path / "sets3",
        "long",
        1,
        f"base.checkpoint={videos}",
        "stages.long.max_turns=1",
    )
    run_stage(third, "long", tmp_path / "third")
    check_model(tmp_path / "third" / "long" / "checkpoint")


def check_model(folder: Path) -> None:
    """Load a checkpoint as a user would, and use it."""
    model = Elysium.from_pretrained(folder, device="cpu")
    assert model.info.clip_length == 32
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(3)]
    assert 0 <= model.ground(images[0], "the red mug").score <= 1
    tracker = model.tracker()
    tracker.add(box=Box(0.2, 0.2, 0.6, 0.6))
    updates = [tracker.step(Frame(image, index=number))[0] for number, image in enumerate(images)]
    assert [update.frame_index for update in updates] == [0, 1, 2]


def test_towers_that_are_published_as_bin_are_read_when_allowed(towers, tmp_path, pickles_converted_here):
    for tower in ("vision", "llm"):
        shutil.copytree(towers / tower, tmp_path / tower)
        weights = tmp_path / tower / "model.safetensors"
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    base = BaseConfig(vision=str(tmp_path / "vision"), llm=str(tmp_path / "llm"), visual_tokens=6)
    with pytest.raises(ModelFileError, match=r"base\.allow_pickle_weights") as told:
        load_base(base, seed=0)
    assert told.value.code == "MODEL_UNSAFE"
    found = load_base(base.model_copy(update={"allow_pickle_weights": True}), seed=0).network.state_dict()
    usual = base.model_copy(update={"vision": str(towers / "vision"), "llm": str(towers / "llm")})
    wanted = load_base(usual, seed=0).network.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())
