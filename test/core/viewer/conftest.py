"""A recording that is made of numbers, a backend that is driven by the test, and a server on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from elysium_core.errors import TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.mp4_writer import Mp4Writer
from elysium_core.io.video import open_video
from elysium_core.viewer.backend import Picture, encode_jpeg
from elysium_core.viewer.protocol import CameraStatus, TargetView

web = pytest.importorskip("aiohttp.web", reason="aiohttp is not installed (the extra `viewer`)")
from elysium_core.viewer.access import Access  # noqa: E402
from elysium_core.viewer.server import ViewerServer  # noqa: E402

WIDTH, HEIGHT = 64, 48


class ScriptedBackend:
    """Answers at once, notes what it was asked, and shows pictures when the test says so."""

    source = "a test"

    def __init__(self, cameras: tuple[str, ...] = ("",)) -> None:
        self.cameras = cameras
        self.calls: list[tuple] = []
        self.watched: list[frozenset[str]] = []
        self.encoded = 0
        self.is_closed = False
        self.targets: dict[str, TargetView] = {}
        self.gate = threading.Event()
        self.gate.set()

    def start(self, deliver, tell) -> None:
        self.deliver, self.tell = deliver, tell

    def watch(self, cameras: frozenset[str]) -> None:
        self.watched.append(cameras)

    def status(self, camera: str) -> CameraStatus:
        return CameraStatus(model="real", device="cpu", input_hz=30.0)

    def show(self, stamp_ns: int = 1, camera: str = "", shade: int = 90) -> None:
        image = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)

        def encode() -> bytes:
            self.encoded += 1
            return encode_jpeg(image)

        self.deliver(Picture(camera, stamp_ns, WIDTH, HEIGHT, tuple(self.targets.values()), True, encode))

    def track(self, camera: str, expression: str, box: Box | None, stamp_ns: int, add: bool) -> str:
        self.gate.wait(10)
        if expression == "fail":
            raise ZeroDivisionError
        if not expression and box is None:
            raise TargetError("say what to follow", code="TARGET_EMPTY")
        self.calls.append(("track", camera, expression, box, stamp_ns, add))
        number = str(len(self.targets) + 1)
        corners = None if box is None else tuple(box)
        self.targets[number] = TargetView(id=number, words=expression, state="TRACKED", box=corners, score=0.9)
        return number

    def stop(self, camera: str, target: str) -> None:
        if target and target not in self.targets:
            raise TargetError(f"there is no target {target}", code="TARGET_UNKNOWN")
        self.calls.append(("stop", camera, target))

    def describe(self, camera: str, target: str) -> str:
        return f"target {target} is grey"

    def ask(self, camera: str, question: str) -> str:
        return f"you asked {question!r}"

    def pause(self, paused: bool) -> None:
        self.calls.append(("pause", paused))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend(("front", "rear"))


@contextmanager
def serving(backend, access: Access, port: int = 0) -> Iterator[int]:
    """Serve in a thread while the block runs; yield the port."""
    started, ended, used = threading.Event(), [], []

    async def run() -> None:
        runner = web.AppRunner(ViewerServer(backend, access).application(), shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, access.host, port).start()
            used.append(runner.addresses[0][1])
            end = asyncio.Event()
            ended.append((asyncio.get_running_loop(), end))
            started.set()
            await end.wait()
        finally:
            await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(20)
    try:
        yield used[0]
    finally:
        loop, end = ended[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(20)


@pytest.fixture(name="serving")
def serving_fixture() -> Callable:
    return serving


@pytest.fixture
def square_video(tmp_path: Path) -> Path:
    """A white square on black that moves to the right by 4 px a frame: 24 frames of 320x240 px at 30 Hz."""
    path = tmp_path / "square.mp4"
    with Mp4Writer(path, fps=30) as writer:
        for index in range(24):
            image = np.zeros((240, 320, 3), np.uint8)
            image[100:140, 20 + 4 * index : 60 + 4 * index] = 255
            writer.write(Frame(image, stamp_ns=index * 10**9 // 30, index=index))
    return path


@pytest.fixture
def recording(square_video: Path):
    with open_video(square_video) as opened:
        yield opened
