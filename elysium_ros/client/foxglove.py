"""The packaged layout of Foxglove, for a node of any name."""

from __future__ import annotations

import json
from pathlib import Path

from elysium_core.errors import ConfigError
from elysium_ros.client.node_process import packaged_file

_LAYOUT = Path("config") / "foxglove_layout.json"


def packaged_layout() -> str:
    """Return the packaged layout, which is for a node ``/elysium``.

    Raises:
        ConfigError: The package is not installed as a whole.
    """
    path = packaged_file(_LAYOUT)
    if path is None:
        raise ConfigError(f"{_LAYOUT} is not installed; install the package elysium_ros again")
    return path.read_text(encoding="utf-8")


def foxglove_layout(text: str, tracker: str, camera: str = "") -> str:
    """Return the packaged layout of Foxglove for a node of another name.

    Args:
        text: The packaged layout, which is for a node ``/elysium``.
        tracker: Name of the node, with its namespace.
        camera: Name of the camera to show; empty for the only one.
    """
    layout = json.loads(text)
    topics = ("annotated/image", "image_markers", "objects")
    for name in topics if camera else ():
        text = text.replace(f'"/elysium/{name}', f'"/elysium/{camera}/{name}')
    if camera:
        request = layout["configById"]["CallService!track"]["requestPayload"]
        named = json.dumps(json.loads(request) | {"camera": camera}, indent=2)
        text = text.replace(json.dumps(request), json.dumps(named))
    return text.replace('"/elysium/', f'"{tracker}/')
