"""Cost of a frame before the language model, for every row of the paper's adapter ablation (table 7).

Weights are random: time and memory do not depend on their values. At other sizes than the paper's,
resolutions and numbers of tokens keep their ratio to the full grid.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionConfig

from bench.memory import MemoryMeter
from elysium_core.device import device_errors, free_bytes, synchronize
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig
from elysium_core.vision.onnx_export import export_onnx
from elysium_core.vision.onnx_vision import OnnxVision, import_onnxruntime
from elysium_core.vision.torch_vision import TorchVision, VisionBackend
from elysium_core.vision.vision_choice import graph_precision

BACKENDS = ("torch", "onnx")
_FULL_SIDE_PX = 336
_FULL_TOKENS = 576
# A network is built in float32, and exporting and running make copies.
_COPIES = 3


@dataclass(frozen=True, slots=True)
class VisionSize:
    """Sizes of vision encoder and projector at full resolution.

    Attributes:
        side_px: Input side [px].
        patch_px: Patch side [px].
        width: Width of the vision encoder.
        layers: Its layers; the last one is not used.
        heads: Its attention heads.
        mlp_width: Width of its MLPs.
        llm_width: Width of the language model.
    """

    side_px: int
    patch_px: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    llm_width: int


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One row of the table.

    Attributes:
        adapter: Name in the adapter registry.
        side_px: Input side in the paper [px].
        tokens: Visual tokens a frame in the paper.
    """

    adapter: str
    side_px: int
    tokens: int


ROWS = (
    AblationRow("none", 224, 256),
    AblationRow("none", 336, 576),
    AblationRow("cross_attention", 336, 144),
    AblationRow("concatenation", 336, 144),
    *(AblationRow("t_selector", 336, tokens) for tokens in (1, 36, 72, 108, 144, 256, 288)),
)

PAPER_SIZE = VisionSize(336, 14, 1024, 24, 16, 4096, 4096)
"""CLIP ViT-L/14 at 336 px before a 7B language model."""
TINY_SIZE = VisionSize(48, 4, 32, 2, 2, 64, 48)
"""A size for trials: a quarter of the paper's tokens, and almost no arithmetic."""


@dataclass(frozen=True, slots=True)
class VisionCost:
    """The cost of one row with one backend.

    Attributes:
        adapter: Name in the adapter registry.
        side_px: Input side [px].
        tokens: Visual tokens a frame after the adapter.
        parameters: Weights of vision encoder, adapter and projector.
        adapter_parameters: Those of the adapter alone.
        backend: ``torch`` or ``onnx``.
        ms: Lower quartile, median and upper quartile of the time of one batch [ms]; empty if it was not run.
        memory_mib: Peak memory, weights included [MiB]; None where the system does not count it.
        speedup: Quartiles of torch's time over this backend's, run by run; empty for torch.
        skipped: Why the row was not run; empty if it was.
    """

    adapter: str
    side_px: int
    tokens: int
    parameters: int
    adapter_parameters: int
    backend: str = ""
    ms: tuple[float, ...] = ()
    memory_mib: float | None = None
    speedup: tuple[float, ...] = ()
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class CostSettings:
    """Settings of a measurement.

    Attributes:
        size: Sizes of vision encoder and projector.
        backends: Some of :data:`BACKENDS`; they run in turns, so that a change of the machine's load affects all.
        device: Device of the weights and of the resulting tokens.
        dtype: Data type of the weights.
        batch: Frames in a batch.
        repeats: Timed runs of each backend, after an untimed one; at least 2.
        rows: The rows to measure.
    """

    size: VisionSize
    backends: tuple[str, ...] = ("torch",)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    batch: int = 1
    repeats: int = 9
    rows: tuple[AblationRow, ...] = ROWS


def measure_vision(settings: CostSettings) -> Iterator[VisionCost]:
    """Measure row by row; a row that does not fit into memory is skipped.

    Raises:
        BackendError: A backend cannot be used here.
    """
    _warm_up(settings)
    for row in settings.rows:
        facts = _facts(settings.size, row)
        needed, free = _COPIES * 4 * facts.parameters, free_bytes(settings.device)
        try:
            if free is not None and needed > free:
                raise BackendError(f"needs about {needed >> 20} MiB, {free >> 20} MiB are free", code="MEMORY")
            with device_errors("the vision encoder"):
                costs = _measure_row(settings, row, facts)
        except BackendError as error:
            if error.code != "MEMORY":
                raise
            costs = [replace(facts, backend=name, skipped=str(error)) for name in settings.backends]
        yield from costs


