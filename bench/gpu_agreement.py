"""Agreement of a trained model in other precisions with the same model in float32.

In two ways. *Live*: whole streams are tracked in both precisions, and the boxes compared; an early
difference also changes later boxes. *Token by token*: both models get the same prompt and the
float32 answer, and predict the next token at each position. Where they differ, the margin says how
close the decision was: the difference of the two highest float32 logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from bench.engine_cost import Subject
from bench.engine_recording import Asked, RecordingRuntime, stamp_ns
from bench.engine_soak import CAMERA_PX
from bench.engine_workload import Scene, draw_scene
from bench.gpu_machine import percentiles
from elysium_core.api import Elysium
from elysium_core.checkpoint.quantization import NONE
from elysium_core.device import dtype_name, release_memory, resolve_dtype
from elysium_core.errors import BackendError
from elysium_core.families.elysium import as_elysium
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.network.llama import Llama
from elysium_core.prompt.box_text import quantize
from elysium_core.runtime import Runtime
from elysium_core.tracking.stream import StreamTracker


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to load a model.

    Attributes:
        dtype: Name of the data type.
        quantization: Quantisation of the language model.
    """

    dtype: str
    quantization: str = NONE

    @property
    def name(self) -> str:
        """Short name for tables."""
        return self.dtype if self.quantization == NONE else f"{self.dtype}, {self.quantization}"


REFERENCE = Variant("float32")


def variants(device: torch.device) -> list[Variant]:
    """Return the variants that are compared with float32 on a device."""
    half = "bfloat16" if device.type == "cuda" else "float32"
    plain = [REFERENCE, Variant("bfloat16"), *([Variant("float16")] if device.type == "cuda" else [])]
    return [*plain, *(Variant(half, kind) for kind in ("int8", "nf4", "fp8"))]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """The answers of a model for all scenes.

    Attributes:
        boxes: ``boxes[scene][frame]``, None where there is no box.
        asked: Prompts and answers of all scenes; empty if they were not recorded.
    """

    boxes: list[list[Box | None]]
    asked: list[Asked]


def measure_agreement(model: str, device: torch.device, scenes: int = 4, frames: int = 36) -> Iterator[dict[str, Any]]:
    """Compare every variant with float32 that runs without CUDA graphs.

    Args:
        model: Name or folder of a trained model.
        device: Device of all models.
        scenes: Number of streams with one target each.
        frames: Frames of each stream.
    """
    clips = [draw_scene(seed, frames, 1, 30.0, 128) for seed in range(1, scenes + 1)]
    reference = _load(model, device, REFERENCE, cuda_graphs=False).runtime
    expected = _follow(reference, clips, keeps_prompts=True)
    for variant in variants(device):
        try:
            # No variable refers to the model: the next variant needs its memory.
            compared = _compare(reference, _load(model, device, variant, cuda_graphs=True).runtime, expected, clips)
        except BackendError as error:
            compared = {"skipped": str(error)}
        release_memory(device)
        yield {"variant": variant.name, **compared}


def _load(model: str, device: torch.device, variant: Variant, *, cuda_graphs: bool) -> Elysium:
    return Elysium.from_pretrained(
        model,
        device=str(device),
        dtype=variant.dtype,
        quantization=variant.quantization,
        vision_backend="torch",
        cuda_graphs=cuda_graphs,
    )


def _follow(runtime: Runtime, clips: Iterable[Scene], *, keeps_prompts: bool = False) -> _Run:
    boxes, asked = [], []
    for scene in clips:
        recording = RecordingRuntime(runtime, as_elysium(runtime.family).vision, keeps_prompts=keeps_prompts)
        tracker = StreamTracker(recording, Subject(runtime, scene, ()).following("anchor", 1))
        tracker.add(box=scene.boxes[0][0])
        seen = [tracker.step(frame)[0].box for frame in _frames(scene)]
        boxes.append(seen[1:])  # the first is given
        asked += recording.asked
    return _Run(boxes, asked)


