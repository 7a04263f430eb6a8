"""Quantisation of the language model: int8 and nf4 by bitsandbytes, fp8 by torch.

Only the matrices of the decoder's layers are quantised, layer by layer; embeddings, norms,
head and vision encoder keep their data type. The answers differ from those of the unquantised
model: ``python -m bench.gpu`` measures how far the boxes drift.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from elysium_core.checkpoint.checkpoint import Checkpoint, load_checkpoint
from elysium_core.device import device_errors, dtype_name, free_bytes, total_bytes
from elysium_core.errors import BackendError, pip_line
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.fp8_linear import Fp8Linear
from elysium_core.network.kv_cache import CAPACITY
from elysium_core.network.llama import Llama

NONE = "none"
QUANTIZATIONS = (NONE, "int8", "nf4", "fp8")
"""``int8`` and ``fp8`` quantise weights and inputs, ``nf4`` the weights only, to 4 bits. A GPU multiplies fp8 from
compute capability 8.9 on. On a CPU all of them work, but none is faster."""

# Bits of a weight, with its share of the scales.
_BITS = MappingProxyType({"int8": 8.01, "nf4": 4.13, "fp8": 8.01})
_FP8_CAPABILITY = (8, 9)
# The first torch with a public function for the product of fp8 matrices.
_FP8_TORCH = "2.10"
# Block and matrix sizes that the kernels need.
_NF4_BLOCK = 64
_FP8_STEP = 16
# Windows of a stream that need memory for keys and values beside the weights.
_WINDOWS = 2


def check_quantization(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a quantisation that is not possible here. Called before weights are loaded.

    Args:
        kind: One of :data:`QUANTIZATIONS`.
        device: Device of the model.
        dtype: Data type of what is not quantised.

    Raises:
        BackendError: The kind is unknown, its package is missing, or it does not work with the
            device or data type (``QUANTIZATION``).
    """
    if kind not in QUANTIZATIONS:
        raise BackendError(f"quantization {kind!r} is not one of {', '.join(QUANTIZATIONS)}", code="QUANTIZATION")
    if kind in ("int8", "nf4"):
        _bitsandbytes(kind)
    if kind == "fp8":
        _check_fp8(device, dtype)


def _check_fp8(device: torch.device, dtype: torch.dtype) -> None:
    if not hasattr(F, "scaled_mm"):
        raise BackendError(
            f"quantization 'fp8' needs torch {_FP8_TORCH} or newer, and this is {torch.__version__}",
            code="QUANTIZATION",
        )
    if device.type != "cuda":
        return
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < _FP8_CAPABILITY:
        raise BackendError(
            f"quantization 'fp8' needs a GPU of compute capability 8.9 or more, and {device} has {major}.{minor}; "
            "use int8 or nf4",
            code="QUANTIZATION",
        )
    if dtype != torch.bfloat16:
        raise BackendError(
            f"quantization 'fp8' needs dtype bfloat16 on a GPU, not {dtype_name(dtype)}; use dtype bfloat16",
            code="QUANTIZATION",
        )


def load_quantized(
    name_or_path: str | Path, kind: str, device: torch.device, dtype: torch.dtype, *, allow_pickle_weights: bool = False
) -> Checkpoint:
    """Load a checkpoint and quantise its language model, unless ``kind`` is ``none``.

    A model to be quantised is loaded into the computer's memory first and moved to the device
    layer by layer: the GPU never holds all of it unquantised.

    Args:
        name_or_path: See :func:`elysium_core.checkpoint.checkpoint.load_checkpoint`.
        kind: One of :data:`QUANTIZATIONS`; see :func:`check_quantization`.
        device: Device of the model.
        dtype: Data type of what is not quantised.
        allow_pickle_weights: See :func:`elysium_core.checkpoint.checkpoint.load_checkpoint`.

    Raises:
        ModelFileError: The checkpoint is missing, damaged or unsafe.
        BackendError: The device has too little memory (``MEMORY``), or the quantisation failed.
    """
    checkpoint = load_checkpoint(
        name_or_path,
        device=device if kind == NONE else "cpu",
        dtype=dtype,
        allow_pickle_weights=allow_pickle_weights,
        check=partial(check_room, kind=kind, device=device, dtype=dtype),
    )
    if kind != NONE:
        quantize(checkpoint.network, kind, device)
    return checkpoint


