"""Integrity of files, checked by their SHA-256 hashes.

A *manifest*, ``SHA256SUMS``, lists the hash of every file of a checkpoint in the format of ``sha256sum --check``.
A *description*, such as ``vision.onnx.json`` beside ``vision.onnx``, belongs to one file that was generated: it says
what the file was made from, and its hash. A file with another hash is damaged; a described file that was made from
something else is stale. Neither is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from elysium_core.errors import ModelFileError
from elysium_core.io.files import atomic_path, check_plain, lfs_pointer, read_settings_text

MANIFEST_NAME = "SHA256SUMS"
_MANIFEST_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_HASH_KEY = "sha256"
_BLOCK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """Return the SHA-256 hash of a file, 64 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    check_plain(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, files: Iterable[Path]) -> Path:
    """Write the manifest of files below a folder and return its path.

    Raises:
        OSError: A file cannot be read, or the manifest cannot be written.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    path = folder / MANIFEST_NAME
    path.write_text("".join(f"{hash_file(folder / name)}  {name}\n" for name in names), encoding="utf-8")
    return path


def verify_manifest(manifest: Path, folder: Path, needed: Iterable[Path]) -> None:
    """Compare every listed file with its hash.

    Args:
        manifest: The manifest; its names are relative to ``folder``.
        folder: The checkpoint.
        needed: Files of the checkpoint that must be listed.

    Raises:
        ModelFileError: A file differs, is missing or is not listed (``MODEL_HASH``), or the
            manifest cannot be read.
    """
    listed = _read_manifest(manifest)
    missing = sorted({file.relative_to(folder).as_posix() for file in needed} - listed.keys())
    if missing:
        raise ModelFileError(f"{manifest} does not list {', '.join(missing)}; fetch the model again", code="MODEL_HASH")
    for name, expected in listed.items():
        try:
            found = hash_file(folder / name)
        except OSError as error:
            raise ModelFileError(
                f"{manifest} lists {name}, which cannot be read ({error.strerror}); fetch the model again",
                code="MODEL_HASH",
            ) from error
        if found != expected:
            if lfs_pointer(folder / name):
                raise ModelFileError(f"{folder / name} is a Git LFS pointer, not the file itself; run git lfs pull")
            raise ModelFileError(
                f"{folder / name} is damaged or another version: its sha256 is {found[:12]}..., and {manifest.name} "
                f"lists {expected[:12]}...; fetch it again",
                code="MODEL_HASH",
            )


def _read_manifest(manifest: Path) -> dict[str, str]:
    """Return the listed hashes by file name."""
    try:
        lines = read_settings_text(manifest).splitlines()
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {manifest}: {error}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise ModelFileError(f"{manifest}, line {number}: {line[:80]!r} is not a sha256 and a name in this folder")
        listed[match[2]] = match[1].lower()
    return listed


@contextmanager
def described_file(path: Path, description: Mapping[str, object]) -> Iterator[Path]:
    """Write a file and its description: the block writes to the temporary path that is yielded.

    If the process is killed after the file and before the description is in place, the hash does not match, and the
    file is not used.

    Args:
        path: The file to write.
        description: What it is made from; values that JSON can hold.

    Raises:
        OSError: The folder or a file cannot be written.
    """
    with atomic_path(path) as temporary:
        yield temporary
        content = {**description, _HASH_KEY: hash_file(temporary)}
    with atomic_path(description_path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def description_path(path: Path) -> Path:
    """Return the path of a file's description."""
    return path.with_name(path.name + ".json")


def read_description(path: Path) -> dict[str, object] | None:
    """Return what a file was made from, without its hash; None without a readable description."""
    stored = _read_json_object(description_path(path))
    return None if stored is None else {key: value for key, value in stored.items() if key != _HASH_KEY}


def stale_reason(path: Path, wanted: Mapping[str, object]) -> str:
    """Return why a described file cannot be used, in one sentence; an empty string if it can.

    Args:
        path: The file.
        wanted: What its description must say. Its other entries are ignored.
    """
    if not path.is_file():
        return f"there is no file {path}"
    stored = _read_json_object(description_path(path))
    if stored is None:
        return f"{path} has no readable description {description_path(path).name}"
    changed = [key for key in wanted if stored.get(key) != wanted[key]]
    if changed:
        differences = ", ".join(f"{key} is {stored.get(key)!r}, not {wanted[key]!r}" for key in changed)
        return f"{path} is stale: {differences}"
    try:
        damaged = hash_file(path) != stored.get(_HASH_KEY)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is damaged: its hash is not the one in its description" if damaged else ""


def _read_json_object(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(read_settings_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
