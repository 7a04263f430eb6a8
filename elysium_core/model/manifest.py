"""SHA256SUMS: which bytes a checkpoint consists of. Readable by ``sha256sum --check``.

A flipped bit in a weight file is invisible to every other check.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from elysium_core.errors import ModelFileError

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
