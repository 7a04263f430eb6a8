from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra `viewer`)")
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from elysium_core.errors import ConfigError
from elysium_core.viewer import page_session
from elysium_core.viewer.access import Access
from elysium_core.viewer.page_session import WRONG_TOKEN
from elysium_core.viewer.protocol import MOST_PAGES, FrameHeader, unpack_picture
from elysium_core.viewer.server import ViewerServer, serve

LOCAL = Access("127.0.0.1", "")
TOKEN = "a1b2c3d4e5f6"
HELLO = {"type": "hello", "version": 1}
PAGE = Path(page_session.__file__).with_name("page")


class Page:
    """A page without a browser."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def next(self, kind: str) -> Any:
        """Return the next message of a kind; ``frame`` gives its header."""
        while True:
            message = await self.socket.receive(timeout=10)
            if message.type == WSMsgType.BINARY:
                header, jpeg = unpack_picture(message.data)
                assert jpeg.startswith(b"\xff\xd8")
                if kind == "frame":
                    return header
            elif message.type == WSMsgType.TEXT:
                content = json.loads(message.data)
                if content["type"] == kind:
                    return content
            else:
                assert kind == "close", f"closed: {message}"
                return self.socket.close_code

    async def ask(self, **message: Any) -> Any:
        await self.send(request=5, **message)
        reply = await self.next("reply")
        assert reply["request"] == 5
        return reply


def run(backend, story: Callable, access: Access = LOCAL) -> None:
    """Play a story with a client of a server; ``story(client, connect, server)``."""

    async def play() -> None:
        server = ViewerServer(backend, access)
        async with TestClient(TestServer(server.application())) as client:

            async def connect(hello: dict | None = HELLO, **headers: str) -> Page:
                page = Page(await client.ws_connect("/ws", headers=headers))
                if hello:
                    await page.send(**hello)
                    await page.next("welcome")
                return page

            await asyncio.wait_for(story(client, connect, server), 30)

    asyncio.run(play())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_pictures_come_with_their_boxes_and_requests_are_answered(backend):
    async def story(client, connect, server):
        page = await connect()
        status = await page.next("status")
        assert (status["model"], status["input_hz"]) == ("real", 30.0)
        await until(lambda: backend.watched == [{"front"}])
        backend.show(stamp_ns=2**60 + 1, camera="front")
        header = await page.next("frame")
        assert isinstance(header, FrameHeader)
        assert (header.stamp, header.width, header.targets) == (str(2**60 + 1), 64, ())

        reply = await page.ask(type="track", expression="the cup", box=[0.1, 0.2, 0.5, 0.6], stamp=header.stamp)
        assert (reply["ok"], reply["target"]) == (True, "1")
        call = backend.calls[0]
        assert call[:3] == ("track", "front", "the cup")
        assert (tuple(call[3]), *call[4:]) == ((0.1, 0.2, 0.5, 0.6), 2**60 + 1, True)
        backend.show(camera="front")
        assert (await page.next("frame")).targets[0].words == "the cup"

        assert (await page.ask(type="describe", target="1"))["text"] == "target 1 is grey"
        assert (await page.ask(type="ask", question="Why?"))["text"] == "you asked 'Why?'"
        assert (await page.ask(type="pause", paused=True))["ok"]
        assert (await page.ask(type="stop", target="1"))["ok"]
        assert backend.calls[1:] == [("pause", True), ("stop", "front", "1")]

    run(backend, story)
    assert backend.is_closed


def test_a_click_is_a_square_in_the_frame(backend):
    async def story(client, connect, server):
        page = await connect()
        assert (await page.ask(type="track", point=[0.5, 0.5]))["code"] == "NO_IMAGE"
        backend.show(camera="front")
        await page.next("frame")
        assert (await page.ask(type="track", point=[0.5, 0.0]))["ok"]

    run(backend, story)
    x1, y1, x2, y2 = backend.calls[0][3].to_px(64, 48)
    assert x2 - x1 == pytest.approx(9.6)
    assert (x1 + x2) / 2 == pytest.approx(32)
    assert (y1, y2) == pytest.approx((0, 4.8))  # the half that is inside the frame


def test_refusals_carry_code_and_sentence(backend):
    async def story(client, connect, server):
        page = await connect()
        reply = await page.ask(type="stop", target="9")
        assert (reply["ok"], reply["code"]) == (False, "TARGET_UNKNOWN")
        assert "9" in reply["text"]
        assert (await page.ask(type="camera", camera="side"))["code"] == "CAM_UNKNOWN"
        assert (await page.ask(type="track", box=[0.5, 0.5, 0.1, 0.1]))["code"] == "BOX_INVALID"
        failed = await page.ask(type="track", expression="fail")
        assert failed["code"] == "INTERNAL"
        assert "ZeroDivision" not in failed["text"]
        backend.tell("front", "CAM_TIMEOUT", "the camera is silent")
        backend.tell("rear", "OTHER", "not for this page")
        assert (await page.next("notice"))["code"] == "CAM_TIMEOUT"
        assert (await page.ask(type="pause", paused=False))["ok"]

    run(backend, story)


def test_a_slow_page_gets_the_newest_picture_and_nothing_is_encoded_for_nobody(backend):
    async def story(client, connect, server):
        for stamp in range(5):
            backend.show(stamp, "front")
        page = await connect()
        first = await page.next("frame")
        backend.show(100, "front")
        second = await page.next("frame")
        encoded = backend.encoded
        for stamp in range(200, 300):  # two are on their way, so none of these is sent
            backend.show(stamp, "front")
            await asyncio.sleep(0)
        assert backend.encoded == encoded
        await page.send(type="ack", sequence=10**6)  # a number that was never sent gives nothing
        assert (await page.ask(type="pause", paused=False))["ok"]
        assert backend.encoded == encoded
        await page.send(type="ack", sequence=first.sequence)
        newest = await page.next("frame")
        assert newest.stamp == "299"
        assert first.sequence < second.sequence < newest.sequence

    run(backend, story)


def test_many_pages_share_one_encoding_and_leave_no_work_behind(backend):
    async def story(client, connect, server):
        pages = [await connect() for _ in range(10)]
        await until(lambda: backend.watched)
        backend.show(1, "front")
        assert {(await page.next("frame")).sequence for page in pages} == {1}
        assert backend.encoded == 1
        for page in pages:
            await page.socket.close()
        await until(lambda: backend.watched[-1:] == [frozenset()])
        backend.show(2, "front")
        await asyncio.sleep(0.05)
        assert backend.encoded == 1
        assert server.sessions == set()

    run(backend, story)


def test_another_camera_is_shown_and_remembered_over_a_break(backend):
    async def story(client, connect, server):
        page = await connect()
        assert (await page.ask(type="camera", camera="rear"))["ok"]
        await until(lambda: backend.watched[-1:] == [{"rear"}])
        backend.show(1, "front")
        backend.show(2, "rear")
        assert (await page.next("frame")).camera == "rear"
        again = await connect(None)
        await again.send(**HELLO, camera="rear")
        assert (await again.next("welcome"))["camera"] == "rear"

    run(backend, story)


def test_a_wrong_token_gets_nothing(backend):
    async def story(client, connect, server):
        for token in ("", "wrong", "\u00e4" * 9):
            page = await connect(None)
            await page.send(**HELLO, token=token)
            assert await page.next("close") == WRONG_TOKEN
        page = await connect(None)
        await page.send(type="track", request=1, expression="the cup")
        assert await page.next("close") == 1008
        await connect({**HELLO, "token": TOKEN})
        assert backend.watched in ([], [{"front"}])
        assert backend.calls == []

    run(backend, story, Access("0.0.0.0", TOKEN))


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.org"}, {"Host": "evil.org"}, {"Host": "evil.org", "Origin": "http://evil.org"}]
)
def test_pages_of_other_sites_are_refused(backend, headers):
    async def story(client, connect, server):
        with pytest.raises(WSServerHandshakeError) as caught:
            await connect(**headers)
        assert caught.value.status == 403
        assert server.sessions == set()

    run(backend, story)


def test_silence_and_hostile_messages_end_only_their_own_connection(backend, monkeypatch):
    monkeypatch.setattr(page_session, "HELLO_TIMEOUT_S", 0.2)

    async def story(client, connect, server):
        honest = await connect()
        silent = await connect(None)
        huge = await connect()
        await huge.socket.send_str("x" * 100_000)
        assert await huge.next("close") == 1009
        binary = await connect()
        await binary.socket.send_bytes(b"\0" * 100)
        assert await binary.next("close") == 1003
        garbage = await connect()
        for _ in range(10):
            await garbage.socket.send_str('{"type":"track","request":1,"box":[1e999,0,0,0]}')
            assert (await garbage.next("notice"))["code"] == "MESSAGE_INVALID"
        assert await garbage.next("close") == 1008
        flood = await connect()
        for _ in range(400):
            await flood.send(type="ack", sequence=1)
        assert await flood.next("close") == 1008
        assert await silent.next("close") == 1008
        backend.show(1, "front")
        assert (await honest.next("frame")).camera == "front"
        assert (await honest.ask(type="pause", paused=True))["ok"]

    run(backend, story)


def test_requests_of_one_page_are_bounded(backend):
    async def story(client, connect, server):
        page = await connect()
        backend.gate.clear()
        for number in range(6):
            await page.send(type="track", request=number, expression="the cup")
        refused = [(await page.next("reply")) for _ in range(2)]
        assert {reply["code"] for reply in refused} == {"BUSY"}
        backend.gate.set()
        assert all([(await page.next("reply"))["ok"] for _ in range(4)])

    run(backend, story)


def test_pages_are_bounded(backend):
    async def story(client, connect, server):
        for _ in range(MOST_PAGES):
            await connect(None)
        with pytest.raises(WSServerHandshakeError) as caught:
            await connect(None)
        assert caught.value.status == 503

    run(backend, story)


def test_the_page_is_whole_and_asks_no_other_host(backend):
    async def story(client, connect, server):
        answer = await client.get("/")
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        text = await answer.text()
        script = await (await client.get("/viewer.js")).text()
        asked = set(re.findall(r'(?:href|src)="([^"#]+)"', text)) | set(re.findall(r'from "\./([^"]+)"', script))
        assert {"viewer.css", "viewer.js", "picture.js", "icon.svg"} <= asked
        for name in asked:
            assert (await client.get(f"/{name}")).status == 200, name
        for path in ("/../server.py", "/%2e%2e/server.py", "/page/index.html", "/etc/passwd", "/ws/x"):
            assert (await client.get(path)).status == 404, path
        assert (await client.post("/", data="x")).status == 405
        assert (await client.get("/", headers={"Host": "evil.org"})).status == 403

    run(backend, story)
    for path in PAGE.iterdir():
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text("utf-8"))
        assert [address for address in found if "www.w3.org" not in address] == [], path.name
        assert "innerHTML" not in path.read_text("utf-8")


def test_the_script_knows_every_element_of_the_page():
    ids = set(re.findall(r'id="([\w-]+)"', (PAGE / "index.html").read_text("utf-8")))
    used = set(re.findall(r'\bat\("([\w-]+)"\)', (PAGE / "viewer.js").read_text("utf-8")))
    assert used - ids == set()


def test_the_example_of_the_documentation_shows_the_targets(backend, serving):
    page = (Path(__file__).parents[3] / "docs" / "viewer.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "viewer.md", "exec"), names)
    backend.track("front", "the cup", None, 0, True)

    async def play(address: str) -> list[str]:
        async def show() -> None:
            await until(lambda: backend.watched)
            backend.show(1, "front")

        shown, _ = await asyncio.gather(names["first_picture"](address), show())
        return shown

    with serving(backend, LOCAL) as port:
        assert asyncio.run(play(f"http://127.0.0.1:{port}/ws")) == ["the cup"]


def test_a_port_in_use_is_one_sentence(backend, serving):
    with serving(backend, LOCAL) as port, pytest.raises(ConfigError) as caught:
        serve(type(backend)(), LOCAL, port, lambda port: None)
    assert caught.value.code == "VIEWER_PORT"
    assert str(port) in str(caught.value)
