"""The weight files of a checkpoint and their headers. No weights are read here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from elysium_core.checkpoint.integrity import GENERATED_ENDINGS, MANIFEST_NAME
from elysium_core.errors import ModelFileError
from elysium_core.io.files import check_inside, lfs_pointer, read_settings_text

SAFE_STEM, SAFE_ENDING = "model", ".safetensors"
PICKLED_STEM, PICKLED_ENDING = "pytorch_model", ".bin"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# Buffers that are computed from the config; older versions of transformers stored them.
_DERIVED = re.compile(r"llm\.(.+\.)?rotary_emb\.inv_freq|visual_encoder\.(.+\.)?embeddings\.position_ids")
# Parts of a CLIP vision encoder that transformers 5 saves without the prefix of their class.
_BARE_CLIP = re.compile(r"visual_encoder\.(?=(embeddings|pre_layrnorm|encoder|post_layernorm)\.)")
# Names of wrappers around a model or a part of it: torch.compile, DistributedDataParallel, FSDP, checkpointing.
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OTHER_DTYPES = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool}
_INNER_VISION = "visual_encoder.vision_model."


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor according to a file's header.

    Attributes:
        file: The file that holds it.
        key: Its name in the file.
        shape: Its shape.
        dtype: Its type; of one that this program cannot read, bytes.
        type_name: Its type as the file names it.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    type_name: str

    @property
    def is_weight(self) -> bool:
        """It is of a floating point type that can be read as a weight."""
        return self.type_name in DTYPES


def find_weight_files(folder: Path, stem: str = SAFE_STEM, ending: str = SAFE_ENDING) -> list[Path]:
    """Find ``<stem><ending>``, the files its index names, or all ``<stem>*<ending>``.

    Returns:
        The files, sorted; empty if there are none.

    Raises:
        ModelFileError: The index is damaged or names a file that is missing or outside the
            folder, or a file is a link out of the folder.
    """
    single, index = folder / f"{stem}{ending}", folder / f"{stem}{ending}.index.json"
    if single.is_file():
        files = [single]
    elif index.is_file():
        files = [_shard(folder, name, index) for name in _indexed_names(index)]
    else:
        files = sorted(path for path in folder.glob(f"{stem}*{ending}") if path.is_file())
    for file in files:
        try:
            check_inside(file, folder)
        except OSError as error:
            raise ModelFileError(f"cannot read {file}: {error.strerror}") from error
    return files


def _indexed_names(index: Path) -> list[str]:
    try:
        names = json.loads(read_settings_text(index))["weight_map"].values()
        return sorted({str(name) for name in names})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{index} is not an index of weight files: {type(error).__name__} {error}") from error


def _shard(folder: Path, name: str, index: Path) -> Path:
    path = folder / name
    if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ModelFileError(f"{index} names {name!r}, which is not a file in this folder")
    if not path.is_file():
        raise ModelFileError(f"{index} names {name}, which is missing; fetch the model again")
    return path


def refuse_pointer(file: Path) -> None:
    """Refuse a file that Git has left as the stand-in for a large one.

    Raises:
        ModelFileError: It is a pointer of Git LFS.
    """
    if lfs_pointer(file):
        raise ModelFileError(f"{file} is a Git LFS pointer, not the file itself; run git lfs pull in its folder")


@contextmanager
def open_weights(file: Path) -> Iterator[Any]:
    """Open a safetensors file.

    Raises:
        ModelFileError: It is missing, cut off or damaged.
    """
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        refuse_pointer(file)
        raise ModelFileError(f"cannot read the weights in {file}: {error}; fetch the file again") from error


def read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Read the headers of weight files.

    A header is checked against the length of its file. Computed buffers are left out.

    Returns:
        The stored tensors by their names in the network.

    Raises:
        ModelFileError: A file is damaged, or a name occurs twice.
    """
    stored: dict[str, StoredTensor] = {}
    for file in files:
        with open_weights(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118  # not a mapping
                if _DERIVED.fullmatch(network_name(key)):
                    continue
                piece = tensors.get_slice(key)
                type_name = str(piece.get_dtype())
                dtype = DTYPES.get(type_name, _OTHER_DTYPES.get(type_name, torch.uint8))
                tensor = StoredTensor(file, key, tuple(piece.get_shape()), dtype, type_name)
                name = network_name(key)
                if name in stored:
                    raise ModelFileError(f"{file} holds {key}, which is also in {stored[name].file.name}")
                stored[name] = tensor
    return stored


def network_name(key: str) -> str:
    """Return the name in the network of a stored tensor.

    Checkpoints saved by transformers 5 lack the inner ``vision_model.`` of the published ones; those saved from a
    compiled or distributed model have the names of its wrappers.
    """
    key = _WRAPPERS.sub("", key)
    return _BARE_CLIP.sub(_INNER_VISION, key, count=1) if _BARE_CLIP.match(key) else key


def fingerprint(files: Iterable[Path]) -> str:
    """Return 12 hexadecimal digits that differ for different weights; an empty string without files.

    No weights are read: the digits are a hash of names, sizes and the manifest beside the files, without its graphs
    and engines, or of the modification times where there is no manifest.
    """
    digest = hashlib.sha256()
    found = sorted((path for path in files if path.is_file()), key=lambda path: path.name)
    for path in found:
        sums = path.parent / MANIFEST_NAME
        status = path.stat()
        version = _without_generated(sums.read_bytes()) if sums.is_file() else str(status.st_mtime_ns).encode()
        digest.update(f"{path.name} {status.st_size} ".encode() + version)
    return digest.hexdigest()[:12] if found else ""


def _without_generated(manifest: bytes) -> bytes:
    endings = tuple(ending.encode() for ending in GENERATED_ENDINGS)
    return b"".join(line for line in manifest.splitlines(keepends=True) if not line.rstrip().endswith(endings))