def row_shape(size: VisionSize, row: AblationRow) -> tuple[AdapterConfig, int]:
    """Return the adapter's settings and the input side [px] of a row at a size."""
    grid = round(size.side_px // size.patch_px * row.side_px / _FULL_SIDE_PX)
    patches = grid * grid
    kept = patches if row.adapter == "none" else max(1, round(patches * row.tokens / _FULL_TOKENS))
    return AdapterConfig(row.adapter, patches, kept, size.width), grid * size.patch_px


NO_LLM = LlamaSize.from_dict(
    {"vocab_size": 1, "hidden_size": 1, "intermediate_size": 1, "num_hidden_layers": 0, "num_attention_heads": 1}
)
"""A language model without layers; its width is replaced by that of the size."""


def build_row(size: VisionSize, row: AblationRow, llm: LlamaSize = NO_LLM) -> ElysiumNetwork:
    """Return a network of random weights.

    Args:
        size: Sizes; ``llm_width`` is the width of the language model.
        row: Adapter, resolution and number of tokens.
        llm: Sizes of the language model; by default it has no layers.
    """
    adapter, side_px = row_shape(size, row)
    vision = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=side_px,
        patch_size=size.patch_px,
    )
    config = ElysiumConfig(llm="", vision="", adapter=adapter)
    return ElysiumNetwork(config, vision, replace(llm, width=size.llm_width)).eval()


def _facts(size: VisionSize, row: AblationRow) -> VisionCost:
    """Return the facts of a row that need no measurement."""
    with torch.device("meta"):
        network = build_row(size, row)
    adapter, side_px = row_shape(size, row)
    adapter_parameters = _count(network.adapter)
    parameters = _count(network.visual_encoder) + adapter_parameters + _count(network.llm_proj)
    return VisionCost(row.adapter, side_px, adapter.out_token_num, parameters, adapter_parameters)


def _count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _warm_up(settings: CostSettings) -> None:
    """Load the libraries of the backends, so that their loading is not part of the first row."""
    if "onnx" in settings.backends:
        import_onnxruntime()
    network = build_row(TINY_SIZE, ROWS[-1]).to(settings.device, settings.dtype)
    TorchVision(network).encode([np.zeros((TINY_SIZE.side_px, TINY_SIZE.side_px, 3), np.uint8)])


def _measure_row(settings: CostSettings, row: AblationRow, facts: VisionCost) -> list[VisionCost]:
    torch.manual_seed(0)
    meter = MemoryMeter(settings.device)
    network = build_row(settings.size, row).to(settings.device, settings.dtype)
    shape = (settings.batch, facts.side_px, facts.side_px, 3)
    images = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    backends: dict[str, VisionBackend] = {}
    memory: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory(prefix="elysium-bench-") as folder:
        for name in settings.backends:
            if name != "torch":
                graph = export_onnx(network, Path(folder), graph_precision(network))
                meter = MemoryMeter(settings.device)
                backends[name] = OnnxVision(graph, facts.side_px, settings.device, settings.dtype)
            else:
                backends[name] = TorchVision(network)
            memory[name] = meter.peak_mib(partial(backends[name].encode, images))
    times = _time_in_turn(backends, images, settings)
    return [
        replace(
            facts,
            backend=name,
            ms=_quartiles(1000 * times[name]),
            memory_mib=memory[name],
            speedup=() if name == "torch" or "torch" not in times else _quartiles(times["torch"] / times[name]),
        )
        for name in settings.backends
    ]


def _time_in_turn(
    backends: Mapping[str, VisionBackend], images: Sequence[NDArray[np.uint8]], settings: CostSettings
) -> dict[str, NDArray[np.float64]]:
    """Return the times of each backend [s]; the measurement of memory has warmed them up."""
    times = {name: np.empty(settings.repeats) for name in backends}
    for turn in range(settings.repeats):
        for name, backend in backends.items():
            started = time.perf_counter()
            backend.encode(images)
            synchronize(settings.device)
            times[name][turn] = time.perf_counter() - started
    return times


def _quartiles(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(values, (25, 50, 75)))
