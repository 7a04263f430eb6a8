"""``elysium pull``: download a model from the Hugging Face hub."""

from __future__ import annotations

import json as json_library
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.errors import ModelFileError
from elysium_core.io.files import read_settings_text

_TOKENIZER_AND_CONFIG = [
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges*",
]
_SAFE_WEIGHTS = ["*.safetensors", "*.safetensors.index.json", "SHA256SUMS"]
_PICKLED_WEIGHTS = ["pytorch_model*.bin", "pytorch_model*.bin.index.json"]


def command(
    hub_id: Annotated[str, typer.Argument(metavar="HUB_ID", help="A model of the Hugging Face hub: owner/name.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit; load it with --model owner/name@revision.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Download a model (the only verb that uses the network).

    Files go to the standard Hugging Face cache. An interrupted download is continued.
    For the base models that its config.json names, only configuration and tokenizer
    are downloaded.
    """
    try:
        folder = _fetch(hub_id, revision, weights=True)
        bases = [_fetch(base, None, weights=False) for base in base_models(folder)]
    except _network_errors() as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFileError(f"cannot download {hub_id!r}: {reason}", code="PULL") from error
    if json:
        emit({"model": hub_id, "path": str(folder), "bases": [str(base) for base in bases]})
    else:
        say(str(folder))


def base_models(folder: Path) -> list[str]:
    """Return the hub ids of the base models that ``config.json`` of a checkpoint names.

    Paths relative to the folder are part of the checkpoint and are left out.

    Raises:
        ModelFileError: There is no readable ``config.json``.
    """
    path = folder / "config.json"
    try:
        config = json_library.loads(read_settings_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{str(path)!r} is missing or damaged; give the id of a model with a config.json", code="PULL"
        ) from error
    return sorted({name for name in _base_names(config) if not (folder / name).exists() and not Path(name).exists()})


def _base_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        name = node.get("pretrained_model_name_or_path")
        if isinstance(name, str) and name:
            yield name
        for child in node.values():
            yield from _base_names(child)


def _fetch(hub_id: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, but not marked so

    if not sys.stderr.isatty():
        disable_progress_bars()
    # Subfolders count too: a checkpoint may contain the tokenizer of its language model.
    patterns = [*_TOKENIZER_AND_CONFIG, *(f"*/{name}" for name in _TOKENIZER_AND_CONFIG)]
    if weights:
        names = [file.rfilename for file in HfApi().model_info(hub_id, revision=revision).siblings or ()]
        has_safe_weights = any(name.endswith(".safetensors") for name in names)
        patterns += [*(_SAFE_WEIGHTS if has_safe_weights else _PICKLED_WEIGHTS), "*.json"]
    return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))


def _network_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # A refused connection raises the base class of the HTTP library, which depends on the version of huggingface_hub.
    http_error = HfHubHTTPError.__bases__[0]
    return (OSError, ValueError, http_error) if issubclass(http_error, Exception) else (OSError, ValueError)
