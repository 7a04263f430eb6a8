"""Files that belong to one set of weights, or to one GPU: each with a description beside it that says to which.

A graph or an engine looks like any other. ``vision.onnx.json`` tells what ``vision.onnx``
was made from and holds the file's hash; a file is used only if all of that holds, so that
an older, foreign or damaged one is never run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from elysium_core.io.files import atomic_path
from elysium_core.model.manifest import sha256

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
    found = _read(path)
    return None if found is None else {key: value for key, value in found.items() if key != HASH_KEY}


def stale_reason(path: Path, wanted: Mapping[str, object]) -> str:
    """Why a file cannot be used, one sentence; empty when it can.

    Args:
        path: A graph or an engine.
        wanted: What its description must say; what else it says does not matter.
    """
    if not path.is_file():
        return f"there is no file {path}"
    found = _read(path)
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


def _read(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(description_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
