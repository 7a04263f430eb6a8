"""The page in a real browser: what a person sees and does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import TrackState, TrackUpdate
from elysium_core.viewer.access import Access
from elysium_core.viewer.library_backend import LibraryBackend

# On a busy machine a browser takes its time.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

LOCAL = Access("127.0.0.1", "")
TOKEN = "a1b2c3d4e5f6"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 60.0
"""Longest wait on a busy machine [s]."""


class BrightTracker(IdentityTracker):
    """Finds the bright square in each frame."""

    def step(self, frame: Frame) -> list[TrackUpdate]:
        rows, columns = np.nonzero(frame.image[..., 0] > 128)
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        box = Box.from_px(*map(float, edges), frame.width, frame.height)
        return [
            TrackUpdate(u.target_id, u.frame_index, box, 0.9, TrackState.TRACKED, expression=u.expression)
            for u in super().step(frame)
            if u.state is TrackState.TRACKED
        ]


class BrightModel(IdentityModel):
    def tracker(self, mode="stream", config=None):
        return BrightTracker(config)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(found for name in BROWSERS if (found := shutil.which(name)))
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=path, args=options, timeout=PATIENCE_S * 1e3)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Open an address in a window of its own; at the end, nothing may have gone wrong in any of them."""
    contexts, problems = [], []

    def open_one(address: str, **settings: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_S * 1e3)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)
    return value


def pictures(page) -> int:
    return int(page.evaluate("Number(document.body.dataset.pictures ?? 0)"))


def box_of(page, target: str) -> list[float]:
    text = page.get_attribute(f"[data-target='{target}']", "data-box")
    return [float(value) for value in text.split(",")] if text else []


@pytest.fixture
def shown(recording, serving) -> Iterator[str]:
    """The address of a viewer of the moving square."""
    with serving(LibraryBackend(recording, BrightModel()), LOCAL) as port:
        yield f"http://127.0.0.1:{port}/"


def test_a_person_types_and_the_box_moves_with_the_thing(shown, open_page):
    page = open_page(shown)
    until(lambda: pictures(page) > 2, "pictures")
    page.keyboard.press("/")
    page.keyboard.type("the square")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-target='1'][data-state=TRACKED]")
    assert "the square" in page.inner_text("[data-target='1']")
    seen = set()

    def is_moving() -> bool:
        x1, y1, x2, y2 = box_of(page, "1")
        # The square is 40 px wide, at y 100..140, and at 20 + 4 n px; a video codec blurs edges by a pixel.
        assert (y1 * 240, y2 * 240) == pytest.approx((100, 140), abs=2)
        assert (x2 - x1) * 320 == pytest.approx(40, abs=3)
        seen.add(round(x1 * 320 / 4))
        return len(seen) >= 4

    until(is_moving, "a box that moves")
    page.click("[data-target='1'] button:has-text('Describe')")
    page.wait_for_selector("#talk li:has-text('something at')")
    page.wait_for_selector("[data-target='1'].chosen")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Delete")
    page.wait_for_selector("[data-target='1']", state="detached")
    assert page.is_visible("#no-targets")


@pytest.mark.slow
def test_a_box_is_dragged_clicked_and_set_by_keys(backend, serving, open_page):
    with serving(backend, LOCAL) as port:
        page = open_page(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#link[data-link=open]")
        backend.show(2**60 + 1, "front")
        until(lambda: pictures(page) == 1, "a picture")
        area = page.locator("#picture").bounding_box()
        scale = min(area["width"] / 64, area["height"] / 48)
        left, top = area["x"] + (area["width"] - 64 * scale) / 2, area["y"] + (area["height"] - 48 * scale) / 2
        page.mouse.move(left + 16 * scale, top + 12 * scale)
        page.mouse.down()
        page.mouse.move(left + 30 * scale, top + 20 * scale)
        backend.show(2**60 + 2, "front")  # the box belongs to the picture that it is drawn on
        page.mouse.move(left + 48 * scale, top + 36 * scale)
        page.mouse.up()
        until(lambda: len(backend.calls) == 1, "a request")
        assert tuple(backend.calls[0][3]) == pytest.approx((0.25, 0.25, 0.75, 0.75), abs=0.02)
        assert backend.calls[0][4] == 2**60 + 1
        page.fill("#words", "the cup")
        page.mouse.click(left + 8 * scale, top + 8 * scale)
        until(lambda: len(backend.calls) == 2, "a request")
        assert backend.calls[1][2] == "the cup"
        assert backend.calls[1][3].center == pytest.approx((8 / 64, 8 / 48), abs=0.03)
        page.evaluate("document.activeElement.blur()")
        for key in ("b", "ArrowLeft", "Shift+ArrowDown", "Enter"):
            page.keyboard.press(key)
        until(lambda: len(backend.calls) == 3, "a request")
        assert tuple(backend.calls[2][3]) == pytest.approx((0.38, 0.4, 0.58, 0.62), abs=0.001)


@pytest.mark.slow
def test_the_page_comes_back_by_itself_and_text_is_only_text(backend, serving, open_page):
    with serving(backend, LOCAL) as port:
        page = open_page(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#link[data-link=open]")
        page.select_option("#camera", "rear")
    page.wait_for_selector("#link[data-link=lost]")
    page.fill("#words", "the cup")
    page.press("#words", "Enter")
    page.wait_for_selector(".notice[data-code=OFFLINE]")
    again = type(backend)(backend.cameras)
    with serving(again, LOCAL, port):
        page.wait_for_selector("#link[data-link=open]")
        page.press("#words", "Enter")
        until(lambda: again.calls, "a request")
        assert again.calls[0][:3] == ("track", "rear", "the cup")  # the camera that was shown before
        page.fill("#words", "<img src=x onerror=alert(1)>")
        page.press("#words", "Enter")
        until(lambda: len(again.calls) == 2, "a request")
        again.show(1, "rear")
        page.wait_for_selector("[data-target='2']")
        assert "<img src=x" in page.inner_text("[data-target='2']")
        assert page.query_selector("img[src=x]") is None


@pytest.mark.slow
def test_the_token_is_asked_for_and_kept_out_of_the_address(backend, serving, open_page):
    with serving(backend, Access("127.0.0.1", TOKEN)) as port:
        page = open_page(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#login[open]")
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.wait_for_selector("#login[open] #login-why:has-text('not the right one')")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#link[data-link=open]")
        other = open_page(f"http://127.0.0.1:{port}/#token={TOKEN}")
        other.wait_for_selector("#link[data-link=open]")
        assert TOKEN not in other.url


@pytest.mark.slow
def test_a_phone_in_the_dark_and_in_the_light(backend, serving, open_page):
    with serving(backend, LOCAL) as port:
        for scheme in ("dark", "light"):
            page = open_page(f"http://127.0.0.1:{port}/", color_scheme=scheme)
            page.set_viewport_size({"width": 360, "height": 740})
            page.wait_for_selector("#link[data-link=open]")
            backend.show(1, "front")
            until(lambda page=page: pictures(page) > 0, "a picture")
            assert page.get_attribute("html", "data-theme") == scheme
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") == "dark"
