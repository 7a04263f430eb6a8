"""Building of TensorRT engines of the vision encoder.

Two packages have the same interface: ``tensorrt``, and ``tensorrt_rtx``, which builds without a
GPU. An engine is made from one graph by one version of TensorRT for one kind of GPU. The
description beside it says which; an engine that was made otherwise is stale and not used.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from elysium_core.checkpoint.integrity import described_file, read_description, stale_reason, untrusted_reason
from elysium_core.errors import BackendError, pip_line
from elysium_core.vision.onnx_export import INPUT_NAME

ENGINE_NAME = "vision.engine"
MAX_BATCH = 8
"""Largest batch of an engine [frames]."""
LARGEST_BATCH = 64
"""Largest batch of the exported graph [frames]."""
NO_GPU = "none"
"""Kind of GPU of an engine that was built without one."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase of the build, the number of steps done, and their total number."""

_PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
_logger = logging.getLogger(__name__)


def import_tensorrt() -> Any:
    """Import the installed TensorRT package.

    Raises:
        BackendError: None is installed, or none that works.
    """
    broken = ""
    for package in _PACKAGES:
        try:
            return importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                broken = f"{package} lacks the module {error.name}"
        except (ImportError, OSError, RuntimeError) as error:
            broken = f"{package}: {_first_line(error)}"
    if broken:
        raise BackendError(f"TensorRT is installed but does not work ({broken}); install it again")
    raise BackendError(
        f"TensorRT is not installed; run: {pip_line('tensorrt')}, or use the torch or onnx vision backend"
    )


def gpu_kind(device: torch.device | None = None) -> str:
    """Return the name and compute capability of a GPU, such as ``NVIDIA H200 9.0``; ``none`` without a GPU.

    An engine that was tuned for one GPU may be slow or fail on another of the same capability.
    """
    if not torch.cuda.is_available():
        return NO_GPU
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} {major}.{minor}"


def engine_cache(folder: Path, gpu: str) -> Path:
    """Return the folder of the engines for a kind of GPU in the cache of a graph.

    Several GPUs may share one cache, in one machine or over a network: each keeps its own engine.

    Args:
        folder: Folder of the graph in the cache.
        gpu: See :func:`gpu_kind`.
    """
    return folder / re.sub(r"[^A-Za-z0-9.]+", "-", gpu)


def describe_engine(graph: Mapping[str, object], gpu: str) -> dict[str, object]:
    """Return the description of an engine that can be used here: made from this graph, by this TensorRT, for this GPU.

    Args:
        graph: Description of the graph.
        gpu: See :func:`gpu_kind`.

    Raises:
        BackendError: There is no TensorRT.
    """
    trt = import_tensorrt()
    return {
        **graph,
        "package": trt.__name__.removesuffix("_bindings"),
        "version": trt.__version__,
        "gpu": gpu,
    }


def build_engine(
    graph: Path,
    folder: Path,
    gpu: str = NO_GPU,
    max_batch: int = MAX_BATCH,
    progress: Progress | None = None,
) -> Path:
    """Build an engine from an ONNX graph, unless a current one exists that is trusted.

    Without a GPU only TensorRT-RTX can build. Such an engine is for the GPU ``none``, and
    is built again on a machine with a GPU.

    Args:
        graph: ``vision.onnx`` with its description; its precision becomes the engine's.
        folder: Folder of ``vision.engine``.
        gpu: See :func:`gpu_kind`.
        max_batch: Largest batch, 1..64 frames; the engine is optimised for one frame.
        progress: See :data:`Progress`; by default progress is logged.

    Returns:
        The engine's file.

    Raises:
        BackendError: The graph is damaged or has no description, or TensorRT cannot parse it or
            build from it; the message has TensorRT's errors (``ENGINE_BUILD``).
    """
    if not 1 <= max_batch <= LARGEST_BATCH:
        raise BackendError(f"max_batch = {max_batch} is not in 1..{LARGEST_BATCH}", code="ENGINE_BUILD")
    if reason := stale_reason(graph, {}):
        raise BackendError(f"{reason}; export it again with: elysium export", code="ENGINE_BUILD")
    wanted = describe_engine(read_description(graph) or {}, gpu) | {"max_batch": max_batch}
    engine = folder / ENGINE_NAME
    if not (stale_reason(engine, wanted) or untrusted_reason(engine)):
        return engine
    _logger.info("building a TensorRT engine of %s", graph)
    started = time.monotonic()
    plan = _Build(import_tensorrt(), graph, progress or _log_progress).run(max_batch, str(wanted["precision"]))
    try:
        with described_file(engine, wanted) as temporary:
            temporary.write_bytes(plan)
    except OSError as error:
        raise BackendError(f"cannot write {engine}: {error.strerror or error}", code="ENGINE_BUILD") from error
    _logger.info("built %s (%.1f MB) in %.0f s", engine, len(plan) / 1e6, time.monotonic() - started)
    return engine


