"""One page: its requests, and the pictures and status that it gets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from elysium_core.errors import ElysiumError, printable
from elysium_core.geometry import Box
from elysium_core.viewer.access import Access
from elysium_core.viewer.backend import Backend, ViewerError, box_at
from elysium_core.viewer.picture_feed import PictureFeed
from elysium_core.viewer.protocol import (
    VERSION,
    Ack,
    AskRequest,
    CameraStatus,
    ChooseCamera,
    DescribeRequest,
    Hello,
    MessageError,
    Notice,
    PauseRequest,
    Reply,
    Request,
    StopRequest,
    TrackRequest,
    Welcome,
    read_message,
)

WRONG_TOKEN = 4401
"""Close code of a page whose token is missing or wrong."""

HELLO_TIMEOUT_S = 5.0
STATUS_PERIOD_S = 1.0

_PICTURES_ON_THE_WAY = 2
_PENDING_REQUESTS = 4
# An honest page sends an answer to each picture and what a person types.
_MESSAGES_A_SECOND = 300
_INVALID_MESSAGES = 10
_LONGEST_SENTENCE = 500

_log = logging.getLogger(__name__)


class House(Protocol):
    """What all pages share."""

    access: Access
    backend: Backend
    feed: PictureFeed
    threads: ThreadPoolExecutor

    def cameras_changed(self) -> None:
        """A page shows another camera."""
        ...


class PageSession:
    """Serves one page until it closes.

    Attributes:
        camera: The camera that it shows; None before it has said hello.
    """

    def __init__(self, socket: web.WebSocketResponse, house: House) -> None:
        self.camera: str | None = None
        self._socket = socket
        self._house = house
        self._sent: set[int] = set()
        self._places = asyncio.Semaphore(_PICTURES_ON_THE_WAY)
        self._pictures: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._times: deque[float] = deque(maxlen=_MESSAGES_A_SECOND)
        self._invalid = 0

    async def run(self) -> None:
        """Greet the page, then serve it until it closes or breaks the rules."""
        if not await self._greet():
            return
        self._house.cameras_changed()
        status = asyncio.create_task(self._send_status())
        self._pictures = asyncio.create_task(self._send_pictures())
        try:
            async for message in self._socket:
                if message.type != WSMsgType.TEXT:
                    await self._refuse(WSCloseCode.UNSUPPORTED_DATA, "only texts are taken")
                elif self._is_flood():
                    await self._refuse(WSCloseCode.POLICY_VIOLATION, "too many messages")
                else:
                    await self._take(message.data)
        finally:
            for task in (status, self._pictures, *self._requests):
                task.cancel()

    async def tell(self, code: str, text: str) -> None:
        """Send a notice."""
        await self._send(Notice(code=code, text=printable(text, _LONGEST_SENTENCE)))

    async def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        await self._refuse(code, reason)

    # ------------------------------------------------------------------------------------------------------- greeting

    async def _greet(self) -> bool:
        try:
            message = await self._socket.receive(timeout=HELLO_TIMEOUT_S)
            hello = read_message(message.data) if message.type == WSMsgType.TEXT else None
        except (asyncio.TimeoutError, MessageError):
            hello = None
        if not isinstance(hello, Hello):
            await self._refuse(WSCloseCode.POLICY_VIOLATION, "the first message must be a hello")
            return False
        if not self._house.access.allows_token(hello.token):
            await self._refuse(WRONG_TOKEN, "the token is missing or wrong")
            return False
        backend = self._house.backend
        cameras = tuple(backend.cameras)
        self.camera = hello.camera if hello.camera in cameras else cameras[0]
        await self._send(Welcome(source=backend.source, cameras=cameras, camera=self.camera))
        if hello.version != VERSION:
            await self.tell("PAGE_OLD", "this page is of another version of the viewer; load it again")
        return True

    # ------------------------------------------------------------------------------------------------ what a page gets

    async def _send_pictures(self) -> None:
        shown, camera = 0, self.camera or ""
        while True:
            await self._places.acquire()
            try:
                shown, message = await self._house.feed.newer(camera, shown)
            except ElysiumError as error:
                self._places.release()
                await self.tell(error.code, str(error))
                await asyncio.sleep(STATUS_PERIOD_S)
                continue
            self._sent.add(shown)
            try:
                await self._socket.send_bytes(message)
            except ConnectionError:
                return  # the page has gone; the loop of run() sees it, too

    async def _send_status(self) -> None:
        while True:
            await self._send(self._house.backend.status(self.camera or ""))
            await asyncio.sleep(STATUS_PERIOD_S)

    async def _send(self, message: Welcome | Reply | Notice | CameraStatus) -> None:
        try:
            await self._socket.send_str(message.model_dump_json())
        except ConnectionError:
            return  # the page has gone; the loop of run() sees it, too

    # ------------------------------------------------------------------------------------------------ what a page sends

    async def _take(self, text: str) -> None:
        try:
            message = read_message(text)
        except MessageError as error:
            self._invalid += 1
            await self.tell(error.code, str(error))
            if self._invalid >= _INVALID_MESSAGES:
                await self._refuse(WSCloseCode.POLICY_VIOLATION, "too many invalid messages")
            return
        if isinstance(message, Ack):
            if message.sequence in self._sent:
                self._sent.discard(message.sequence)
                self._places.release()
        elif isinstance(message, Hello):
            await self.tell("MESSAGE_INVALID", "this page has said hello already")
        elif len(self._requests) >= _PENDING_REQUESTS:
            text = "earlier requests are not answered yet; wait for them"
            await self._send(Reply(request=message.request, ok=False, code="BUSY", text=text))
        else:
            task = asyncio.create_task(self._answer(message))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _answer(self, message: Request) -> None:
        try:
            reply = await self._perform(message)
        except ElysiumError as error:
            text = printable(str(error), _LONGEST_SENTENCE)
            reply = Reply(request=message.request, ok=False, code=error.code, text=text)
        except Exception:  # noqa: BLE001 - it must not end the page's connection
            _log.exception("a request of a page failed: %s", message.type)
            text = "the viewer failed at this request; its log says why"
            reply = Reply(request=message.request, ok=False, code="INTERNAL", text=text)
        await self._send(reply)

    async def _perform(self, message: Request) -> Reply:
        if isinstance(message, ChooseCamera):
            await self._choose(message.camera)
            return Reply(request=message.request, ok=True)
        camera = self.camera or ""
        return await asyncio.get_running_loop().run_in_executor(self._house.threads, self._call, message, camera)

    def _call(self, message: Request, camera: str) -> Reply:
        """Ask the backend, in another thread."""
        backend = self._house.backend
        text = target = ""
        if isinstance(message, TrackRequest):
            target = backend.track(camera, message.expression, self._box(message), int(message.stamp), message.add)
        elif isinstance(message, StopRequest):
            backend.stop(camera, message.target)
        elif isinstance(message, DescribeRequest):
            text, target = backend.describe(camera, message.target), message.target
        elif isinstance(message, AskRequest):
            text = backend.ask(camera, message.question)
        elif isinstance(message, PauseRequest):
            backend.pause(message.paused)
        return Reply(request=message.request, ok=True, text=text, target=target)

    def _box(self, message: TrackRequest) -> Box | None:
        if message.box is not None:
            return Box(*message.box)
        if message.point is None:
            return None
        width, height = self._house.feed.size(self.camera or "")
        return box_at(*message.point, width, height)

    async def _choose(self, camera: str) -> None:
        if camera not in self._house.backend.cameras:
            names = ", ".join(map(repr, self._house.backend.cameras))
            raise ViewerError(f"there is no camera {camera[:80]!r}; there are: {names}", code="CAM_UNKNOWN")
        self.camera = camera
        if self._pictures is not None:
            self._pictures.cancel()
        # Pictures of the other camera that are on their way are still answered, by numbers that are forgotten now.
        self._sent.clear()
        self._places = asyncio.Semaphore(_PICTURES_ON_THE_WAY)
        self._pictures = asyncio.create_task(self._send_pictures())
        self._house.cameras_changed()

    # ---------------------------------------------------------------------------------------------------------- rules

    def _is_flood(self) -> bool:
        now_s = time.monotonic()
        is_full = len(self._times) == self._times.maxlen and now_s - self._times[0] < 1
        self._times.append(now_s)
        return is_full

    async def _refuse(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())
