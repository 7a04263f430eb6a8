"""Tiny data sets in every layout, two tiny pretrained towers, and the published recipes pointed at them."""

from __future__ import annotations

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.recipes import load_any_recipe

FRAMES = 12
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def write_pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(count)
    names = [f"{number:03d}.png" for number in range(count)]
    for name in names:
        Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / name)
    return names


def conversation(image: str) -> dict[str, Any]:
    return {
        "id": image,
        "image": image,
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "the mug"},
            {"from": "human", "value": "Where?"},
            {"from": "gpt", "value": "at [10,20,30,40]"},
        ],
    }


def track_line(number: int) -> dict[str, Any]:
    boxes = [[0.1 + 0.02 * t, 0.2, 0.4 + 0.02 * t, 0.6] for t in range(FRAMES)]
    boxes[3] = [0.0, 0.0, 0.0, 0.0]
    return {
        "id": f"t{number}",
        "vid": f"v{number}",
        "frames": [f"frames/v{number}/{t:03d}.png" for t in range(FRAMES)],
        "box": boxes,
        "frame_size": [32, 24],
        "object_class": "mug",
        "object_description": "the red mug",
    }


@pytest.fixture(scope="session")
def sets() -> ModuleType:
    """The module that writes small published training sets."""
    path = Path(__file__).with_name("published_sets.py")
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    """Data sets; read only."""
    root = tmp_path_factory.mktemp("data")
    names = write_pictures(root / "pictures", 4)
    write_lines(root / "chat.jsonl", [conversation(name) for name in names])
    thing = {"expression": "the apple", "box": [0.1, 0.2, 0.5, 0.6]}
    write_lines(root / "boxes.jsonl", [{"image": name, "objects": [thing, thing]} for name in names])
    ref = {"sent": "the mug", "bbox": [2, 3, 20, 15], "width": 32, "height": 24, "split": "train"}
    write_lines(root / "refcoco.jsonl", [{"image": name, **ref} for name in names])
    for number in range(2):
        write_pictures(root / "track" / "frames" / f"v{number}", FRAMES)
    write_lines(root / "track" / "ElysiumTrack-1M.json", [track_line(number) for number in range(2)])
    return root


@pytest.fixture(scope="session")
def towers(tmp_path_factory, tiny_folder) -> Path:
    """A vision encoder and a language model as transformers saves them, in ``vision`` and ``llm``."""
    root = tmp_path_factory.mktemp("towers")
    settings = json.loads((tiny_folder / "llm" / "config.json").read_text())
    torch.manual_seed(3)
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(root / "vision")
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(root / "llm")
    for path in (tiny_folder / "llm").glob("*token*"):
        shutil.copy(path, root / "llm")
    return root


@pytest.fixture
def settings(tiny_folder, data_folder) -> dict[str, Any]:
    """A recipe of one stage over all layouts, as YAML would give it."""
    pictures = str(data_folder / "pictures")
    return {
        "name": "tiny",
        "export": "all",
        "base": {"checkpoint": str(tiny_folder)},
        "precision": "float32",
        "stored_as": "float32",
        "device": "cpu",
        "data": {
            "chat": {"reader": "conversation", "path": str(data_folder / "chat.jsonl"), "media": pictures},
            "boxes": {"reader": "grounding", "path": str(data_folder / "boxes.jsonl"), "media": pictures},
            "ref": {"reader": "refcoco", "path": str(data_folder), "media": pictures},
            "track": {"reader": "elysiumtrack", "path": str(data_folder / "track")},
        },
        "stages": {
            "all": {
                "steps": 4,
                "mixture": {"chat": 1, "boxes": 1, "ref": 1, "track": 2},
                "lr": 1.0e-3,
                "batch": 4,
                "frames": [2, 4],
                "interval": [1, 3],
                "log_every": 1,
                "workers": 0,
            }
        },
    }


@pytest.fixture
def write_recipe(tmp_path):
    """Write settings as a recipe file."""

    def _write(settings: dict[str, Any], name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return path

    return _write


@pytest.fixture
def recipe_file(write_recipe, settings) -> Path:
    """The recipe as a file."""
    return write_recipe(settings)


@pytest.fixture
def recipe(recipe_file) -> FineTuneRecipe:
    """The recipe."""
    loaded = load_any_recipe(recipe_file)
    assert isinstance(loaded, FineTuneRecipe)
    return loaded