def _log_progress(part: str, done: int, total: int) -> None:
    _logger.info("TensorRT: %s, %d of %d", part, done, total)


class _Build:
    """One build, with TensorRT's errors for the error message."""

    def __init__(self, trt: Any, graph: Path, progress: Progress) -> None:
        self._trt, self._graph = trt, graph
        self._log = new_log(trt)
        self._monitor = _new_monitor(trt, progress)

    def run(self, max_batch: int, precision: str) -> bytes:
        try:
            builder = self._trt.Builder(self._log)
            network = self._parse(builder)
            plan = builder.build_serialized_network(network, self._configure(builder, network, max_batch, precision))
        except (TypeError, RuntimeError) as error:  # the bindings raise these when the library returns nothing
            raise self._failure("could not start on", _first_line(error)) from error
        if self._monitor.stopped:
            raise KeyboardInterrupt
        if plan is None:
            raise self._failure("could not build an engine of")
        return bytes(plan)

    def _parse(self, builder: Any) -> Any:
        # Strongly typed: every version of TensorRT keeps the data types of the graph.
        network = builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        # The parser owns the weights of the network, so it must live until the engine is built.
        self._parser = self._trt.OnnxParser(network, self._log)
        if not self._parser.parse(self._graph.read_bytes()):
            raise self._failure("cannot read")
        # The parser takes some damaged files for an empty graph.
        if [network.get_input(index).name for index in range(network.num_inputs)] != [INPUT_NAME]:
            raise self._failure("cannot read", f"it is not a graph with the input {INPUT_NAME!r}")
        return network

    def _configure(self, builder: Any, network: Any, max_batch: int, precision: str) -> Any:
        shape = tuple(network.get_input(0).shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, (1, *shape), (1, *shape), (max_batch, *shape))
        config = builder.create_builder_config()
        config.add_optimization_profile(profile)
        config.progress_monitor = self._monitor
        if precision == "float32":
            # TF32 would multiply float32 with only ten bits of mantissa.
            config.clear_flag(self._trt.BuilderFlag.TF32)
        return config

    def _failure(self, verb: str, otherwise: str = "for no stated reason") -> BackendError:
        said = "; ".join(dict.fromkeys(self._log.errors)) or otherwise
        return BackendError(f"TensorRT {verb} {self._graph}: {said}", code="ENGINE_BUILD")


def new_log(trt: Any) -> Any:
    """Return a TensorRT logger that forwards warnings to Python's log and collects errors.

    Its class is defined here because its base class is in the package, which may not be installed.
    """

    class Log(trt.ILogger):  # type: ignore[name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(line)
            elif severity == trt.ILogger.WARNING:
                _logger.info("TensorRT: %s", line)

    return Log()


def _new_monitor(trt: Any, progress: Progress) -> Any:
    """Return a progress monitor that reports the steps of the outermost phases, and stops the build after Ctrl-C.

    The library swallows exceptions of Python callbacks; a build is stopped by a return value.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._totals: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._totals[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            try:
                if name in self._totals:
                    progress(name, step + 1, self._totals[name])
            except KeyboardInterrupt:
                self.stopped = True
            return not self.stopped

        def phase_finish(self, name: str) -> None:
            self._totals.pop(name, None)

    return Monitor()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
