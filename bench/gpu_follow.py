"""Tracking with a model of full size and random weights: frame rate, compared with a lower bound of the time.

The lower bound of a frame is the time for its arithmetic, and for reading weights and KV cache, at
the rates that were measured on the device in the same run (:class:`bench.gpu_machine.Rates`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from bench.engine_cost import Subject, script
from bench.engine_recording import RecordingRuntime, stamp_ns
from bench.engine_soak import CAMERA_PX
from bench.engine_workload import SIZES, DecoderSize, draw_scene, random_runtime
from bench.gpu_machine import Rates, percentiles, time_on
from bench.random_network import ROW, random_network
from bench.stage_clock import FrameTimes, Pass, StageClock, TimedDecoder, TimedVision
from bench.vision_cost import VisionSize, row_shape
from elysium_core.checkpoint.quantization import quantize
from elysium_core.device import synchronize
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.errors import BackendError
from elysium_core.families.elysium import ElysiumFamily, as_elysium
from elysium_core.frames import Frame
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.vision_encoder import VisionEncoder
from elysium_core.runtime import Runtime
from elysium_core.tracking.stream import StreamTracker
from elysium_core.vision.frame_upload import FrameUpload
from elysium_core.vision.vision_choice import build_vision

_SCENE_FRAMES = 36
_SCENE_PX = 128
_SEED = 7


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """Model and scene of a measurement.

    Attributes:
        vision: Sizes of the vision half.
        decoder: Sizes of the language model.
        device: Device of the model.
        dtype: Data type of the weights.
        window: Window of the stream.
        rate_hz: Frame rate that the targets' motion corresponds to [Hz].
        frames: Number of timed frames.
        warm_up: Frames before them, in which CUDA graphs are recorded.
    """

    vision: VisionSize
    decoder: DecoderSize
    device: torch.device
    dtype: torch.dtype
    window: str = "anchor"
    rate_hz: float = 30.0
    frames: int = 120
    warm_up: int = 24


def full_runtime(settings: FollowSettings, *, quantization: str = "none", cuda_graphs: bool = True) -> Runtime:
    """Return a runtime of random weights with its vision encoder.

    Raises:
        BackendError: The device has too little memory (``MEMORY``).
    """
    tokenizer = random_runtime(SIZES["tiny"], torch.device("cpu"), torch.float32).tokenizer
    decoder = settings.decoder
    llm = LlamaSize.from_dict(
        {
            "vocab_size": max(decoder.vocab, tokenizer.vocab_size),
            "hidden_size": decoder.width,
            "intermediate_size": decoder.mlp_width,
            "num_hidden_layers": decoder.layers,
            "num_attention_heads": decoder.heads,
        }
    )
    network = random_network(settings.vision, llm, settings.device, settings.dtype)
    if quantization != "none":
        quantize(network, quantization, settings.device)
    vision = build_vision("torch", network, fast_resize=True, cuda_graphs=cuda_graphs)
    return Runtime(ElysiumFamily(network, tokenizer, vision, build_decoder(network.llm, cuda_graphs=cuda_graphs)))


def measure_following(runtime: Runtime, settings: FollowSettings, targets: int, rates: Rates) -> dict[str, Any]:
    """Track some targets, and measure the time of a frame by stages and relative to the lower bound.

    The answers are the true boxes, which cost as much as those of a trained model.
    """
    device, clock = settings.device, StageClock(settings.device)
    family = as_elysium(runtime.family)
    vision, decoder = TimedVision(family.vision, clock), TimedDecoder(family.decoder, clock)
    timed = Runtime(ElysiumFamily(family.network, family.tokenizer, vision, decoder))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step, _ = _player(timed, settings, targets)
    numbers = itertools.count()
    for _ in range(settings.warm_up):
        step(next(numbers))
    times = [clock.frame(lambda: step(next(numbers))) for _ in range(settings.frames)]
    report = _report(times, as_elysium(runtime.family).network, rates)
    report |= {"targets": targets, "window": settings.window, "language_model": runtime.family.decoder.description}
    if device.type == "cuda":
        report["memory_mib"] = torch.cuda.max_memory_allocated(device) >> 20
    report["fps_with_vision_ahead"] = _ahead_rate(runtime, settings, targets)
    return report


def _ahead_rate(runtime: Runtime, settings: FollowSettings, targets: int) -> float:
    """Return the frame rate if the next frame is encoded while the language model runs."""
    step, frame_at = _player(runtime, settings, targets)
    frames = [frame_at(number) for number in range(settings.warm_up + settings.frames + 1)]
    for number in range(settings.warm_up):
        step(number, frames)
    started = time.perf_counter()
    for number in range(settings.warm_up, settings.warm_up + settings.frames):
        step(number, frames)
    return round(settings.frames / (time.perf_counter() - started), 2)


def _player(
    runtime: Runtime, settings: FollowSettings, targets: int
) -> tuple[Callable[..., None], Callable[[int], Frame]]:
    """Return a function that tracks frame ``number``, from 0, and one that makes it; see :func:`_ahead_rate`."""
    scene = draw_scene(_SEED, _SCENE_FRAMES, targets, settings.rate_hz, _SCENE_PX)
    subject = Subject(runtime, scene, (), settings.rate_hz, scripted=True)
    spans = ([scene.place(number)] for number in itertools.count(1))
    recording = RecordingRuntime(runtime, as_elysium(runtime.family).vision, script(subject, range(targets), spans))
    tracker = StreamTracker(recording, subject.following(settings.window, targets))
    for track in scene.boxes:
        tracker.add(box=track[0])
    pictures = [cv2.resize(image, CAMERA_PX) for image in scene.images]

    def frame_at(number: int) -> Frame:
        return Frame(pictures[scene.place(number)], stamp_ns=stamp_ns(number, settings.rate_hz), index=number)

    def step(number: int, frames: Sequence[Frame] = ()) -> None:
        frame = frames[number] if frames else frame_at(number)
        if frames:
            recording.prefetch(frames[number + 1].image)
        tracker.step(frame)

    return step, frame_at


def _report(times: Sequence[FrameTimes], network: ElysiumNetwork, rates: Rates) -> dict[str, Any]:
    wall = [frame.wall_ms for frame in times]
    first = [frame.pass_ms[0] for frame in times if frame.pass_ms]
    later = [ms for frame in times for ms in frame.pass_ms[1:]]
    device_ms = [frame.vision_ms + sum(frame.pass_ms) for frame in times]
    floor = Floor(network, rates)
    floors = [floor.vision_ms + sum(map(floor.pass_ms, frame.passes)) for frame in times]
    passes = [(done, ms) for frame in times for done, ms in zip(frame.passes, frame.pass_ms, strict=True)]
    return {
        "frames": len(times),
        "fps": round(1000 * len(wall) / sum(wall), 2),
        "ms": percentiles(wall),
        "stages_ms": {
            "vision": percentiles([frame.vision_ms for frame in times]),
            "pass A": percentiles(first),
            "pass B": percentiles(later),
            "host": percentiles([all_ms - busy for all_ms, busy in zip(wall, device_ms, strict=True)]),
        },
        "passes_per_frame": round(len(passes) / len(times), 3),
        "tokens_per_frame": round(sum(done.tokens for done, _ in passes) / len(times), 1),
        "gigabytes_per_s": round(1e-6 * sum(floor.bytes(done) for done, _ in passes) / sum(ms for _, ms in passes), 1),
        "teraflops_per_s": round(1e-9 * sum(floor.flops(done) for done, _ in passes) / sum(ms for _, ms in passes), 2),
        "floor_fps": round(1000 * len(floors) / sum(floors), 1),
        "fraction_of_floor": round(sum(floors) / sum(wall), 4),
    }


class Floor:
    """The lower bound of the time that a network's work takes at a device's rates.

    Args:
        network: The network; quantised weights count with their size in bytes.
        rates: Rates of the device.
    """

    def __init__(self, network: ElysiumNetwork, rates: Rates) -> None:
        size = network.llm.size
        head = network.llm.lm_head.weight
        layers = list(network.llm.model.layers.parameters())
        matrices = size.width * (2 * size.heads + 2 * size.kv_heads) * size.head_dim + 3 * size.width * size.mlp_width
        self._rates = rates
        self._weight_bytes = sum(weight.nbytes for weight in layers) + head.nbytes
        self._token_bytes = network.llm.kv_shape.token_bytes
        self._token_flops = 2 * size.layers * matrices
        self._column_flops = 4 * size.layers * size.heads * size.head_dim
        self.vision_ms = 1000 * vision_flops(network) / rates.flops_per_s

    def bytes(self, done: Pass) -> float:
        """Return the bytes that a pass must read."""
        return self._weight_bytes + done.columns * self._token_bytes

    def flops(self, done: Pass) -> float:
        """Return the number of arithmetic operations of a pass."""
        return done.tokens * (self._token_flops + self._column_flops * done.columns)

    def pass_ms(self, done: Pass) -> float:
        """Return the lower bound of the time of a pass, the larger one of reading and arithmetic [ms]."""
        return 1000 * max(self.bytes(done) / self._rates.bytes_per_s, self.flops(done) / self._rates.flops_per_s)


def vision_flops(network: ElysiumNetwork) -> float:
    """Return the arithmetic operations of vision encoder, adapter and projector for one frame."""
    encoder = network.visual_encoder
    if not isinstance(encoder, VisionEncoder):
        raise BackendError(f"operations are counted for CLIP vision encoders only, not for {type(encoder).__name__}")
    config = encoder.vision_model.config
    tokens, width = encoder.token_count + 1, encoder.width
    layer = 2 * tokens * (4 * width**2 + 2 * width * int(config.intermediate_size)) + 4 * tokens**2 * width
    patches = 2 * encoder.token_count * 3 * int(config.patch_size) ** 2 * width
    kept = network.config.adapter.out_token_num
    projector = 2 * kept * sum(part.weight.numel() for part in network.llm_proj if isinstance(part, torch.nn.Linear))
    return float(encoder.used_layers * layer + patches + projector)


def measure_ingest(settings: FollowSettings, repeats: int = 20) -> dict[str, Any]:
    """Measure the time to resize and upload one camera frame, with PIL and on the device [ms]."""
    width, height = CAMERA_PX
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = row_shape(settings.vision, ROW)[1]
    found: dict[str, Any] = {"picture": f"{width}x{height}", "side_px": side}
    for name, fast in (("pil", False), ("device", True)):
        upload = FrameUpload(side, fast_resize=fast)

        def run(upload: FrameUpload = upload) -> None:
            upload([image], settings.device)
            synchronize(settings.device)

        found[f"{name}_ms"] = percentiles(time_on(settings.device, run, repeats))
    return found
