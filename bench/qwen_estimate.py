"""Memory and frame rate of Qwen-VL models that follow by words, computed from sizes and the limits of machines.

Nothing is measured: a pass takes as long as its slower part, reading the weights or the arithmetic. 80 % of the
bandwidth and 60 % of the arithmetic are expected, and three passes a frame. A frame is encoded once; each object takes
a question and a drafted answer of about 60 tokens in the first pass, and 20 tokens in each further one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say

_TOKENS = (300, 117)
_PASSES = 3.0
_QUESTION_AND_DRAFT, _REDRAFT = 60, 20
_BANDWIDTH_SHARE, _ARITHMETIC_SHARE = 0.8, 0.6
_BYTES = 2


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a model, from its published configuration.

    Attributes:
        name: Name of the model.
        width: Width of the language model.
        heads: Attention heads.
        kv_heads: Key/value heads.
        head_dim: Width of a head.
        mlp: Width inside the MLPs.
        layers: Decoder layers.
        vocab: Entries of the vocabulary.
        tied: Whether the head shares the weights of the embeddings.
        vision: Depth, width and MLP width of the vision encoder, and its matrices in an MLP.
    """

    name: str
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    layers: int
    vocab: int
    tied: bool
    vision: tuple[int, int, int, int]

    @property
    def layer_weights(self) -> int:
        """Weights of all decoder layers."""
        attention = 2 * self.width * (self.heads + self.kv_heads) * self.head_dim
        return self.layers * (attention + 3 * self.width * self.mlp)

    @property
    def vision_weights(self) -> int:
        """Weights of the vision encoder's layers."""
        depth, width, mlp, matrices = self.vision
        return depth * (4 * width * width + matrices * width * mlp)

    @property
    def weights(self) -> int:
        """All weights, without small ones."""
        return self.layer_weights + self.width * self.vocab * (1 if self.tied else 2) + self.vision_weights

    @property
    def kv_bytes(self) -> int:
        """Keys and values of a token [bytes]."""
        return 2 * self.layers * self.kv_heads * self.head_dim * _BYTES


SIZES = (
    Size("Qwen3-VL-2B", 2048, 16, 8, 128, 6144, 28, 151_936, True, (24, 1024, 4096, 2)),
    Size("Qwen3-VL-4B", 2560, 32, 8, 128, 9728, 36, 151_936, True, (24, 1024, 4096, 2)),
    Size("Qwen3-VL-8B", 4096, 32, 8, 128, 12_288, 36, 151_936, False, (27, 1152, 4304, 2)),
    Size("Qwen2.5-VL-3B", 2048, 16, 2, 128, 11_008, 36, 151_936, True, (32, 1280, 3420, 3)),
    Size("Qwen2.5-VL-7B", 3584, 28, 4, 128, 18_944, 28, 152_064, False, (32, 1280, 3420, 3)),
)

MACHINES = {"H200": (4.8e12, 790e12), "RTX 4090": (1.0e12, 165e12), "Orin 64 GB": (204.8e9, 42.6e12)}
"""Bandwidth [bytes/s] and bfloat16 arithmetic [FLOP/s] of machines, from their data sheets."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model takes on a machine.

    Attributes:
        model: Name of the model.
        machine: Name of the machine.
        visual_tokens: Visual tokens of a frame.
        objects: Objects that are followed together.
        memory_gb: Weights, keys and values [GB].
        frames_per_second: Expected rate.
        plain_frames_per_second: The same if each object were asked for apart, one token a pass.
    """

    model: str
    machine: str
    visual_tokens: int
    objects: int
    memory_gb: float
    frames_per_second: float
    plain_frames_per_second: float


def estimate(size: Size, machine: str, visual_tokens: int, objects: int) -> Estimate:
    """Compute memory and rates."""
    bandwidth, arithmetic = MACHINES[machine]
    bandwidth, arithmetic = bandwidth * _BANDWIDTH_SHARE, arithmetic * _ARITHMETIC_SHARE
    read = (size.layer_weights + size.width * size.vocab) * _BYTES

    def pass_s(tokens: float) -> float:
        return max(read / bandwidth, 2 * size.layer_weights * tokens / arithmetic)

    # Four patches make a visual token; attention among the patches of a frame is counted.
    depth, width, _, _ = size.vision
    patches = 4 * visual_tokens
    vision_flop = 2 * size.vision_weights * patches + 4 * depth * patches * patches * width
    vision_s = max(vision_flop / arithmetic, size.vision_weights * _BYTES / bandwidth)
    first = pass_s(visual_tokens + objects * _QUESTION_AND_DRAFT)
    engine_s = vision_s + first + (_PASSES - 1) * pass_s(objects * _REDRAFT)
    plain_s = objects * (vision_s + pass_s(visual_tokens + 20) + 39 * pass_s(1))
    tokens = visual_tokens + objects * 2 * _QUESTION_AND_DRAFT
    memory = size.weights * _BYTES + tokens * size.kv_bytes
    return Estimate(size.name, machine, visual_tokens, objects, memory / 1e9, 1 / engine_s, 1 / plain_s)


def command(
    tokens: Annotated[list[int] | None, typer.Option(help="Visual tokens of a frame; repeatable.")] = None,
    objects: Annotated[int, typer.Option(min=1, help="Objects that are followed together.")] = 2,
    json: JsonOption = False,
) -> None:
    """Compute memory and frame rates of Qwen-VL models that follow by words; nothing is measured.

    Rates are those of the engine; in brackets, each object asked for apart and one token a pass.
    """
    if not json:
        say(f"| Model | Visual tokens | Memory [GB] | {' | '.join(MACHINES)} |")
        say("|---" * (3 + len(MACHINES)) + "|")
    for size in SIZES:
        for count in tokens or _TOKENS:
            found = [estimate(size, machine, count, objects) for machine in MACHINES]
            if json:
                for each in found:
                    emit(asdict(each))
                continue
            rates = " | ".join(f"{each.frames_per_second:.3g} ({each.plain_frames_per_second:.2g})" for each in found)
            say(f"| {size.name} | {count} | {found[0].memory_gb:.1f} | {rates} |")


if __name__ == "__main__":
    from bench.app import run

    run("qwen_estimate")
