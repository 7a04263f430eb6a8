"""What the tests of the inference thread share; all without ROS."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import TrackingConfig
from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.types import InferenceSettings, StartRequest


def until(condition, timeout_s=5.0):
    """Poll until something is true, and return it; the test fails if it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, "it did not happen in time"
        threading.Event().wait(0.002)
    return value


class Results:
    """Where results go: all that was published, described and reported."""

    def __init__(self):
        self.jobs, self.answers, self.reports = [], [], []

    def publish(self, job):
        self.jobs.append(job)

    def publish_description(self, answer):
        self.answers.append(answer)

    def report(self, error):
        self.reports.append(str(error))
        return f"INTERNAL: {error}"


def picture(height, width):
    """The fields of an image message."""
    return SimpleNamespace(
        encoding="rgb8", height=height, width=width, step=3 * width, is_bigendian=0, data=bytes(3 * width * height)
    )


BROKEN = SimpleNamespace(encoding="no_such", height=1, width=1, step=1, is_bigendian=0, data=b"")


class Scene:
    """A perception with cameras that are fed by hand, and all that came out."""

    def __init__(self, cameras=("",), model=None, config=None):
        # A second passes between any two looks at the clock, so that three images after a jump are believed.
        self.mailboxes = {camera: Mailbox(camera, 4, clock=itertools.count().__next__) for camera in cameras}
        self.outputs = Results()
        self.results, self.reports = self.outputs.jobs, self.outputs.reports
        self.perception = Perception(
            model or IdentityModel(),
            InferenceSettings(tracking=config or TrackingConfig()),
            self.mailboxes.values(),
            itertools.count(1),
            self.outputs,
        )

    def arrive(self, stamp, camera="", size=(48, 64)):
        self.mailboxes[camera].put(stamp, picture(*size) if size else BROKEN, 1)

    def see(self, stamp, camera="", size=(48, 64)):
        """Have an image arrive and be looked at; return what was published of it. No size: it cannot be decoded."""
        self.arrive(stamp, camera, size)
        before = len(self.results)
        if image := self.mailboxes[camera].take():
            self.perception.look_at(image)
        return self.results[before:]

    def start(self, expression="", place=None, stamp=0, add=False, camera="", listener=None):
        return self.perception.start(StartRequest(camera, expression, place, stamp, add), listener)

    def configure(self, **tracking):
        self.perception.configure(InferenceSettings(tracking=TrackingConfig(**tracking)))

    def states(self):
        return [(view.id, view.update.state.value) for view in self.results[-1].views]


def at(*box):
    return lambda width, height: Box.from_px(*box, width, height)


@pytest.fixture(name="until", scope="session")
def until_fixture():
    return until


@pytest.fixture(name="at", scope="session")
def at_fixture():
    return at


@pytest.fixture
def results():
    return Results()


@pytest.fixture(name="picture", scope="session")
def picture_fixture():
    return picture


@pytest.fixture(scope="session")
def make_scene():
    return Scene


@pytest.fixture
def scene():
    return Scene()
