"""Workloads for the engine: scenes with moving targets, and models of random weights in any size.

A scene is played forwards and backwards, so that a run of any length needs few frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionConfig

from elysium_core.data.synthetic.assets import sprite_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.device import device_errors, free_bytes
from elysium_core.errors import BackendError
from elysium_core.families.elysium import ElysiumFamily, as_elysium
from elysium_core.geometry import Box
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import PUBLISHED_SYSTEM_TEXT, AdapterConfig, ElysiumConfig
from elysium_core.prompt.box_text import LEVELS, quantize
from elysium_core.prompt.build_tokenizer import save_tokenizer, train_tokenizer
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.training.nano.nano_model import tokenizer_corpus
from elysium_core.vision.torch_vision import TorchVision

NAMES = 40
"""Number of names that scenes are drawn with; nano was trained on them."""

FEWEST_OBJECTS = 3
"""Fewest objects in a scene: a single one could not be confused with another."""

# So fast that at 30 Hz 0.72 of the coordinates (0..100) stay the same from frame to frame, as in LaSOT.
_TIME_UNITS_A_SECOND = 1.75
_VOCABULARY = 1024
# The rest is for keys and values, and for other programs.
_USABLE_MEMORY = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Frames and the true boxes of the targets in them.

    Attributes:
        images: (F, S, S, 3) uint8 RGB.
        boxes: ``boxes[target][frame]``, rounded to the grid of the answers.
    """

    images: NDArray[np.uint8]
    boxes: Sequence[Sequence[Box]]

    @property
    def repeat_rate(self) -> float:
        """Share of coordinates that are the same in the next frame."""
        levels = np.array([[quantize(box) for box in track] for track in self.boxes])
        return float((levels[:, 1:] == levels[:, :-1]).mean())

    def place(self, step: int) -> int:
        """Return the index of the frame at a step of a run, forwards and backwards."""
        last = len(self.images) - 1
        return last - abs(last - step % (2 * last))


def draw_scene(
    seed: int, frames: int, targets: int, rate_hz: float, side_px: int, objects: int = FEWEST_OBJECTS
) -> Scene:
    """Draw a scene on backgrounds that are never trained on.

    Args:
        seed: The same seed gives the same scene.
        frames: Frames F, >= 2.
        targets: Number of targets; objects that are visible in all frames come first.
        rate_hz: Frame rate, which determines how far objects move from frame to frame [Hz].
        side_px: Side S of the frames [px].
        objects: Number of objects, targets included; at least as many as targets.
    """
    generator = ClipGenerator.for_split("test", NAMES, seed, SceneConfig(side_px=side_px))
    gap = _TIME_UNITS_A_SECOND / rate_hz
    clip = generator.draw(frames, max(targets, objects), (gap, gap))
    seen = clip.targets
    order = [*seen, *(n for n in range(len(clip.names)) if n not in seen)][:targets]
    return Scene(clip.images, [[_on_grid(values) for values in clip.boxes[n]] for n in order])


def _on_grid(values: NDArray[np.float32]) -> Box:
    """Return a box rounded to the grid of the answers, at least one step wide and high."""
    x1, y1, x2, y2 = (round(float(value) * LEVELS) for value in values)
    x1, y1 = min(max(x1, 0), LEVELS - 1), min(max(y1, 0), LEVELS - 1)
    x2, y2 = min(max(x2, x1 + 1), LEVELS), min(max(y2, y1 + 1), LEVELS)
    return Box(x1 / LEVELS, y1 / LEVELS, x2 / LEVELS, y2 / LEVELS)


@dataclass(frozen=True, slots=True)
class DecoderSize:
    """Sizes of a language model of random weights.

    Attributes:
        width: Width.
        mlp_width: Width of its MLPs.
        layers: Layers.
        heads: Attention heads.
        vocab: Entries of its vocabulary.
        visual_tokens: Visual tokens a frame.
    """

    width: int
    mlp_width: int
    layers: int
    heads: int
    vocab: int
    visual_tokens: int


SIZES = {
    "tiny": DecoderSize(width=32, mlp_width=64, layers=2, heads=4, vocab=1024, visual_tokens=8),
    "nano": DecoderSize(width=128, mlp_width=384, layers=4, heads=4, vocab=1024, visual_tokens=24),
    "paper": DecoderSize(width=4096, mlp_width=11008, layers=32, heads=32, vocab=32000, visual_tokens=108),
}
"""Sizes of random models; ``paper`` is a 7B LLaMA with 108 visual tokens a frame."""


def random_runtime(size: DecoderSize, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Runtime:
    """Return a runtime of random weights; its vision encoder is a placeholder that must not be run.

    Raises:
        BackendError: The device has too little memory (``MEMORY``).
    """
    _check_memory(size, device, dtype)
    tokenizer = bench_tokenizer()
    llm = LlamaSize.from_dict(
        {
            "vocab_size": max(size.vocab, tokenizer.vocab_size),
            "hidden_size": size.width,
            "intermediate_size": size.mlp_width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
        }
    )
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=8
    )
    config = ElysiumConfig(llm="", vision="", adapter=AdapterConfig("t_selector", 1, 1, 8), feature_layer=-1)
    with torch.device("meta"):
        network = ElysiumNetwork(config, vision, llm).to(dtype).eval()
    with device_errors("the language model"):
        network.to_empty(device=device)
        torch.manual_seed(seed)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.02) if weight.ndim > 1 else torch.nn.init.ones_(weight)
    return Runtime(ElysiumFamily(network, tokenizer, TorchVision(network)))


def _check_memory(size: DecoderSize, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that does not fit into memory: the system would kill the process."""
    layer = 4 * size.width**2 + 3 * size.width * size.mlp_width
    needed = (2 * size.vocab * size.width + size.layers * layer) * dtype.itemsize
    free = free_bytes(device)
    if free is None or needed <= _USABLE_MEMORY * free:
        return
    fitting = int((_USABLE_MEMORY * free / dtype.itemsize - 2 * size.vocab * size.width) // layer)
    remedy = f"--layers {fitting}" if fitting > 0 else "a smaller --size"
    raise BackendError(
        f"random weights of this size need {needed / 2**30:.1f} GiB as {str(dtype).removeprefix('torch.')}, and "
        f"{free / 2**30:.1f} GiB of memory are free; use {remedy}, or --dtype bfloat16",
        code="MEMORY",
    )


def random_visual_tokens(runtime: Runtime, frames: int, tokens: int) -> list[torch.Tensor]:
    """Return random visual tokens (K, D) for each frame."""
    weight = as_elysium(runtime.family).network.llm.lm_head.weight
    generator = torch.Generator().manual_seed(frames)
    drawn = torch.randn(frames, tokens, weight.shape[1], generator=generator)
    return list(drawn.to(weight.device, weight.dtype))


def bench_tokenizer() -> TextTokenizer:
    """Return a tokenizer that needs about as many tokens for a box as LLaMA's."""
    texts = [*tokenizer_corpus(sprite_names()[:NAMES]), PUBLISHED_SYSTEM_TEXT]
    with tempfile.TemporaryDirectory(prefix="elysium-bench-") as folder:
        save_tokenizer(train_tokenizer(texts, _VOCABULARY), Path(folder))
        return TextTokenizer.from_folder(folder)
