"""elysium: find, follow and describe what a sentence names, in video.

The library under the ROS 2 package ``elysium_ros``. It never imports ROS.

Example:
    >>> from elysium_core import Box, Elysium            # doctest: +SKIP
    >>> model = Elysium.from_pretrained("real")          # doctest: +SKIP
    >>> model.ground(image, "the dog").box         # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elysium_core.api import Elysium
    from elysium_core.errors import ElysiumError
    from elysium_core.frames import Clip, Frame
    from elysium_core.geometry import Box

__version__ = "0.1.0"
__all__ = ["Box", "Clip", "Elysium", "ElysiumError", "Frame", "__version__"]

_MODULES = {"Box": "geometry", "Clip": "frames", "Elysium": "api", "ElysiumError": "errors", "Frame": "frames"}


def __getattr__(name: str) -> Any:
    # numpy, torch and transformers take seconds to import; a program that only wants a Box should not wait for all.
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
