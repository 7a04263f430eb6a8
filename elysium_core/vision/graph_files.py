"""Where graphs and engines lie: in the folder of the weights, or in the user's cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from elysium_core.checkpoint.integrity import stale_reason
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
    """The first file of a name that is what its description must say; None if there is none."""
    for path in (folder / name for folder in folders):
        reason = stale_reason(path, wanted)
        if not reason:
            return path
        _logger.log(logging.INFO if path.exists() else logging.DEBUG, "not used: %s", reason)
    return None
