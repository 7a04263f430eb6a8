"""The newest picture of each camera, encoded once for all pages, and only when a page waits for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from elysium_core.viewer.backend import Picture, ViewerError
from elysium_core.viewer.protocol import FrameHeader, pack_picture

_ENCODERS = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Numbered:
    sequence: int
    picture: Picture


class PictureFeed:
    """Takes pictures from any thread, and hands the newest to the pages.

    Everything but :meth:`offer` belongs to the event loop.

    Attributes:
        encoded: Pictures that were encoded so far.
    """

    def __init__(self) -> None:
        self.encoded = 0
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._offered: dict[str, Picture] = {}
        self._newest: dict[str, _Numbered] = {}
        self._encodings: dict[str, tuple[int, asyncio.Future[bytes]]] = {}
        self._numbers = count(1)
        self._arrival = asyncio.Event()
        self._threads = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="viewer_jpeg")

    def offer(self, picture: Picture) -> None:
        """Take a picture; one of the same camera that was not looked at yet is dropped. It never waits."""
        with self._lock:
            is_scheduled = bool(self._offered)
            self._offered[picture.camera] = picture
        if not is_scheduled and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take)

    async def newer(self, camera: str, than: int) -> tuple[int, bytes]:
        """Wait for a picture of a camera with a larger number; return number and binary message.

        Raises:
            ElysiumError: It cannot be encoded.
        """
        while (newest := self._newest.get(camera)) is None or newest.sequence <= than:
            await self._arrival.wait()
        return newest.sequence, await asyncio.shield(self._message(camera, newest))

    def size(self, camera: str) -> tuple[int, int]:
        """Return width and height of the newest frame [px].

        Raises:
            ViewerError: There is none yet.
        """
        newest = self._newest.get(camera)
        if newest is None:
            raise ViewerError("there is no picture of this camera yet; wait for the first", code="NO_IMAGE")
        return newest.picture.width, newest.picture.height

    def forget(self, camera: str) -> None:
        """Drop the picture of a camera that nobody looks at any more."""
        self._newest.pop(camera, None)
        self._encodings.pop(camera, None)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> None:
        with self._lock:
            offered, self._offered = self._offered, {}
        for camera, picture in offered.items():
            self._newest[camera] = _Numbered(next(self._numbers), picture)
        self._arrival.set()
        self._arrival = asyncio.Event()

    def _message(self, camera: str, newest: _Numbered) -> asyncio.Future[bytes]:
        sequence, encoding = self._encodings.get(camera, (0, None))
        if encoding is None or sequence != newest.sequence:
            self.encoded += 1
            encoding = self._loop.run_in_executor(self._threads, _encode, newest)
            self._encodings[camera] = newest.sequence, encoding
        return encoding


def _encode(newest: _Numbered) -> bytes:
    picture = newest.picture
    header = FrameHeader(
        sequence=newest.sequence,
        camera=picture.camera,
        stamp=str(picture.stamp_ns),
        width=picture.width,
        height=picture.height,
        results=picture.has_results,
        targets=picture.targets,
    )
    return pack_picture(header, picture.encode())
