"""Any ROS message as plain Python data for JSON, without the tools of a ROS installation."""

from __future__ import annotations

import math
from typing import Any

MAX_ITEMS = 256
"""Longer fields of numbers (image data) are replaced by their length: they are not meant to be read."""


def as_plain(value: Any) -> Any:
    """Turn a message, or a field of one, into dicts, lists, numbers and text.

    Args:
        value: A message or a field's value. Numbers in bulk become ``"<N items>"``
            when there are more than :data:`MAX_ITEMS`; numbers that JSON does not know become None.
    """
    if hasattr(value, "get_fields_and_field_types"):
        return {name: as_plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # float32 fields arrive as the nearest double; six digits are more than they hold.
        return round(value, 6) if math.isfinite(value) else None
    if len(value) > MAX_ITEMS and not isinstance(value, list):
        return f"<{len(value)} items>"
    # Sequences of numbers are array.array, numpy arrays or bytes; those of messages are lists.
    return [as_plain(item) for item in (value.tolist() if hasattr(value, "tolist") else value)]
