"""The web server of the viewer: one page, its script and style, and the WebSocket behind them.

Nothing that a browser asks for becomes the path of a file: the files of the page are read at the start, and there are
no other addresses. The page loads nothing from other hosts, and its headers forbid it to.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.resources import files

from aiohttp import WSCloseCode, web

from elysium_core.errors import ConfigError
from elysium_core.viewer.access import Access
from elysium_core.viewer.backend import Backend
from elysium_core.viewer.page_session import PageSession
from elysium_core.viewer.picture_feed import PictureFeed
from elysium_core.viewer.protocol import LARGEST_MESSAGE_BYTES, MOST_PAGES

_HEARTBEAT_S = 15.0
_CLOSE_S = 2.0
_REQUEST_THREADS = 16
_FILES = {
    "/": ("index.html", "text/html"),
    "/viewer.css": ("viewer.css", "text/css"),
    "/viewer.js": ("viewer.js", "text/javascript"),
    "/connection.js": ("connection.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/targets.js": ("targets.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_log = logging.getLogger(__name__)


class ViewerServer:
    """Serves the page of one backend.

    Args:
        backend: What is shown. It is started with the server and closed with it.
        access: Who may look.

    Attributes:
        sessions: The pages that are connected.
    """

    feed: PictureFeed

    def __init__(self, backend: Backend, access: Access) -> None:
        self.backend = backend
        self.access = access
        self.sessions: set[PageSession] = set()
        self.threads = ThreadPoolExecutor(_REQUEST_THREADS, thread_name_prefix="viewer_request")
        # One thread, so that the last change is the last call.
        self._watching = ThreadPoolExecutor(1, thread_name_prefix="viewer_watch")
        self._watched: frozenset[str] = frozenset()
        self._notices: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """Return the application of aiohttp."""
        app = web.Application(client_max_size=LARGEST_MESSAGE_BYTES)
        folder = files("elysium_core.viewer") / "page"
        for address, (name, kind) in _FILES.items():
            app.router.add_get(address, _page((folder / name).read_text(encoding="utf-8"), kind, self.access))
        app.router.add_get("/ws", self._connect)
        app.on_response_prepare.append(_add_headers)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._close_pages)
        app.on_cleanup.append(self._stop)
        return app

    def cameras_changed(self) -> None:
        """Tell the backend which cameras are looked at."""
        watched = frozenset(session.camera for session in self.sessions if session.camera is not None)
        if watched == self._watched:
            return
        for camera in self._watched - watched:
            self.feed.forget(camera)
        self._watched = watched
        with suppress(RuntimeError):  # the server ends
            self._watching.submit(self._watch, watched)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if not self.access.allows_host(request.host):
            raise web.HTTPForbidden(text="this name does not belong to the viewer; use localhost")
        if not self.access.allows_origin(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text="pages of other sites may not use the viewer")
        if len(self.sessions) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} pages are open already; close one")
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=LARGEST_MESSAGE_BYTES, compress=False)
        session = PageSession(socket, self)
        self.sessions.add(session)
        try:
            await socket.prepare(request)
            await session.run()
        except ConnectionError:
            pass  # the page went away in the middle of a message
        finally:
            self.sessions.discard(session)
            self.cameras_changed()
        return socket

    def _watch(self, cameras: frozenset[str]) -> None:
        try:
            self.backend.watch(cameras)
        except Exception:  # noqa: BLE001 - nobody else would see it
            _log.exception("the cameras %s cannot be watched", sorted(cameras))
            for camera in cameras:
                self._tell(camera, "INTERNAL", "the camera cannot be watched; the log of the viewer says why")

    def _tell(self, camera: str, code: str, text: str) -> None:
        """Send a fault to all pages that show a camera; from any thread."""

        def send() -> None:
            for session in self.sessions:
                if session.camera == camera:
                    task = asyncio.ensure_future(session.tell(code, text))
                    self._notices.add(task)
                    task.add_done_callback(self._notices.discard)

        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(send)

    async def _start(self, _: web.Application) -> None:
        self._loop = asyncio.get_running_loop()
        self.feed = PictureFeed()
        await self._loop.run_in_executor(None, self.backend.start, self.feed.offer, self._tell)

    async def _close_pages(self, _: web.Application) -> None:
        closing = (session.close(WSCloseCode.GOING_AWAY, "the viewer ends") for session in list(self.sessions))
        with suppress(asyncio.TimeoutError):  # a page that does not answer is left behind
            await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), _CLOSE_S)

    async def _stop(self, _: web.Application) -> None:
        self._watching.shutdown(cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self.backend.close)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.feed.close()


def serve(backend: Backend, access: Access, port: int, ready: Callable[[int], None]) -> None:
    """Serve until SIGINT or SIGTERM; to be called in the main thread.

    Args:
        backend: What is shown.
        access: Who may look, and the address to listen on.
        port: Port; 0 = any that is free.
        ready: Called with the port when the page can be opened.

    Raises:
        ConfigError: The port cannot be used (``VIEWER_PORT``).
    """
    asyncio.run(_serve(backend, access, port, ready))


async def _serve(backend: Backend, access: Access, port: int, ready: Callable[[int], None]) -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    runner = web.AppRunner(ViewerServer(backend, access).application(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await _listen(runner, access.host, port)
        ready(runner.addresses[0][1])
        await end.wait()
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} of {host} is in use, perhaps by another viewer; give another port"
        else:
            reason = f"port {port} of {host} cannot be used ({error.strerror}); give another host or port"
        raise ConfigError(reason, code="VIEWER_PORT") from error


def _page(text: str, kind: str, access: Access) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not access.allows_host(request.host):
            raise web.HTTPForbidden(text="this name does not belong to the viewer; use localhost")
        return web.Response(text=text, content_type=kind, charset="utf-8")

    return answer


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
