"""Fewer bits for the language model's matrices: int8 and nf4 by bitsandbytes, fp8 by torch itself.

The matrices of the decoder's layers are quantised, one layer after the other on its way to
the device; embeddings, norms, head and the vision half stay as they are. Answers are then
no longer those of the unquantised model: ``python -m bench.gpu`` says how far boxes drift.

A matrix in eight-bit floating point, multiplied by torch's own kernels.

Rows of the matrix and of its input each have a scale, the input's anew in every call.
Shapes: M rows of input, K wide; N rows of the matrix.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.checkpoint.checkpoint import Checkpoint, load_checkpoint
from elysium_core.device import device_errors, free_bytes
from elysium_core.errors import BackendError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.kv_cache import CAPACITY
from elysium_core.network.llama import Llama

KERNELS_SINCE = "2.10"
"""First torch whose public interface has the product."""

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST_SCALE = 1e-12


def has_kernels() -> bool:
    """Whether this torch can multiply such matrices."""
    return hasattr(F, "scaled_mm")


class Fp8Linear(nn.Module):
    """What a linear layer without bias computes, with eight bits for weights and input.

    Args:
        linear: The layer; its weights are not kept.
        device: Where the new ones go.
    """

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__()
        rows, scale = quantize_rows(linear.weight.detach().to(device))
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.scale: Tensor
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., K) to (..., N), in the input's data type."""
        rows, scale = quantize_rows(hidden.reshape(-1, hidden.shape[-1]))
        product = F.scaled_mm(
            rows,
            self.weight.t(),
            scale,
            F.ScalingType.RowWise,
            self.scale.t(),
            F.ScalingType.RowWise,
            output_dtype=hidden.dtype,
            use_fast_accum=hidden.is_cuda,
        )
        return product.view(*hidden.shape[:-1], -1)


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Eight-bit values (M, K) and scales (M, 1) float32, whose product is what was given, nearly."""
    scale = (values.abs().amax(dim=-1, keepdim=True).float() / _LARGEST).clamp(min=_SMALLEST_SCALE)
    return (values / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale


NONE = "none"
QUANTIZATIONS = (NONE, "int8", "nf4", "fp8")
"""``int8`` and ``fp8``: weights and what they are multiplied with; ``nf4``: weights alone, 4 bits. A GPU multiplies fp8
from compute capability 8.9 on; on a CPU, all of them show the drift and save no time."""

# Bits of a weight with its share of the scales.
_BITS = MappingProxyType({"int8": 8.01, "nf4": 4.13, "fp8": 8.01})
_FP8_CAPABILITY = (8, 9)
_NF4_BLOCK = 64
_FP8_STEP = 16
# What two windows of a stream need beside the weights.
_WINDOWS = 2


def check_quantization(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a quantisation that cannot be had here, before weights are loaded for it.

    Raises:
        BackendError: It is not one of :data:`QUANTIZATIONS`, its package is missing, or it does
            not go with the device or data type (``QUANTIZATION``).
    """
    if kind not in QUANTIZATIONS:
        raise BackendError(f"quantization {kind!r} is not one of {', '.join(QUANTIZATIONS)}", code="QUANTIZATION")
    if kind in ("int8", "nf4"):
        _bitsandbytes(kind)
    if kind == "fp8":
        _check_fp8(device, dtype)


def _check_fp8(device: torch.device, dtype: torch.dtype) -> None:
    if not has_kernels():
        raise BackendError(
            f"quantization 'fp8' needs torch {KERNELS_SINCE} or newer, and this is {torch.__version__}",
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
            f"quantization 'fp8' goes with dtype bfloat16 on a GPU, not with {_name(dtype)}; use dtype bfloat16",
            code="QUANTIZATION",
        )


