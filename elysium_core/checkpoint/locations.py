"""Locations of models: a folder, the installed package, or the local cache of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from elysium_core.checkpoint.base_settings import KNOWN_BASES, read_settings
from elysium_core.errors import ModelFileError
from elysium_core.network.model_config import CONFIG_NAME

REAL, NANO = "real", "nano"
PACKAGED = (REAL, NANO)
"""Models that come with the package: of real things, and of drawings."""
_LONGEST_NAME = 200
PACKAGED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def checkpoint_folder(name_or_path: str | Path) -> Path:
    """Find a model's folder.

    Args:
        name_or_path: ``real``, ``nano``, a folder, or the id of a model that was pulled.

    Raises:
        ModelFileError: It is not on this machine; the message says how to get it.
    """
    if str(name_or_path) in PACKAGED:
        folder = PACKAGED_WEIGHTS / str(name_or_path)
        if not (folder / CONFIG_NAME).is_file():
            raise ModelFileError(
                f"the model {str(name_or_path)!r} is not in this installation; train it (docs/training.md) or "
                "reinstall the package"
            )
        return folder
    path = Path(name_or_path)
    if str(name_or_path).startswith("~/"):
        path = path.expanduser()
    if str(name_or_path) and _is(Path.is_dir, path):
        return path
    if _is(Path.is_file, path):
        raise ModelFileError(f"{path} is a file; give the folder that holds it together with its {CONFIG_NAME}")
    cached = cached_folder(str(name_or_path))
    if cached is None:
        raise ModelFileError(
            f"there is no model {str(name_or_path)[:_LONGEST_NAME]!r}: it is not a folder, and not in the local cache; "
            "a model of the Hugging Face hub is fetched with `elysium pull HUB_ID`"
        )
    return cached


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Return ``kind(path)``, and False for a name that no file can have."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def cached_folder(hub_id: str) -> Path | None:
    """Return the cached snapshot of a hub model, ``owner/name`` or ``owner/name@revision``; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = hub_id.partition("@")
    try:
        found = try_to_load_from_cache(name, CONFIG_NAME, revision=revision or None)
    except ValueError:  # not spelled like a hub id
        return None
    return Path(found).parent if isinstance(found, str) else None


def base_folder(name: str, folder: Path) -> Path | None:
    """Find the folder of a base model: the language model or vision encoder of a checkpoint.

    Args:
        name: Its name in the checkpoint's config: a path, absolute or relative to the
            checkpoint's folder, or a hub id.
        folder: The checkpoint's folder.

    Returns:
        The folder, or None if it is not on this machine.
    """
    for candidate in (folder / name, Path(name)):
        if _is(Path.is_dir, candidate):
            return candidate
    return cached_folder(name)


def base_settings(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Return the settings of a base model, and the file or name they come from.

    Args:
        name: As in :func:`base_folder`.
        folder: The checkpoint's folder.

    Raises:
        ModelFileError: They are not on this machine, or cannot be read.
    """
    found = base_folder(name, folder)
    if found is not None:
        path = found / CONFIG_NAME
        home = folder if found.resolve().is_relative_to(folder.resolve()) else found
        return read_settings(path, home), str(path)
    if name in KNOWN_BASES:
        return dict(KNOWN_BASES[name]), name
    raise ModelFileError(
        f"{folder / CONFIG_NAME} is built on {name!r}, which is neither a folder nor in the local cache; "
        f"fetch its settings with `elysium pull {name}`"
    )


def tokenizer_folder(name: str, folder: Path) -> Path:
    """Return the folder of a checkpoint's tokenizer: that of its language model, or its own.

    Args:
        name: Name of the language model, as in :func:`base_folder`.
        folder: The checkpoint's folder.

    Raises:
        ModelFileError: Neither holds a tokenizer.
    """
    found = base_folder(name, folder)
    for candidate in (found, folder):
        if candidate is not None and any((candidate / file).is_file() for file in TOKENIZER_FILES[:2]):
            return candidate
    if found is not None:  # loading the tokenizer will report the missing file
        return found
    raise ModelFileError(
        f"the tokenizer of {folder} is that of {name!r}, which is not in the local cache; "
        f"fetch it with `elysium pull {name}`, or put its tokenizer files into the folder"
    )