def _frames(scene: Scene) -> Iterator[Frame]:
    for number, image in enumerate(scene.images):
        yield Frame(cv2.resize(image, CAMERA_PX), stamp_ns=stamp_ns(number, 30.0), index=number)


def _compare(reference: Runtime, runtime: Runtime, expected: _Run, clips: Sequence[Scene]) -> dict[str, Any]:
    found = _follow(runtime, clips)
    pairs = [
        pair
        for mine, wanted in zip(found.boxes, expected.boxes, strict=True)
        for pair in zip(mine, wanted, strict=True)
    ]
    both = [(mine, wanted) for mine, wanted in pairs if mine is not None and wanted is not None]
    drift = np.abs([np.subtract(quantize(mine), quantize(wanted)) for mine, wanted in both] or [[0]])
    overlap = [mine.iou(wanted) for mine, wanted in both]
    margins, words = _parted(
        as_elysium(reference.family).network.llm, as_elysium(runtime.family).network.llm, expected.asked
    )
    return {
        "boxes": len(pairs),
        "same_boxes": sum(mine == wanted for mine, wanted in pairs),
        "lost_or_found": len(pairs) - len(both) - sum(mine is None and wanted is None for mine, wanted in pairs),
        "drift_steps_mean": round(float(drift.mean()), 4),
        "drift_steps_max": int(drift.max()),
        "iou_mean": round(float(np.mean(overlap)), 4) if overlap else None,
        "iou_min": round(min(overlap), 4) if overlap else None,
        "words": words,
        "same_words": words - len(margins),
        "margins_where_they_part": sorted(round(margin, 4) for margin in margins),
        "language_model": runtime.family.decoder.description,
    }


@torch.inference_mode()
def _parted(reference: Llama, llm: Llama, asked: Sequence[Asked]) -> tuple[list[float], int]:
    """Return the margins of float32 where the other model predicts another token, and the number of all tokens."""
    margins: list[float] = []
    words = 0
    for question in asked:
        answer = question.answer.token_ids
        if not answer:
            continue
        wanted = _next_words(reference, question.prompt, answer)
        highest = wanted.topk(2, dim=-1)
        chosen = _next_words(llm, question.prompt, answer).argmax(-1)
        parts = chosen != highest.indices[:, 0]
        margins += (highest.values[:, 0] - highest.values[:, 1])[parts].tolist()
        words += len(answer)
    return margins, words


def _next_words(llm: Llama, prompt: Tensor, answer: Sequence[int]) -> Tensor:
    """Return the logits (A, vocab) for each token of an answer of A tokens, given all before it."""
    weight = llm.lm_head.weight
    written = llm.embed(torch.tensor(answer[:-1], dtype=torch.int64, device=weight.device))
    fed = torch.cat([prompt.to(weight.dtype), written])[None]
    hidden, _ = llm(fed, torch.arange(fed.shape[1], device=weight.device)[None])
    return llm.logits(hidden[0, len(prompt) - 1 :])


def measure_small_model(model: str, device: torch.device, frames: int = 200) -> dict[str, Any]:
    """Measure the frame rate of a trained model with one target and camera frames."""
    loaded = Elysium.from_pretrained(model, device=str(device), vision_backend="torch")
    scene = draw_scene(7, 36, 1, 30.0, 128)
    tracker = StreamTracker(loaded.runtime, Subject(loaded.runtime, scene, ()).following("anchor", 1))
    tracker.add(box=scene.boxes[0][0])
    pictures = list(_frames(scene))
    times = []
    for number in range(frames):
        frame = replace(pictures[scene.place(number)], stamp_ns=stamp_ns(number, 30.0), index=number)
        started = time.perf_counter()
        tracker.step(frame)
        times.append(1000 * (time.perf_counter() - started))
    settled = times[frames // 5 :]
    return {
        "model": model,
        "dtype": dtype_name(resolve_dtype("auto", device)),
        "fps": round(1000 * len(settled) / sum(settled), 2),
        "ms": percentiles(settled),
        "language_model": loaded.runtime.family.decoder.description,
    }