def check_room(network: ElysiumNetwork, *, kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that does not fit into a GPU's memory together with its working memory.

    Args:
        network: The network; the meta device will do.
        kind: One of :data:`QUANTIZATIONS`.
        device: Device of the model. A CPU is accepted: its memory can be swapped.
        dtype: Data type of what is not quantised.

    Raises:
        BackendError: There is too little memory (``MEMORY``).
    """
    if device.type != "cuda":
        return
    weights, working = needed_bytes(network, kind, dtype)
    free = free_bytes(device) or 0
    if weights + working > free:
        how = dtype_name(dtype) if kind == NONE else f"{kind} and {dtype_name(dtype)}"
        raise BackendError(
            f"the model needs {weights >> 20} MiB as {how} and {working >> 20} MiB of working memory, but "
            f"{free >> 20} of {total_bytes(device) >> 20} MiB are free on {device}; stop other programs on the GPU, "
            "quantise to nf4, or use a smaller model",
            code="MEMORY",
        )


def needed_bytes(network: ElysiumNetwork, kind: str, dtype: torch.dtype) -> tuple[int, int]:
    """Return the memory of a model's weights, and that of two windows of a stream [bytes]."""
    total = sum(weight.numel() for weight in network.parameters())
    matrices = sum(linear.weight.numel() for layer in network.llm.model.layers for linear in _linears(layer).values())
    quantised = 0 if kind == NONE else int(matrices * _BITS[kind] / 8)
    plain = total if kind == NONE else total - matrices
    return quantised + plain * dtype.itemsize, _WINDOWS * CAPACITY * replace(
        network.llm.kv_shape, dtype=dtype
    ).token_bytes


def quantize(network: ElysiumNetwork, kind: str, device: torch.device) -> None:
    """Quantise the language model in place, and move the whole network to a device.

    Args:
        network: The network, on the CPU and in eval mode.
        kind: One of :data:`QUANTIZATIONS` except ``none``.
        device: Device of the result.

    Raises:
        BackendError: The matrices have sizes that this quantisation does not support (``QUANTIZATION``),
            the package failed, or there is too little memory (``MEMORY``).
    """
    rows = {linear.in_features for layer in network.llm.model.layers for linear in _linears(layer).values()}
    if kind == "nf4" and any(row % _NF4_BLOCK for row in rows):
        raise BackendError(
            f"quantization 'nf4' divides rows into blocks of {_NF4_BLOCK} weights, and this model has rows of "
            f"{', '.join(map(str, sorted(rows)))}; use int8",
            code="QUANTIZATION",
        )
    columns = {linear.out_features for layer in network.llm.model.layers for linear in _linears(layer).values()}
    if kind == "fp8" and device.type == "cuda" and any(size % _FP8_STEP for size in rows | columns):
        raise BackendError(
            f"quantization 'fp8' needs matrices with sides of a multiple of {_FP8_STEP} on a GPU, and this model has "
            f"{', '.join(map(str, sorted(rows | columns)))}; use int8",
            code="QUANTIZATION",
        )
    change = _CHANGES[kind]
    with device_errors("the language model"), torch.no_grad():
        for layer in network.llm.model.layers:
            change(layer, device)
        network.to(device)
    network.llm.quantization = kind


def precision_of(llm: Llama) -> str:
    """Return the data type of a model, with the quantisation of its language model, for people."""
    name = dtype_name(llm.lm_head.weight.dtype)
    return name if llm.quantization == NONE else f"{name}, {llm.quantization} language model"


def check_unquantized(llm: Llama) -> None:
    """Refuse a quantised language model. Called by operations that need the original weights.

    Raises:
        BackendError: It is quantised (``QUANTIZATION``).
    """
    if llm.quantization != NONE:
        raise BackendError(
            f"the language model was quantised to {llm.quantization} when it was loaded, and its original weights are "
            "gone; load it with quantization 'none'",
            code="QUANTIZATION",
        )


def count_parameters(network: ElysiumNetwork) -> int:
    """Return the number of weights of a network, also where several of them are packed into one byte."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    matrices = {id(linear.weight): linear.in_features * linear.out_features for linear in linears}
    others = sum(weight.numel() for weight in network.parameters() if id(weight) not in matrices)
    return others + sum(matrices.values())


def _to_int8(layer: nn.Module, device: torch.device) -> None:
    bnb = _bitsandbytes("int8")
    for name, linear in _linears(layer).items():
        # threshold 0: no columns are kept in full precision. To find such columns the host would have to wait for
        # the GPU in every layer, and a pass could not be recorded as a CUDA graph.
        new = bnb.nn.Linear8bitLt(
            linear.in_features, linear.out_features, bias=False, has_fp16_weights=False, threshold=0.0
        )
        # bitsandbytes quantises while it copies from the computer's memory to the device.
        new.weight = bnb.nn.Int8Params(linear.weight.data.cpu(), requires_grad=False, has_fp16_weights=False)
        layer.set_submodule(name, new.to(device).eval())


def _to_nf4(layer: nn.Module, device: torch.device) -> None:
    bnb = _bitsandbytes("nf4")
    for name, linear in _linears(layer).items():
        dtype = linear.weight.dtype
        new = bnb.nn.Linear4bit(
            linear.in_features, linear.out_features, bias=False, compute_dtype=dtype, quant_type="nf4"
        )
        new.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
        layer.set_submodule(name, new.to(device).eval())


def _to_fp8(layer: nn.Module, device: torch.device) -> None:
    for name, linear in _linears(layer).items():
        layer.set_submodule(name, Fp8Linear(linear, device).eval())


_CHANGES: MappingProxyType[str, Callable[[nn.Module, torch.device], None]] = MappingProxyType(
    {"int8": _to_int8, "nf4": _to_nf4, "fp8": _to_fp8}
)


def _linears(layer: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}


def _bitsandbytes(kind: str) -> Any:
    # It logs in every product that values are rounded, which is what quantisation does.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        return importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"quantization {kind!r} needs the package 'bitsandbytes', which is not installed or does not work "
            f"({reason}); run: {pip_line('bitsandbytes')}",
            code="QUANTIZATION",
        ) from error
