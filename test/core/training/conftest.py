from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from elysium_core.data.synthetic.assets import sprite_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.prompt.layout import PromptLayout
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.nano.clip_batches import BatchBuilder
from elysium_core.training.nano.nano_model import build_tokenizer
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.scratch import build_training_model
from elysium_core.training.nano.stages import TrainingModel
from elysium_core.training.recipes import load_any_recipe

TINY: dict[str, Any] = {
    "name": "tiny",
    "export": "joint",
    "model": {
        "side_px": 64,
        "patch_px": 16,
        "vision_width": 32,
        "vision_layers": 1,
        "vision_heads": 2,
        "llm_width": 32,
        "llm_layers": 3,
        "llm_heads": 2,
        "llm_mlp": 48,
        "visual_tokens": 6,
        "vocab_size": 512,
    },
    "data": {
        "names": 6,
        "frames": [1, 2, 3],
        "frame_weights": [0.4, 0.3, 0.3],
        "objects": [1, 2, 3],
        "object_weights": [0.2, 0.4, 0.4],
        "gaps": [[0.5, 1], [0.5, 2], [0.5, 1]],
        "absent_share": 0.2,
        "vanish_share": 0.3,
        "photo_folders": [],
    },
    "stages": {
        "vision": {"kind": "vision", "steps": 3, "batch_frames": 6, "frames": 1},
        "language": {"kind": "language", "steps": 3, "batch_frames": 6},
        "distil": {
            "kind": "distil",
            "steps": 2,
            "batch_frames": 6,
            "init": ["vision", "language"],
            "words_frozen": True,
            "parts": [["network.visual_encoder", "network.adapter", "patch_heads"], ["network.llm", "oracle"]],
        },
        "joint": {"kind": "joint", "steps": 4, "batch_frames": 6, "init": ["language", "distil"], "words_frozen": True},
    },
}
"""A recipe of all four stages that runs in seconds."""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny recipe; it cannot be changed."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    loaded = load_any_recipe(path)
    assert isinstance(loaded, Recipe)
    return loaded


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    """The tiny recipe."""
    loaded = load_any_recipe(recipe_file)
    assert isinstance(loaded, Recipe)
    return loaded


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of the tiny recipe."""
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    build_tokenizer(sprite_names()[: TINY["data"]["names"]], TINY["model"]["vocab_size"], folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> TextTokenizer:
    return TextTokenizer.from_folder(tokenizer_folder)


@pytest.fixture
def generator() -> ClipGenerator:
    """Small clips on procedural backgrounds."""
    return ClipGenerator(sprite_names()[: TINY["data"]["names"]], [], 0, SceneConfig(side_px=64, vanish_share=0.3))


@pytest.fixture
def builder(recipe: Recipe, generator: ClipGenerator, tokenizer: TextTokenizer) -> BatchBuilder:
    return BatchBuilder(
        generator,
        recipe.data,
        PromptLayout(tokenizer, recipe.model.system_text),
        recipe.model.visual_tokens,
        recipe.model.patch_px,
    )


@pytest.fixture
def model(recipe: Recipe, tokenizer: TextTokenizer) -> TrainingModel:
    """The tiny model with its first weights."""
    return build_training_model(recipe, tokenizer, 0.5)
