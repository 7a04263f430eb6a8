from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from elysium_core.errors import BackendError, ElysiumError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.video import open_video
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.viewer.backend import Picture
from elysium_core.viewer.library_backend import LibraryBackend

HERE = frozenset({""})


class Screen:
    """What a server would get."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.faults: list[tuple[str, str, str]] = []
        self._news = threading.Condition()

    def deliver(self, picture: Picture) -> None:
        with self._news:
            self.pictures.append(picture)
            self._news.notify_all()

    def tell(self, *fault: str) -> None:
        with self._news:
            self.faults.append(fault)
            self._news.notify_all()

    def wait(self, condition: Callable[[Screen], object]) -> object:
        with self._news:
            assert self._news.wait_for(lambda: condition(self), 20)
            return condition(self)

    def wait_for_targets(self, ids: list[str]) -> Picture:
        return self.wait(lambda s: s.pictures and [t.id for t in s.pictures[-1].targets] == ids and s.pictures[-1])


@pytest.fixture
def screen():
    return Screen()


@pytest.fixture
def backend(recording, screen):
    backend = LibraryBackend(recording, IdentityModel())
    backend.start(screen.deliver, screen.tell)
    yield backend
    backend.close()


def test_a_file_plays_in_a_circle_while_somebody_looks(backend, screen):
    time.sleep(0.1)
    assert screen.pictures == []
    assert backend.status("").received <= 1
    backend.watch(HERE)
    screen.wait(lambda s: len(s.pictures) > 28)  # there are 24 frames
    backend.watch(frozenset())
    stamps = [picture.stamp_ns for picture in screen.pictures]
    assert stamps == sorted(set(stamps))
    picture = screen.pictures[0]
    assert (picture.width, picture.height, picture.targets) == (320, 240, ())
    assert picture.encode().startswith(b"\xff\xd8")
    status = backend.status("")
    assert (status.model, status.fault) == ("identity", "")
    assert status.received >= 28


def test_targets_are_followed_described_and_stopped(backend, screen):
    backend.watch(HERE)
    screen.wait(lambda s: s.pictures)
    stamp_ns = screen.pictures[0].stamp_ns
    assert backend.track("", "the square", None, 0, True) == "1"
    assert backend.track("", "", Box(0.1, 0.2, 0.3, 0.4), stamp_ns, True) == "2"
    view = screen.wait_for_targets(["1", "2"]).targets
    assert (view[0].words, view[0].state) == ("the square", "TRACKED")
    assert view[1].box == (0.1, 0.2, 0.3, 0.4)
    assert backend.describe("", "2") == "something at 10,20,30,40"
    screen.wait(lambda s: s.pictures[-1].targets[1].text)
    assert backend.ask("", "What is it?") == "no model is loaded"
    backend.stop("", "1")
    screen.wait_for_targets(["2"])
    assert backend.track("", "another", None, 0, False) == "3"
    screen.wait_for_targets(["3"])
    backend.stop("", "")
    screen.wait_for_targets([])


def test_requests_are_answered_while_paused(backend, screen):
    backend.watch(HERE)
    screen.wait(lambda s: s.pictures)
    backend.pause(True)
    assert backend.status("").paused
    backend.track("", "the square", None, 0, True)
    stamp_ns = screen.wait_for_targets(["1"]).stamp_ns
    backend.stop("", "1")
    assert screen.wait_for_targets([]).stamp_ns == stamp_ns
    backend.pause(False)
    screen.wait(lambda s: s.pictures[-1].stamp_ns > stamp_ns)


@pytest.mark.parametrize(
    ("code", "request_of"),
    [
        ("TARGET_EMPTY", lambda b: b.track("", "  ", None, 0, True)),
        ("EXPR_RESERVED", lambda b: b.track("", "<image>", None, 0, True)),
        ("BOX_STAMP", lambda b: b.track("", "", Box(0.1, 0.1, 0.2, 0.2), 5, True)),
        ("TARGET_UNKNOWN", lambda b: b.stop("", "7")),
        ("TARGET_UNKNOWN", lambda b: b.describe("", "7")),
        ("EXPR_RESERVED", lambda b: b.ask("", "USER: hello")),
    ],
)
def test_bad_requests_are_refused_and_leave_the_rest(backend, screen, code, request_of):
    backend.watch(HERE)
    backend.track("", "the square", None, 0, True)
    screen.wait_for_targets(["1"])
    with pytest.raises(ElysiumError) as caught:
        request_of(backend)
    assert caught.value.code == code
    screen.wait_for_targets(["1"])


def test_there_are_as_many_targets_as_allowed(backend, screen):
    backend.watch(HERE)
    screen.wait(lambda s: s.pictures)
    drawn_on = screen.pictures[0].stamp_ns  # each box gets a tracker of its own, and all count together
    for _ in range(4):
        backend.track("", "", Box(0.1, 0.1, 0.2, 0.2), drawn_on, True)
    with pytest.raises(ElysiumError) as caught:
        backend.track("", "the square", None, 0, True)
    assert caught.value.code == "TARGET_LIMIT"


def test_a_box_on_an_older_frame_starts_in_that_frame(recording, screen):
    seen: list[list[int]] = []

    class Noting(IdentityTracker):
        def __init__(self, config=None) -> None:
            super().__init__(config)
            self.indices: list[int] = []
            seen.append(self.indices)

        def step(self, frame: Frame):
            self.indices.append(frame.index)
            return super().step(frame)

    model = IdentityModel()
    model.tracker = lambda mode="stream", config=None: Noting(config)
    backend = LibraryBackend(recording, model)
    backend.start(screen.deliver, screen.tell)
    try:
        backend.watch(HERE)
        screen.wait(lambda s: len(s.pictures) > 4)
        backend.track("", "", Box(0.1, 0.1, 0.2, 0.2), screen.pictures[1].stamp_ns, True)
        screen.wait_for_targets(["1"])
    finally:
        backend.close()
    first, own = seen
    assert own[0] == first[1]
    assert own[1] > own[0] + 1
    assert own[1:] == first[first.index(own[1]) :]


def test_a_failing_model_is_told_once_and_gone_when_it_is_over(recording, screen):
    class Failing(IdentityTracker):
        def step(self, frame: Frame):
            if 3 <= frame.index < 8:
                raise BackendError("the device is too hot", code="HOT")
            return super().step(frame)

    model = IdentityModel()
    model.tracker = lambda mode="stream", config=None: Failing(config)
    backend = LibraryBackend(recording, model)
    backend.start(screen.deliver, screen.tell)
    try:
        backend.watch(HERE)
        screen.wait(lambda s: s.faults)
        screen.wait(lambda s: len(s.pictures) > 8)
        assert screen.faults == [("", "HOT", "the device is too hot")]
        assert backend.status("").fault == ""
    finally:
        backend.close()


def test_a_picture_can_be_looked_at_and_a_file_played_once(tmp_path, screen):
    from elysium_core.io.image import write_image

    write_image(tmp_path / "one.png", np.full((48, 64, 3), 90, np.uint8))
    backend = LibraryBackend(open_video(tmp_path / "one.png"), IdentityModel(), loop=False, expressions=["the wall"])
    backend.start(screen.deliver, screen.tell)
    try:
        backend.watch(HERE)
        screen.wait_for_targets(["1"])
        backend.track("", "the floor", None, 0, True)  # there are no more frames, and it is shown all the same
        screen.wait_for_targets(["1", "2"])
        assert backend.source == "one.png"
    finally:
        backend.close()
    with pytest.raises(ElysiumError) as caught:
        backend.ask("", "Anybody there?")
    assert caught.value.code == "VIEWER_CLOSED"
