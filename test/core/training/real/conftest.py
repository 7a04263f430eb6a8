"""A recipe of all three stages that runs in seconds, on pictures that the tests make: coloured squares on clouds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import write_image
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.prompt.build_tokenizer import train_tokenizer
from elysium_core.training.real import real_model
from elysium_core.training.real.real_recipe import RealRecipe
from elysium_core.training.recipes import load_any_recipe

COLORS = ((220, 40, 40), (40, 60, 220), (230, 210, 40), (200, 50, 200))
WORDS = ("cherry", "deep sea", "lemon", "plum")
"""Names of squares of these colours."""
TINY: dict[str, Any] = {
    "kind": "real",
    "name": "tiny",
    "export": "joint",
    "model": {
        "frame_px": 64,
        "frame_tokens": 6,
        "live_px": 64,
        "anchor_px": 32,
        "live_tokens": 8,
        "anchor_tokens": 4,
        "neck": 24,
        "match": 16,
        "trunk": 24,
        "token_width": 48,
        "llm_width": 64,
        "llm_layers": 3,
        "llm_heads": 4,
        "llm_mlp": 128,
        "vocab_size": 512,
        "words": list(WORDS),
    },
    "data": {
        "held_out": 12,
        "held_out_frames": 4,
        "seed": 3,
        "absent_share": 0.2,
        "cutout_share": 0.3,
        "true_box_share": 0.7,
    },
    "stages": {
        "read": {"kind": "read", "steps": 3, "batch": 4},
        "select": {"kind": "select", "steps": 3, "batch": 4, "init": ["read"], "distil_weight": 1.0},
        "joint": {"kind": "joint", "steps": 4, "batch": 4, "init": ["read", "select"]},
    },
}
for _stage in TINY["stages"].values():
    _stage |= {"frame_batch": 3, "questions": 4}
    if _stage["kind"] != "read":
        _stage["encoder_lr"] = 1e-4


def clouds(seed: int, width: int = 200, height: int = 160) -> np.ndarray:
    """Green and grey clouds, RGB."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(0, 1, (6, 8, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    grey = 80 + 60 * coarse[..., 0] + rng.normal(0, 4, (height, width))
    return np.clip(np.stack([grey * 0.7, grey + 30 * coarse[..., 1], grey * 0.6], -1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def square_photos(tmp_path_factory) -> Path:
    """Eighty photos with ``annotations.jsonl``: one coloured square in each, named after its colour."""
    folder = tmp_path_factory.mktemp("squares")
    lines = []
    for number in range(80):
        image, rng = clouds(number), np.random.default_rng(number)
        side, (x, y) = int(rng.integers(26, 44)), rng.integers(20, 90, 2)
        image[y : y + side, x : x + side] = COLORS[number % len(COLORS)]
        name = WORDS[number % len(COLORS)].replace(" ", "")
        write_image(folder / f"{number}.png", image)
        box = [x / 200, y / 160, (x + side) / 200, (y + side) / 160]
        lines.append(json.dumps({"image": f"{number}.png", "objects": [{"name": name, "box": box}]}))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory) -> Path:
    """Weights of an encoder, drawn at random; those of single channels nearly copy, so that colours last."""
    torch.manual_seed(0)
    encoder = EfficientNetEncoder(EfficientNetConfig(64))
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            torch.nn.init.zeros_(module.bias)
            if module.groups > 1:
                torch.nn.init.normal_(module.weight, std=0.1)
                middle = module.weight.shape[-1] // 2
                module.weight.data[:, :, middle, middle] += 1
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_file(encoder.state_dict(), path, metadata={"source": "a test", "license": "CC0-1.0"})
    return path


@pytest.fixture(scope="session")
def tokenizer_once():
    """A tokenizer is trained once for all runs with the same texts."""
    trained: dict[Any, Any] = {}

    def train(corpus, vocab_size):
        key = (texts := tuple(corpus), vocab_size)
        if key not in trained:
            trained[key] = train_tokenizer(texts, vocab_size)
        return trained[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_model, "train_tokenizer", train)
        yield


@pytest.fixture(scope="session")
def real_file(tmp_path_factory, square_photos, encoder_file, sprites_once, tokenizer_once) -> Path:
    """The recipe as a file; read only."""
    raw = TINY | {
        "model": TINY["model"] | {"encoder_weights": str(encoder_file)},
        "data": TINY["data"] | {"photos": [str(square_photos)]},
    }
    path = tmp_path_factory.mktemp("recipe") / "real.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture
def real_recipe(real_file) -> RealRecipe:
    """The recipe."""
    loaded = load_any_recipe(real_file)
    assert isinstance(loaded, RealRecipe)
    return loaded


@pytest.fixture(scope="session")
def square_video():
    """``square_video(number)`` gives frames in which a square crosses clouds, and its box in each."""

    def make(number: int, length: int = 20) -> tuple[list[Frame], list[Box]]:
        side, background = 34, clouds(500 + number)
        dx, dy = ((4, 1), (3, -1), (4, 2), (5, 0))[number % 4]
        frames, boxes = [], []
        for index in range(length):
            x, y, image = 40 + dx * index, 50 + dy * index, background.copy()
            image[max(0, y) : y + side, max(0, x) : x + side] = COLORS[number % len(COLORS)]
            frames.append(Frame(image, index=index, stamp_ns=(index + 1) * 33_000_000))
            boxes.append(Box.from_px(x, y, x + side, y + side, 200, 160, clip=True))
        return frames, boxes

    return make


@pytest.fixture(scope="session")
def two_squares():
    """``two_squares(number)`` gives a picture of two squares of different colours, and their boxes by name."""

    def make(number: int) -> tuple[np.ndarray, dict[str, Box]]:
        rng, image = np.random.default_rng(900 + number), clouds(900 + number)
        boxes = {}
        named = rng.permutation(len(COLORS))[:2]
        left, right = int(rng.integers(10, 50)), int(rng.integers(110, 150))
        for which, x in zip(named, (left, right), strict=True):
            y, side = int(rng.integers(10, 100)), int(rng.integers(28, 44))
            image[y : y + side, x : x + side] = COLORS[which]
            boxes[WORDS[which]] = Box.from_px(x, y, x + side, y + side, 200, 160, clip=True)
        return image, boxes

    return make
