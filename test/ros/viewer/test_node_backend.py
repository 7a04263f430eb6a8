"""The viewer's backend in front of a real tracker node."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from elysium_core.errors import ElysiumError
from elysium_core.geometry import Box
from elysium_ros.client.node_process import NodeProcess
from elysium_ros.viewer.node_backend import NodeBackend

HERE = frozenset({""})


class Screen:
    def __init__(self) -> None:
        self.pictures = []
        self.faults = []

    def deliver(self, picture) -> None:
        self.pictures.append(picture)

    def tell(self, *fault: str) -> None:
        self.faults.append(fault)


@pytest.fixture(scope="module")
def tester(start_tracker):
    tester = start_tracker()
    tester.wait_active()
    return tester


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def backend(test_node, tester, screen):
    backend = NodeBackend(test_node, "elysium")
    backend.start(screen.deliver, screen.tell)
    yield backend
    backend.close()


def test_pictures_come_with_their_objects_and_requests_reach_the_node(backend, screen, tester):
    backend.watch(HERE)
    with tester.camera.streaming():
        picture = tester.until(lambda: next((p for p in screen.pictures if p.has_results), None), "a result")
        assert (picture.width, picture.height, picture.targets) == (64, 48, ())
        decoded = cv2.imdecode(np.frombuffer(picture.encode(), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (48, 64, 3)

        stamp_ns = screen.pictures[-1].stamp_ns
        target = backend.track("", "the cup", Box(0.25, 0.25, 0.5, 0.5), stamp_ns, True)
        view = tester.until(lambda: next(iter(screen.pictures[-1].targets), None), "the target")
        assert (view.id, view.words, view.state) == (target, "the cup", "TRACKED")
        assert view.box == pytest.approx((0.25, 0.25, 0.5, 0.5))
        assert "25,25,50,50" in backend.describe("", target)
        assert backend.ask("", "What is there?") == "no model is loaded"
        status = tester.until(lambda: (s := backend.status("")).model and s, "a status")
        assert (status.model, status.fault) == ("identity", "")
        backend.pause(True)
        tester.until(lambda: backend.status("").paused, "a pause")
        backend.pause(False)
        backend.stop("", target)
        tester.until(lambda: screen.pictures[-1].targets == (), "no target")
    assert screen.faults == []


def test_the_reasons_of_the_node_come_through_with_their_codes(backend, tester):
    with tester.camera.streaming():
        for code, ask in (
            ("TARGET_EMPTY", lambda: backend.track("", " ", None, 0, True)),
            ("EXPR_RESERVED", lambda: backend.track("", "<image>", None, 0, True)),
            ("TARGET_UNKNOWN", lambda: backend.describe("", "4000000")),
            ("NO_IMAGE", lambda: backend.track("", "", Box(0.1, 0.1, 0.2, 0.2), 5, True)),
        ):
            with pytest.raises(ElysiumError) as caught:
                ask()
            assert caught.value.code == code


def test_nothing_is_subscribed_while_nobody_looks(backend, test_node, tester):
    before = test_node.count_subscribers("/image")
    backend.watch(HERE)
    tester.camera.wait_matched()
    tester.until(lambda: test_node.count_subscribers("/image") == before + 1, "a subscription")
    backend.watch(frozenset())
    tester.until(lambda: test_node.count_subscribers("/image") == before, "no subscription")


@pytest.mark.slow
def test_a_node_may_start_late_and_end(test_node, start_tracker, tester, screen):
    backend = NodeBackend(test_node, "elysium1")
    backend.start(screen.deliver, screen.tell)
    try:
        backend.watch(HERE)
        with tester.camera.streaming():
            tester.until(lambda: screen.pictures, "a picture without a tracker")
            assert not screen.pictures[-1].has_results
            assert backend.status("").fault == "NODE_MISSING"
            late = start_tracker()
            assert late.name == "elysium1"
            tester.until(lambda: screen.pictures[-1].has_results, "a result")
            tester.until(lambda: backend.status("").fault == "", "no fault")
            late.end()
            tester.until(lambda: not screen.pictures[-1].has_results, "a picture without a tracker")
            tester.until(lambda: backend.status("").fault == "NODE_MISSING", "the fault")
    finally:
        backend.close()


def test_waiting_for_a_node_ends_with_the_viewer(test_node, screen):
    backend = NodeBackend(test_node, "/nowhere/tracker")
    backend.start(screen.deliver, screen.tell)
    backend.close()
    with pytest.raises(ElysiumError) as caught:
        backend.pause(True)
    assert caught.value.code == "VIEWER_CLOSED"


def test_a_missing_node_and_a_missing_camera_are_said(test_node, screen):
    backend = NodeBackend(test_node, "/nowhere/tracker", ("side",))
    backend.start(screen.deliver, screen.tell)
    try:
        backend.watch(frozenset({"side"}))
        status = backend.status("side")
        assert status.fault == "NODE_MISSING"
        assert "/nowhere/tracker" in status.fault_text
    finally:
        backend.close()


def test_the_node_serves_its_page_and_ends_on_a_signal(tester):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra `viewer`)")
    from urllib.request import urlopen

    with NodeProcess("elysium_ros.viewer.viewer_node", {"port": 0}, os.environ) as process:
        line = tester.until(lambda: "open http://" in process.output() and process.output(), "the address")
        address = line.split("open ", 1)[1].split()[0]
        with urlopen(address, timeout=60) as answer:
            assert b"elysium" in answer.read()
        assert process.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("parameter", "named"), [("host:=robot", "'robot'"), ("tracker:=no blanks", "'/no blanks'")])
def test_bad_parameters_are_one_sentence(parameter: str, named: str):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra `viewer`)")
    command = [sys.executable, "-m", "elysium_ros.viewer.viewer_node", "--ros-args", "-p", parameter]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert finished.returncode == 2
    assert named in finished.stderr
    assert "Traceback" not in finished.stderr
