"""What the server of the page needs of a tracker, whether it is a model in this process or a node of ROS.

A backend works in threads of its own. The server calls it from other threads, so every method is safe to call from any
thread; those that ask the model may take long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BoxError, ElysiumError, ImageError
from elysium_core.geometry import Box
from elysium_core.viewer.protocol import CameraStatus, TargetView

CLICK_SIDE = 0.2
"""Side of the box that a click stands for, as a share of the shorter side of the frame."""

# A page is not wider than this on most screens, and a larger picture costs time on both ends.
_LARGEST_SIDE_PX = 1280
_JPEG_QUALITY = 80


class ViewerError(ElysiumError):
    """The viewer cannot do what it was asked to do."""

    code = "VIEWER"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame and what is known about it.

    Attributes:
        camera: Name of the camera, empty if there is only one.
        stamp_ns: Stamp of the frame [ns], by which a drawn box refers to it.
        width: Width of the frame [px], also where the picture is smaller.
        height: Height of the frame [px].
        targets: The targets in this frame.
        has_results: The tracker has looked at this frame; else it is shown without.
        encode: Makes the JPEG. It is called in another thread, and only if somebody looks.
    """

    camera: str
    stamp_ns: int
    width: int
    height: int
    targets: tuple[TargetView, ...]
    has_results: bool
    encode: Callable[[], bytes]


Deliver = Callable[[Picture], None]
"""Takes a picture from any thread; it never waits."""

Tell = Callable[[str, str, str], None]
"""Takes a fault that nobody asked about, from any thread: camera, code and sentence."""


class Backend(Protocol):
    """A tracker as the page sees it."""

    @property
    def cameras(self) -> Sequence[str]:
        """Names of the cameras; one empty name if there is a single one without a name."""
        ...

    @property
    def source(self) -> str:
        """What is shown, in a few words: a file, a camera, the name of a node."""
        ...

    def start(self, deliver: Deliver, tell: Tell) -> None:
        """Begin to work. Pictures of watched cameras go to ``deliver``, faults to ``tell``."""
        ...

    def watch(self, cameras: frozenset[str]) -> None:
        """Deliver pictures of these cameras from now on; with none of them, do no work for pages."""
        ...

    def status(self, camera: str) -> CameraStatus:
        """Return what the page shows about model, rates and latencies. It does not wait."""
        ...

    def track(self, camera: str, expression: str, box: Box | None, stamp_ns: int, add: bool) -> str:
        """Follow something.

        Args:
            camera: The camera.
            expression: Words; may be empty if there is a box.
            box: Box in the frame with ``stamp_ns``; None to find the object by its words.
            stamp_ns: Stamp of that frame [ns]; 0 = the newest.
            add: Keep the targets of this camera.

        Returns:
            The id of the target.

        Raises:
            ElysiumError: It cannot be followed.
        """
        ...

    def stop(self, camera: str, target: str) -> None:
        """Stop one target, or with an empty name all of the camera.

        Raises:
            ElysiumError: There is no such target.
        """
        ...

    def describe(self, camera: str, target: str) -> str:
        """Return a text about a target.

        Raises:
            ElysiumError: There is no such target, it has no box, or the model cannot describe.
        """
        ...

    def ask(self, camera: str, question: str) -> str:
        """Return the answer to a question about the newest frame.

        Raises:
            ElysiumError: The model cannot answer questions, or there is no frame.
        """
        ...

    def pause(self, paused: bool) -> None:
        """Stop looking at frames, or go on; targets are kept.

        Raises:
            ElysiumError: The tracker cannot be paused.
        """
        ...

    def close(self) -> None:
        """End all threads."""
        ...


def box_at(x: float, y: float, width: int, height: int) -> Box:
    """Return the box that a click stands for: a square around it, cut to the frame.

    Args:
        x: Position, 0..1 of the width.
        y: Position, 0..1 of the height.
        width: Width of the frame [px].
        height: Height of the frame [px].

    Raises:
        BoxError: The position is not inside the frame.
    """
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise BoxError(f"the point ({x:g}, {y:g}) is not inside the frame; both values are fractions 0..1")
    half = CLICK_SIDE * min(width, height) / 2
    left, top = x * width, y * height
    return Box.from_px(left - half, top - half, left + half, top + half, width, height, clip=True)


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Encode a picture for the page.

    Args:
        rgb: RGB, uint8, shape (height, width, 3).

    Returns:
        A JPEG whose longer side has at most 1280 px.

    Raises:
        ImageError: It cannot be encoded.
    """
    height, width = rgb.shape[:2]
    scale = _LARGEST_SIDE_PX / max(height, width)
    picture: Any = rgb
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not done:
        raise ImageError(f"a picture of {width}x{height} px cannot be encoded as JPEG")
    return jpeg.tobytes()
