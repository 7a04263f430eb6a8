"""SHA256SUMS: which bytes a checkpoint consists of. Readable by ``sha256sum --check``.

A flipped bit in a weight file is invisible to every other check.

Files that belong to one set of weights, or to one GPU: each with a description beside it that says to which.

A graph or an engine looks like any other. ``vision.onnx.json`` tells what ``vision.onnx``
was made from and holds the file's hash; a file is used only if all of that holds, so that
an older, foreign or damaged one is never run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from elysium_core.errors import ModelFileError
from elysium_core.io.files import atomic_path

MANIFEST_NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_BLOCK_BYTES = 1 << 20


def sha256(path: Path) -> str:
    """Hash of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, files: Iterable[Path]) -> Path:
    """Write ``SHA256SUMS`` for files below a folder and return its path."""
    names = sorted(file.relative_to(folder).as_posix() for file in files)
    path = folder / MANIFEST_NAME
    path.write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names), encoding="utf-8")
    return path


def verify_manifest(manifest: Path, folder: Path, needed: Iterable[Path]) -> None:
    """Compare every listed file with its hash.

    Args:
        manifest: Lines of hash and name, names relative to ``folder``.
        folder: The checkpoint.
        needed: Files of the checkpoint that must be listed.

    Raises:
        ModelFileError: A file differs, is missing or is not listed (``MODEL_HASH``), or the
            manifest cannot be read.
    """
    listed = _read(manifest)
    missing = sorted({file.relative_to(folder).as_posix() for file in needed} - listed.keys())
    if missing:
        raise ModelFileError(f"{manifest} does not list {', '.join(missing)}", code="MODEL_HASH")
    for name, expected in listed.items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise ModelFileError(f"{manifest} lists {name}, but: {error.strerror}", code="MODEL_HASH") from error
        if found != expected:
            raise ModelFileError(
                f"{folder / name} is not the file that {manifest.name} describes (sha256 {found[:12]}..., expected "
                f"{expected[:12]}...); fetch it again",
                code="MODEL_HASH",
            )


def _read(manifest: Path) -> dict[str, str]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {manifest}: {error}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or Path(match[2]).is_absolute() or ".." in Path(match[2]).parts:
            raise ModelFileError(f"{manifest}, line {number}: {line[:80]!r} is not a sha256 and a name in this folder")
        listed[match[2]] = match[1].lower()
    return listed


HASH_KEY = "sha256"


@contextmanager
def described_file(path: Path, description: Mapping[str, object]) -> Iterator[Path]:
    """Give a temporary name to write to; when the block succeeds, file and description take their places.

    A run that is killed between the two leaves a description whose hash is another file's: stale.

    Raises:
        OSError: The folder or a file cannot be written.
    """
    with atomic_path(path) as temporary:
        yield temporary
        content = {**description, HASH_KEY: sha256(temporary)}
    with atomic_path(description_path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def description_path(path: Path) -> Path:
    """Where the description of a file lies."""
    return path.with_name(path.name + ".json")


def read_description(path: Path) -> dict[str, object] | None:
    """What a file was made from, without its hash; None when there is no description that can be read."""
    found = _stored(path)
    return None if found is None else {key: value for key, value in found.items() if key != HASH_KEY}


def stale_reason(path: Path, wanted: Mapping[str, object]) -> str:
    """Why a file cannot be used, one sentence; empty when it can.

    Args:
        path: A graph or an engine.
        wanted: What its description must say; what else it says does not matter.
    """
    if not path.is_file():
        return f"there is no file {path}"
    found = _stored(path)
    if found is None:
        return f"{path} has no description beside it that can be read, so nobody knows what it was made from"
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    if changed:
        differences = ", ".join(f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in changed)
        return f"{path} is stale: {differences}"
    try:
        damaged = sha256(path) != found.get(HASH_KEY)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is damaged: it is not the file that was described when it was written" if damaged else ""


def _stored(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(description_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
