"""Where graphs and engines lie: in the folder of the weights, or in the user's cache."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from elysium_core.checkpoint.integrity import MANIFEST_NAME, stale_reason, untrusted_reason
from elysium_core.errors import BackendError
from elysium_core.vision.onnx_writer import graph_cache

_logger = logging.getLogger(__name__)


def announce(path: Path) -> None:
    """Say that a file is being made."""
    # A warning, because it delays the start by minutes.
    _logger.warning("making %s for the vision encoder; this is done once and may take minutes", path)


def graph_folders(shipped: Path | None, weights: str, precision: str) -> list[Path]:
    """The folders in which a graph of some weights may lie.

    Args:
        shipped: Folder of the weights; None = only the cache is searched.
        weights: Their hash.
        precision: One of :data:`elysium_core.vision.onnx_writer.PRECISIONS`.
    """
    folders = [] if shipped is None else [shipped]
    try:
        return [*folders, graph_cache(weights, precision)]
    except BackendError:  # without a home folder there is no cache, but a shipped file can be used
        return folders


def current_file(name: str, folders: Iterable[Path], wanted: Mapping[str, object]) -> Path | None:
    """The first file of a name that is what its description must say, and is trusted; None if there is none.

    One that fits but that nobody vouches for is warned of: it is a program of somebody unknown.
    """
    for path in (folder / name for folder in folders):
        reason = stale_reason(path, wanted)
        if reason:
            _logger.log(logging.INFO if path.exists() else logging.DEBUG, "not used: %s", reason)
        elif reason := untrusted_reason(path):
            _logger.warning("not used: %s; %s", reason, _remedy(path))
        else:
            return path
    return None


def _remedy(path: Path) -> str:
    backend = "onnx" if path.suffix == ".onnx" else "tensorrt"
    line = shlex.join(
        ["elysium", "export", "--model", str(path.parent), "--vision-backend", backend, "--out", str(path.parent)]
    )
    return f"make it again with `{line}`, or fetch the model again with its {MANIFEST_NAME}"
