"""Brings images and the results about them together, by their stamps. Imports no ROS."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

RESULTS_EXPECTED_S = 1.0
"""Images are shown without results if none have come for this long [s]."""

_LARGEST_BYTES = 96 << 20
_MOST_IMAGES = 60


class PicturePairs:
    """Remembers the last images of one camera until their results come.

    A tracker answers some images and skips others, always in the order of their stamps. An image is shown with its
    result; while there are no results, for example because no node runs, it is shown at once.

    Args:
        show: Called with an image and its result; the result is None if there is none.
        clock: Steady clock [s].
    """

    def __init__(self, show: Callable[[Any, Any | None], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._lock = threading.Lock()
        self._images: OrderedDict[int, Any] = OrderedDict()
        self._bytes = 0
        self._early: tuple[int, Any] | None = None
        self._result_at_s = float("-inf")
        self.arrival_times: deque[float] = deque(maxlen=30)

    def image(self, stamp_ns: int, image: Any, size: int) -> None:
        """Take an image.

        Args:
            stamp_ns: Its stamp [ns].
            image: The message.
            size: Bytes of it.
        """
        with self._lock:
            now_s = self._clock()
            self.arrival_times.append(now_s)
            result = self._early[1] if self._early is not None and self._early[0] == stamp_ns else None
            if result is None and now_s - self._result_at_s < RESULTS_EXPECTED_S:
                self._keep(stamp_ns, image, size)
                return
        self._show(image, result)

    def result(self, stamp_ns: int, result: Any) -> None:
        """Take the result of an image; images before it will get none any more."""
        with self._lock:
            self._result_at_s = self._clock()
            image = None
            while self._images and image is None:
                other_ns, (kept, size) = self._images.popitem(last=False)
                self._bytes -= size
                if other_ns == stamp_ns:
                    image = kept
                elif other_ns > stamp_ns:
                    self._images[other_ns] = kept, size
                    self._images.move_to_end(other_ns, last=False)
                    self._bytes += size
                    break
            # The result may overtake its image: they come by different ways.
            self._early = (stamp_ns, result) if image is None else None
        if image is not None:
            self._show(image, result)

    def forget(self) -> None:
        """Drop all images."""
        with self._lock:
            self._images.clear()
            self._bytes = 0
            self._early = None

    def _keep(self, stamp_ns: int, image: Any, size: int) -> None:
        replaced = self._images.pop(stamp_ns, None)
        self._bytes -= replaced[1] if replaced else 0
        self._images[stamp_ns] = image, size
        self._bytes += size
        while len(self._images) > 1 and (self._bytes > _LARGEST_BYTES or len(self._images) > _MOST_IMAGES):
            _, (_, dropped) = self._images.popitem(last=False)
            self._bytes -= dropped
