"""What the tests of the inference thread share; all without ROS."""

import itertools
import threading
import time

import numpy as np
import pytest

from elysium_core.errors import ImageError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import TrackingConfig
from elysium_ros.perception.mailbox import Mailbox
from elysium_ros.perception.perception import Hooks, Perception, StartRequest


def until(condition, timeout_s=5.0):
    """Poll until something is true; the test fails if it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        threading.Event().wait(0.002)


def put(worker, mailbox, stamp):
    mailbox.put(stamp, stamp, 1)
    worker.notify()


class Scene:
    """A perception with cameras that are fed by hand, and all that it said."""

    def __init__(self, cameras=("",), model=None, config=None):
        self.mailboxes = {camera: Mailbox(camera, 4) for camera in cameras}
        self.results = []
        self.reports = []
        self.perception = Perception(
            model or IdentityModel(),
            config or TrackingConfig(),
            self.mailboxes.values(),
            itertools.count(1),
            Hooks(self.decode, self.results.append, self.report),
        )

    def decode(self, payload, stamp_ns, index):
        if payload == "broken":
            raise ImageError("it cannot be read")
        return Frame(np.zeros((*payload, 3), np.uint8), stamp_ns, index)

    def report(self, error):
        self.reports.append(str(error))
        return f"INTERNAL: {error}"

    def arrive(self, stamp, camera="", payload=(48, 64)):
        self.mailboxes[camera].put(stamp, payload, 1)

    def see(self, stamp, camera="", payload=(48, 64)):
        """Have an image arrive and be looked at; return what was published of it."""
        self.arrive(stamp, camera, payload)
        before = len(self.results)
        self.perception.look_at(self.mailboxes[camera].take())
        return self.results[before:]

    def start(self, expression="", place=None, stamp=0, add=False, camera="", listener=None):
        return self.perception.start(StartRequest(camera, expression, place, stamp, add), listener)

    def states(self):
        return [(view.id, view.update.state.value) for view in self.results[-1].views]


def at(*box):
    return lambda width, height: Box.from_px(*box, width, height)


@pytest.fixture(name="until", scope="session")
def until_fixture():
    return until


@pytest.fixture(name="put", scope="session")
def put_fixture():
    return put


@pytest.fixture(name="at", scope="session")
def at_fixture():
    return at


@pytest.fixture(scope="session")
def make_scene():
    return Scene


@pytest.fixture
def scene():
    return Scene()
