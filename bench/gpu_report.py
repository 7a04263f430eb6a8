"""All measurements that need a GPU, section by section, in one report.

The report is written after every part of a section: a run that is interrupted leaves a report of
the finished parts. A section for which no time is left says so in the report.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.engine_workload import SIZES, DecoderSize
from bench.gpu_agreement import measure_agreement, measure_small_model
from bench.gpu_follow import FollowSettings, full_runtime, measure_following, measure_ingest
from bench.gpu_machine import Rates, describe_machine, measure_rates
from bench.gpu_vision import measure_vision_backends
from bench.vision_cost import PAPER_SIZE, TINY_SIZE, VisionSize
from elysium_core.checkpoint.quantization import NONE, QUANTIZATIONS, check_quantization
from elysium_core.device import device_errors, dtype_name, release_memory
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.errors import BackendError
from elysium_core.families.elysium import ElysiumFamily, as_elysium
from elysium_core.io.files import atomic_path
from elysium_core.runtime import Runtime
from elysium_core.vision.vision_choice import build_vision

_MIB = 1 << 20
# Longest time of a part, roughly [s]; exporting a graph and building an engine of full size take minutes.
_NEEDED_S = {"follow": 40.0, "quantised": 40.0, "agreement": 15.0, "vision": 200.0}


@dataclass(frozen=True, slots=True)
class BenchSize:
    """Sizes of the models and measurements.

    Attributes:
        vision: Sizes of the vision half.
        decoder: Sizes of the language model.
        copy_bytes: Size of the copy that measures the memory bandwidth [bytes].
        matmul_side: Side of the matrices that measure the arithmetic.
        frames: Timed frames for each number of targets.
        repeats: Timed runs of everything else.
        scenes: Streams for the comparison of precisions.
    """

    vision: VisionSize
    decoder: DecoderSize
    copy_bytes: int
    matmul_side: int
    frames: int
    repeats: int
    scenes: int


BENCH_SIZES = {
    "paper": BenchSize(PAPER_SIZE, SIZES["paper"], 1024 * _MIB, 8192, 120, 30, 4),
    "tiny": BenchSize(TINY_SIZE, replace(SIZES["tiny"], width=TINY_SIZE.llm_width), 16 * _MIB, 256, 6, 3, 1),
}
"""``paper``: CLIP ViT-L/14-336 and a 7B LLaMA, for a GPU. ``tiny``: runs anywhere, to try the benchmark."""

SECTIONS = ("device", "rates", "ingest", "follow", "nano", "agreement", "quantised", "vision")
"""The sections, in their order: the most important and fastest ones come first."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """Settings of a run.

    Attributes:
        size: Key of :data:`BENCH_SIZES`.
        device: Device of all models.
        dtype: Data type of the random weights.
        sections: Some of :data:`SECTIONS`.
        targets: Numbers of targets to track.
        model: Trained model for the comparison of precisions.
        budget_s: Time for the whole run; a part that may need more than is left is skipped [s].
        out: File of the report; None = no file.
    """

    size: str
    device: torch.device
    dtype: torch.dtype
    sections: tuple[str, ...] = SECTIONS
    targets: tuple[int, ...] = (1, 4, 16)
    model: str = "nano"
    budget_s: float = 480.0
    out: Path | None = None


class GpuBench:
    """One run of the measurements.

    Args:
        settings: Settings of the run.
        on_part: Called with section and figures of every complete part.
        clock: A steady clock [s].
    """

    def __init__(
        self,
        settings: BenchSettings,
        on_part: Callable[[str, object], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._size = settings, BENCH_SIZES[settings.size]
        self._on_part, self._clock = on_part, clock
        self._started = clock()
        self._rates: Rates | None = None
        self._parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
            "device": self._device,
            "rates": self._device_rates,
            "ingest": self._ingest,
            "follow": self._follow,
            "nano": self._nano,
            "agreement": self._agreement,
            "quantised": self._quantised,
            "vision": self._vision,
        }
        self.report: dict[str, Any] = {
            "size": settings.size,
            "dtype": dtype_name(settings.dtype),
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "complete": False,
        }

    def run(self) -> dict[str, Any]:
        """Measure section by section. A section that fails is reported, and the next one begins.

        Raises:
            OSError: The report cannot be written.
        """
        self._save()
        for section in SECTIONS:
            if section in self._settings.sections:
                self._run_section(section)
        self.report |= {"complete": True, "seconds": round(self._clock() - self._started, 1)}
        self._save()
        return self.report

    def _run_section(self, section: str) -> None:
        parts = self._parts[section]()
        found: list[Any] = []
        needed = _NEEDED_S.get(section, 0.0) if self._settings.size == "paper" else 0.0
        while True:
            left = self._settings.budget_s - (self._clock() - self._started)
            if left < needed:
                found.append({"skipped": f"{max(0.0, left):.0f} s are left, and it may need {needed:g} s"})
                break
            try:
                with device_errors(f"the section {section!r}"):
                    part = next(parts, None)
            except BackendError as error:
                part, parts = {"skipped": str(error)}, iter(())
            if part is None:
                break
            found.append(part)
            self.report[section] = found
            self._save()
            if self._on_part is not None:
                self._on_part(section, part)
        self.report[section] = found
        self._save()
        release_memory(self._settings.device)

    def _device(self) -> Iterator[dict[str, Any]]:
        yield describe_machine(self._settings.device)

    def _known_rates(self) -> Rates:
        if self._rates is None:
            size = self._size
            self._rates = measure_rates(
                self._settings.device, self._settings.dtype, size.copy_bytes, size.matmul_side, size.repeats
            )
        return self._rates

    def _device_rates(self) -> Iterator[dict[str, Any]]:
        rates = self._known_rates()
        yield {
            "copy_gigabytes_per_s": round(rates.bytes_per_s / 1e9, 2),
            "matmul_teraflops_per_s": round(rates.flops_per_s / 1e12, 4),
        }

    def _ingest(self) -> Iterator[dict[str, Any]]:
        yield measure_ingest(self._follow_settings(), self._size.repeats)

    def _follow_settings(self) -> FollowSettings:
        size, settings = self._size, self._settings
        return FollowSettings(
            size.vision, size.decoder, settings.device, settings.dtype, frames=size.frames, warm_up=size.frames // 5 + 2
        )

    def _follow(self) -> Iterator[dict[str, Any]]:
        rates, settings = self._known_rates(), self._follow_settings()
        runtime = full_runtime(settings)
        for targets in self._settings.targets:
            yield measure_following(runtime, settings, targets, rates)
        if settings.device.type == "cuda":
            network = as_elysium(runtime.family).network
            vision = build_vision("torch", network, fast_resize=True, cuda_graphs=False)
            decoder = build_decoder(network.llm, cuda_graphs=False)
            eager = Runtime(ElysiumFamily(network, runtime.tokenizer, vision, decoder))
            yield measure_following(eager, settings, self._settings.targets[0], rates)

    def _quantised(self) -> Iterator[dict[str, Any]]:
        rates, settings = self._known_rates(), self._follow_settings()
        for kind in (kind for kind in QUANTIZATIONS if kind != NONE):
            try:
                check_quantization(kind, settings.device, settings.dtype)
                runtime = full_runtime(settings, quantization=kind)
            except BackendError as error:
                yield {"quantization": kind, "skipped": str(error)}
                continue
            yield {"quantization": kind, **measure_following(runtime, settings, self._settings.targets[0], rates)}
            del runtime
            release_memory(self._settings.device)

    def _nano(self) -> Iterator[dict[str, Any]]:
        frames = 200 if self._settings.size == "paper" else 20
        yield measure_small_model(self._settings.model, self._settings.device, frames)

    def _agreement(self) -> Iterator[dict[str, Any]]:
        frames = 36 if self._settings.size == "paper" else 8
        yield from measure_agreement(self._settings.model, self._settings.device, self._size.scenes, frames)

    def _vision(self) -> Iterator[dict[str, Any]]:
        size, settings = self._size, self._settings
        yield measure_vision_backends(size.vision, settings.device, settings.dtype, size.repeats)

    def _save(self) -> None:
        if self._settings.out is not None:
            with atomic_path(self._settings.out) as temporary:
                temporary.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
