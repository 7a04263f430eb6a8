"""Integrity of files, checked by their SHA-256 hashes.

A *manifest*, ``SHA256SUMS``, lists the hash of every file of a checkpoint in the format of ``sha256sum --check``.
A *description*, such as ``vision.onnx.json`` beside ``vision.onnx``, belongs to one file that was generated: it says
what the file was made from, and its hash. A file with another hash is damaged; a described file that was made from
something else is stale. Neither is used, nor is one for which nobody vouches: whoever made a file made its
description, too. Trusted are the files that the manifest beside them lists, and those that were made on this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from elysium_core.errors import ModelFileError
from elysium_core.io.files import atomic_path, check_inside, check_plain, lfs_pointer, read_settings_text

MANIFEST_NAME = "SHA256SUMS"
GENERATED_ENDINGS = (".onnx", ".engine")
"""Endings of the files that are made from a model's weights, and are no part of the model."""
_MANIFEST_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_HASH_KEY = "sha256"
_HASH_DIGITS = 64
_BLOCK_BYTES = 1 << 20
# Folder in the user's cache with an empty file for each file that was made here; its name is the hash.
_MADE_HERE = "made"


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


def write_manifest(folder: Path, files: Iterable[Path], beside: Iterable[Path] = ()) -> Path:
    """Write the manifest of files below a folder and return its path.

    Args:
        folder: The folder.
        files: Files below it.
        beside: Files that will lie directly in the folder, but are still elsewhere.

    Raises:
        OSError: A file cannot be read, or the manifest cannot be written.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    path = folder / MANIFEST_NAME
    listed = {name: hash_file(folder / name) for name in names} | {file.name: hash_file(file) for file in beside}
    path.write_text(_manifest_text(listed), encoding="utf-8")
    return path


def _manifest_text(listed: Mapping[str, str]) -> str:
    return "".join(f"{listed[name]}  {name}\n" for name in sorted(listed))


def verify_manifest(manifest: Path, folder: Path, needed: Iterable[Path]) -> None:
    """Compare every listed file with its hash. Graphs and engines may be missing.

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
        if name.endswith(GENERATED_ENDINGS) and not (folder / name).exists():
            continue  # it is made again when it is needed
        try:
            check_inside(folder / name, folder)
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
    except OSError as error:
        raise ModelFileError(f"cannot read {manifest}: {error.strerror}") from error
    except ValueError as error:
        raise ModelFileError(f"cannot read {manifest}: {error}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise ModelFileError(f"{manifest}, line {number}: {line[:80]!r} is not a sha256 and a name in this folder")
        # `find . -type f` gives names that begin with "./".
        listed[Path(match[2]).as_posix()] = match[1].lower()
    return listed


@contextmanager
def described_file(path: Path, description: Mapping[str, object]) -> Iterator[Path]:
    """Write a file and its description: the block writes to the temporary path that is yielded.

    A manifest in the folder then lists the file, and it is trusted on this machine wherever it lies. If the process is
    killed before that is all done, the file is not used, and the model in the folder can still be loaded.

    Args:
        path: The file to write.
        description: What it is made from; values that JSON can hold.

    Raises:
        OSError: The folder or a file cannot be written.
    """
    with atomic_path(path) as temporary:
        yield temporary
        digest = hash_file(temporary)
        content = {**description, _HASH_KEY: digest}
        # As long as file and manifest differ, the whole model would be refused.
        _list(path, None)
    with atomic_path(description_path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _list(path, digest)
    _note_as_made_here(path, digest)


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


def untrusted_reason(path: Path) -> str:
    """Return why nobody vouches for a described file, in one sentence; an empty string if somebody does.

    Args:
        path: A file with the hash that its description says.
    """
    digest = (_read_json_object(description_path(path)) or {}).get(_HASH_KEY)
    if isinstance(digest, str) and (_is_listed(path, digest) or _is_made_here(path, digest)):
        return ""
    return f"{path} is not listed in the {MANIFEST_NAME} of its folder, and was not made on this machine"


def generated_files(folder: Path) -> list[Path]:
    """Return the described files of a folder that are undamaged and trusted."""
    paths = [path.with_suffix("") for path in sorted(folder.glob("*.*.json"))]
    return [path for path in paths if not stale_reason(path, {}) and not untrusted_reason(path)]


def cache_root() -> Path:
    """Return the folder of this package in the user's cache.

    Raises:
        RuntimeError: The user has no home folder.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "elysium"


def _is_listed(path: Path, digest: str) -> bool:
    try:
        return _read_manifest(path.with_name(MANIFEST_NAME)).get(path.name) == digest
    except ModelFileError:  # whoever loads the model reports a manifest that cannot be read
        return False


def _is_made_here(path: Path, digest: str) -> bool:
    try:
        root = cache_root()
        in_cache = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
        return in_cache or (len(digest) == _HASH_DIGITS and digest.isalnum() and (root / _MADE_HERE / digest).is_file())
    except (RuntimeError, OSError):
        return False


def _list(path: Path, digest: str | None) -> None:
    """List a file in the manifest beside it, if there is one; without a hash, take it from the list."""
    manifest = path.with_name(MANIFEST_NAME)
    if not manifest.is_file():
        return
    with suppress(ModelFileError):  # as above
        before = _read_manifest(manifest)
        others = {name: sum_ for name, sum_ in before.items() if name != path.name}
        after = others if digest is None else others | {path.name: digest}
        if after != before:
            with atomic_path(manifest) as temporary:
                temporary.write_text(_manifest_text(after), encoding="utf-8")


def _note_as_made_here(path: Path, digest: str) -> None:
    with suppress(RuntimeError, OSError):  # without a cache, what no manifest lists is made again
        if not _is_made_here(path, digest):
            place = cache_root() / _MADE_HERE
            place.mkdir(parents=True, exist_ok=True)
            (place / digest).touch()


def _read_json_object(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(read_settings_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