def load_quantized(
    name_or_path: str | Path, kind: str, device: torch.device, dtype: torch.dtype, *, allow_pickle_weights: bool = False
) -> Checkpoint:
    """Load a checkpoint with its language model quantised; with ``none``, as it is.

    A quantised model is read into the computer's memory and goes to the device layer by
    layer: the GPU never holds the whole of it unquantised.

    Args:
        name_or_path: See :func:`elysium_core.checkpoint.checkpoint.load_checkpoint`.
        kind: One of :data:`QUANTIZATIONS`; see :func:`check_quantization`.
        device: Where the model goes.
        dtype: Of what is not quantised.
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
    """Refuse a model that a GPU has no room for, with what it needs to work.

    Args:
        network: Its shapes; needs no memory of its own.
        kind: One of :data:`QUANTIZATIONS`.
        device: Where it would go; a CPU passes, where memory is not fixed.
        dtype: Of what is not quantised.

    Raises:
        BackendError: There is too little memory (``MEMORY``).
    """
    if device.type != "cuda":
        return
    weights, working = needed_bytes(network, kind, dtype)
    free, total = free_bytes(device) or 0, torch.cuda.mem_get_info(device)[1]
    if weights + working > free:
        how = _name(dtype) if kind == NONE else f"{kind} and {_name(dtype)}"
        raise BackendError(
            f"the model needs {weights >> 20} MiB as {how} and {working >> 20} MiB to work in, and of the "
            f"{total >> 20} MiB of {device} {free >> 20} MiB are free; stop what uses the rest, quantise to nf4, "
            "or take a smaller model",
            code="MEMORY",
        )


def needed_bytes(network: ElysiumNetwork, kind: str, dtype: torch.dtype) -> tuple[int, int]:
    """Memory that a model's weights take, and that two windows of a stream take besides [bytes]."""
    total = sum(weight.numel() for weight in network.parameters())
    matrices = sum(linear.weight.numel() for layer in network.llm.model.layers for linear in _linears(layer).values())
    size = network.llm.size
    token = 2 * size.layers * size.kv_heads * size.head_dim * dtype.itemsize
    quantised = 0 if kind == NONE else int(matrices * _BITS[kind] / 8)
    plain = total if kind == NONE else total - matrices
    return quantised + plain * dtype.itemsize, _WINDOWS * CAPACITY * token


def quantize(network: ElysiumNetwork, kind: str, device: torch.device) -> None:
    """Quantise the language model in place, and bring the whole network to a device.

    Args:
        network: On the CPU, in eval mode.
        kind: One of :data:`QUANTIZATIONS` but ``none``.
        device: Where it goes.

    Raises:
        BackendError: The matrices have sizes that this quantisation cannot divide (``QUANTIZATION``),
            the package failed, or memory does not suffice.
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
    """Data type of a model in words, with the quantisation of its language model."""
    name = _name(llm.lm_head.weight.dtype)
    return name if llm.quantization == NONE else f"{name}, {llm.quantization} language model"


def check_unquantized(llm: Llama) -> None:
    """Refuse a quantised language model, for what needs its own weights.

    Raises:
        BackendError: It is quantised (``QUANTIZATION``).
    """
    if llm.quantization != NONE:
        raise BackendError(
            f"the language model was quantised to {llm.quantization} when it was loaded, and its own weights are gone; "
            "load it with quantization 'none'",
            code="QUANTIZATION",
        )


def count_parameters(network: ElysiumNetwork) -> int:
    """Weights of a network, each counted once however many of them share a byte."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    matrices = {id(linear.weight): linear.in_features * linear.out_features for linear in linears}
    others = sum(weight.numel() for weight in network.parameters() if id(weight) not in matrices)
    return others + sum(matrices.values())


def _to_int8(layer: nn.Module, device: torch.device) -> None:
    bnb = _bitsandbytes("int8")
    for name, linear in _linears(layer).items():
        # No columns are held out in full precision (threshold 0): to find them, the host would have to wait for
        # the GPU in every layer, and a pass could not be recorded.
        new = bnb.nn.Linear8bitLt(
            linear.in_features, linear.out_features, bias=False, has_fp16_weights=False, threshold=0.0
        )
        # Quantised on its way from the computer's memory to the device, and only then.
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
    # It says in every single product that values are rounded, which is what was asked for.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        return importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"quantization {kind!r} needs the package 'bitsandbytes', which is not installed or does not work "
            f"({reason}); pip install 'elysium-core[quantize]'",
            code="QUANTIZATION",
        ) from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
