"""Writing of ONNX graphs with a dynamic batch size, and of what describes them."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elysium_core.checkpoint.integrity import cache_root, described_file
from elysium_core.errors import BackendError, pip_line
from elysium_core.network.elysium_network import ElysiumNetwork

PRECISIONS = ("float32", "float16", "bfloat16")
"""Data types of a graph. TensorRT supports all of them, ONNX Runtime on a CPU does not support bfloat16."""
OPSET = 18
"""ONNX operator set of the graphs."""

_MAX_BATCH = 64
_LEAST_HALVED = 256
_NEEDED_PACKAGES = ("onnx", "onnxscript")
_logger = logging.getLogger(__name__)
_Module = TypeVar("_Module", bound=nn.Module)


def check_export(precision: str) -> None:
    """Refuse an export that cannot succeed. Called before weights are loaded.

    Raises:
        BackendError: The precision is not one of :data:`PRECISIONS`, or the packages of the
            ``onnx`` extra are missing (``EXPORT``).
    """
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}", code="EXPORT")
    for package in _NEEDED_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise BackendError(
                f"ONNX export needs the package {package!r}; run: {pip_line('onnx', 'onnxruntime', 'onnxscript')}",
                code="EXPORT",
            ) from error


def parts_hash(network: ElysiumNetwork, settings: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the SHA-256 of settings and of the weights of parts of a network.

    The data type does not matter, only the values: bfloat16 weights that are loaded as float32 have the same hash.
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for part in parts:
        for name, tensor in network.get_submodule(part).state_dict().items():
            digest.update(f"{part}.{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


def write_described(
    path: Path,
    description: Mapping[str, object],
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
) -> Path:
    """Write a graph and its description.

    Args:
        path: The file.
        description: What it is made from; ``precision`` is one of :data:`PRECISIONS`.
        graph: The module, in eval mode; it is not changed.
        inputs: Examples of its inputs by name, in order, all of the same batch size.
        outputs: Names of its outputs.

    Raises:
        BackendError: The packages of the ``onnx`` extra are missing, the export failed, or the file cannot be written
            (``EXPORT``).
    """
    check_export(str(description["precision"]))
    _logger.info("exporting the vision encoder to %s", path)
    started = time.monotonic()
    try:
        with described_file(path, description) as temporary:
            export_graph(as_exported(graph, getattr(torch, str(description["precision"]))), temporary, inputs, outputs)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror or error}", code="EXPORT") from error
    _logger.info("exported %s (%.1f MB) in %.0f s", path, path.stat().st_size / 1e6, time.monotonic() - started)
    return path


def export_graph(graph: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Write a module's graph; see :func:`write_described`."""
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes={name: {0: batch} for name in inputs},
                opset_version=OPSET,
                verbose=False,
            )
            if program is not None:
                forget_sources(program.model)
                halve_weights(program.model)
                program.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"the vision encoder could not be exported to ONNX: {reason}", code="EXPORT") from error
    shape = None if program is None else program.model.graph.inputs[0].shape
    if shape is None or isinstance(shape[0], int):  # some code of the network made it a constant
        raise BackendError(f"the exported vision encoder has a fixed batch size: its input is {shape}", code="EXPORT")


def forget_sources(model: Any) -> None:
    """Remove the stack traces that the exporter stores with every node: they have paths of this machine.

    Args:
        model: An ``onnx_ir.Model``.
    """
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            for noted in (node, *node.outputs):
                noted.metadata_props.clear()
                noted.doc_string = None
        for noted in (graph, *graph.inputs):
            noted.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def halve_weights(model: Any) -> None:
    """Store float32 weights that float16 can hold exactly as float16, with a cast to float32 in the graph.

    The weights of a model that was saved in half precision are such ones: the file is half as large, and every result
    is the same. Runtimes do the cast once, when they load the graph.

    Args:
        model: An ``onnx_ir.Model``.
    """
    ir = importlib.import_module("onnx_ir")
    graph = model.graph
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        half = _exact_half(value.const_value.numpy())
        if half is None:
            continue
        tensor = ir.tensor(half, name=f"{name}.half")
        stored = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=value.shape)
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        value.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, value.type, value.shape
        graph.register_initializer(stored)
        graph.insert_before(first, cast)


def _exact_half(weight: NDArray[Any]) -> NDArray[Any] | None:
    """The same values as float16; None where they are not, or where it is not worth it."""
    if weight.dtype != np.float32 or weight.size < _LEAST_HALVED:
        return None
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), weight) else None


def as_exported(graph: _Module, dtype: torch.dtype) -> _Module:
    """Return the module on the CPU in the given precision; a copy, unless it already is."""
    weight = next(graph.parameters())
    if (weight.device.type, weight.dtype) != ("cpu", dtype):
        graph = copy.deepcopy(graph).to("cpu", dtype)
    return graph.eval()


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence log lines and warnings of the exporter that concern its developers only."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def graph_cache(weights: str, precision: str) -> Path:
    """Return the folder of a graph and its engines in the user's cache, one for each set of weights and precision.

    Args:
        weights: Their hash.
        precision: One of :data:`PRECISIONS`.

    Raises:
        BackendError: The user has no home folder.
    """
    try:
        root = cache_root()
    except RuntimeError as error:
        raise BackendError(
            "there is no home folder for the exported graph; set XDG_CACHE_HOME to a folder", code="EXPORT"
        ) from error
    return root / f"{weights[:16]}-{precision}"
