"""elysium: find, follow and describe what a sentence names, in video.

The library under the ROS 2 package ``elysium_ros``. It never imports ROS.

Example:
    >>> from elysium_core import Box, Elysium            # doctest: +SKIP
    >>> model = Elysium.from_pretrained("real")          # doctest: +SKIP
    >>> model.ground(image, "the dog").box         # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elysium_core.errors import ElysiumError
from elysium_core.frames import Clip, Frame
from elysium_core.geometry import Box

if TYPE_CHECKING:
    from elysium_core.api import Elysium

__version__ = "0.1.0"
__all__ = ["Box", "Clip", "Elysium", "ElysiumError", "Frame", "__version__"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; a program that only wants a Box should not wait.
    if name == "Elysium":
        from elysium_core.api import Elysium

        return Elysium
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
