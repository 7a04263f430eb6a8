"""ROS 2 messages without ROS: those of the ``rosbags`` package, and elysium's own, read from ``msg/``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elysium_core.errors import DataError, packages_needed

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN_TYPES = ("Box2D", "TrackedObject", "TrackedObjectArray")
OBJECTS_TYPE = "elysium_ros/msg/TrackedObjectArray"
"""Type of the message about all targets in one frame."""


@lru_cache(maxsize=1)
def message_types() -> MessageTypes:
    """Return the message types; they are read once.

    Raises:
        BackendError: The package ``rosbags`` is not installed (``PACKAGE_MISSING``).
        DataError: The definitions of elysium's own messages are missing.
    """
    return MessageTypes()


class MessageTypes:
    """Makes, reads and writes messages of ROS 2.

    Attributes:
        store: The type store of rosbags, with the messages of ROS 2 and elysium's own.
    """

    def __init__(self) -> None:
        with packages_needed():
            from rosbags.interfaces import Nodetype
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        self._kinds = Nodetype
        self.store = get_typestore(Stores.LATEST)
        folder = definitions_folder()
        own: dict[str, Any] = {}
        for name in _OWN_TYPES:
            text = (folder / f"{name}.msg").read_text(encoding="utf-8")
            own |= get_types_from_msg(text, f"elysium_ros/msg/{name}")
        self.store.register(own)

    def new(self, type_name: str, **given: Any) -> Any:
        """Return a message; fields that are not given are zero or empty, as rclpy leaves them.

        Args:
            type_name: Name such as ``std_msgs/msg/Header``.
            given: Values of fields.

        Raises:
            KeyError: There is no such type.
            TypeError: It has no such field.
        """
        _, fields = self.store.fielddefs[type_name]
        values = {name: given[name] if name in given else self._zero(kind) for name, kind in fields}
        return self.store.types[type_name](**(values | given))

    def constant(self, type_name: str, name: str) -> int:
        """Return the value of a constant of a message type."""
        return int(getattr(self.store.types[type_name], name))

    def read(self, data: bytes, type_name: str) -> Any:
        """Return the message in ``data``, as bags hold it (CDR)."""
        return self.store.deserialize_cdr(data, type_name)

    def write(self, message: Any) -> memoryview:
        """Return the bytes of a message, as bags hold it (CDR)."""
        data: memoryview = self.store.serialize_cdr(message, message.__msgtype__)
        return data

    def _zero(self, field: Any) -> Any:
        kind, what = field
        if kind == self._kinds.NAME:
            return self.new(what)
        if kind == self._kinds.BASE:
            return _zero_of(what[0])
        (inner, inner_what), length = what
        if inner == self._kinds.BASE and inner_what[0] != "string":
            return np.zeros(length if kind == self._kinds.ARRAY else 0, dtype=inner_what[0])
        return [self._zero((inner, inner_what)) for _ in range(length if kind == self._kinds.ARRAY else 0)]


def _zero_of(name: str) -> str | bool | float | int:
    if name == "string":
        return ""
    if name == "bool":
        return False
    return 0.0 if name.startswith("float") else 0


def definitions_folder() -> Path:
    """Return the folder with the definitions of elysium's messages: in the package, else beside it in the sources.

    Raises:
        DataError: They are in neither place.
    """
    folders = _PACKAGE / "msg", _PACKAGE.parent / "msg"
    for folder in folders:
        if all((folder / f"{name}.msg").is_file() for name in _OWN_TYPES):
            return folder
    raise DataError(
        f"the message definitions are neither in {folders[0]} nor in {folders[1]}; install the package again"
    )
