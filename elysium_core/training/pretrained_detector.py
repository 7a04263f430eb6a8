"""Pretrained weights for the vision encoder with a detector: those of EfficientNet-Lite0 and of YOLOX-nano in one file.

YOLOX's weights are taken from its published ONNX graph, in which batch norms are folded into the convolutions. The
layers that predict kinds and boxes are left out; those that score objects stay.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.network.efficientnet import CROP_BLOCKS
from elysium_core.network.yolox import YoloxFeatures
from elysium_core.training.pretrained_encoder import in_order

PUBLISHED_SHA256 = "e8af074932d4ed7e232278e3055cefcdea3edf178874a3694ae292649fb464dd"
"""Of the copy of YOLOX's published ``yolox_nano.onnx`` that elysium-real was made with."""

_LEFT_OUT = ("cls_preds", "reg_preds")
_PREFIX = "detector."


def import_detector(crops: Path, graph: Path, out: Path) -> None:
    """Write the weights of :class:`elysium_core.network.detector_encoder.DetectorEncoder` as safetensors.

    Args:
        crops: A file of :func:`elysium_core.training.pretrained_encoder.import_encoder`.
        graph: ONNX graph of YOLOX-nano, as published or of one's own training.
        out: The file to write.

    Raises:
        DataError: A file cannot be read or is of another model, or the result cannot be written.
    """
    weights = {f"{_PREFIX}{name}": value for name, value in yolox_weights(graph).items()}
    try:
        wanted = ("stem.", *(f"blocks.{number}." for number in range(CROP_BLOCKS)))
        weights |= {name: value for name, value in load_file(crops).items() if name.startswith(wanted)}
        with safe_open(crops, "pt") as stored:
            origin = stored.metadata() or {}
        metadata = _metadata(origin.get("source", "an unnamed source"), hash_file(graph))
        with atomic_path(out) as temporary:
            temporary.write_bytes(in_order(save(weights, metadata=metadata)))
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot import {crops} and {graph} as {out}: {error}") from error


def _metadata(crops: str, digest: str) -> dict[str, str]:
    """What the file says of its sources."""
    if digest == PUBLISHED_SHA256:
        return {"source": f"{crops} (crops), and of YOLOX-nano as published (frames)", "license": "Apache-2.0"}
    source = f"{crops} (crops), and of a YOLOX-nano with sha256 {digest[:12]}... (frames)"
    return {"source": source, "license": "Apache-2.0 (crops), unknown (frames)"}


def yolox_weights(graph: Path) -> dict[str, Tensor]:
    """Weights of :class:`elysium_core.network.yolox.YoloxFeatures` from an ONNX graph of YOLOX-nano.

    The graph has no names for most of its convolutions; they stand in the order in which they run, as the modules do.

    Raises:
        DataError: It cannot be read, or is another graph.
    """
    import onnx
    from onnx import numpy_helper

    try:
        content = onnx.load(str(graph)).graph
    except Exception as error:  # protobuf's own, for whatever is in the file
        raise DataError(f"cannot read the ONNX graph {graph}: {' '.join(str(error).split())[:200]}") from error
    values = {each.name: each for each in content.initializer}
    convs = [node.input[1:] for node in content.node if node.op_type == "Conv"]
    chosen = [names for names in convs if not any(part in names[0] for part in _LEFT_OUT)]
    modules = {name: module for name, module in YoloxFeatures().named_modules() if isinstance(module, nn.Conv2d)}
    if len(chosen) != len(modules):
        raise DataError(f"{graph} has {len(chosen)} convolutions before its predictions; YOLOX-nano has {len(modules)}")
    found: dict[str, Tensor] = {}
    for (name, module), names in zip(modules.items(), chosen, strict=True):
        if len(names) != 2 or any(each not in values for each in names):
            raise DataError(f"{graph}: the convolution {name} has no weight and bias in the file")
        weight, bias = (torch.from_numpy(numpy_helper.to_array(values[each]).copy()).float() for each in names)
        if weight.shape != module.weight.shape:
            shapes = f"{tuple(weight.shape)} instead of {tuple(module.weight.shape)}"
            raise DataError(f"{graph} is not YOLOX-nano: its convolution {name} has the shape {shapes}")
        found |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return found
