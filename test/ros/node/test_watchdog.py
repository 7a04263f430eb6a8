"""The watchdog tells each change once, and STALE once for each time that results stop."""

from types import SimpleNamespace

import pytest

from elysium_ros.node.camera_hints import InputState
from elysium_ros.node.watchdog import Watchdog
from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.perception.faults import Fault
from elysium_ros.perception.requests import WorkerError


class Node:
    """A node whose cameras are as the test says; notes what it is told."""

    def __init__(self):
        self.cameras, self.fault, self.told = {"": CameraHealth(received=1, answered=1)}, None, []
        note = self.told.append
        self.watchdog = Watchdog(
            SimpleNamespace(events=SimpleNamespace(report=lambda code, *_, **__: note(code))),
            SimpleNamespace(settings=SimpleNamespace(frame_timeout_s=1.0)),
            SimpleNamespace(check=lambda: self.fault),
            SimpleNamespace(states=lambda: [InputState(name, "/image", 1, h) for name, h in self.cameras.items()]),
            SimpleNamespace(publish_stale=lambda camera: note(f"stale {camera}".strip())),
            SimpleNamespace(publish=lambda: note("status")),
        )

    def look(self, camera="", **health):
        """Look once; return what was told."""
        self.cameras[camera] = CameraHealth(**{"received": 1, "answered": 1, **health})
        self.told.clear()
        self.watchdog.look()
        return list(self.told)


@pytest.fixture
def node():
    node = Node()
    assert node.look() == []
    return node


def test_a_camera_that_goes_is_told_at_once_and_once_and_so_is_its_return(node):
    assert node.look(silence_s=0.9, result_age_s=0.9) == []
    assert node.look(silence_s=1.1, result_age_s=1.1) == ["stale", "status"]
    assert node.look(silence_s=9.0, result_age_s=9.0) == []
    assert node.look(received=2, answered=2) == ["status"]
    assert node.look(received=2, answered=2, silence_s=1.1, result_age_s=1.1) == ["stale", "status"]


def test_results_that_stop_while_images_come_are_told_too(node):
    assert node.look(received=9, result_age_s=1.1, waiting_s=1.1) == ["stale", "status"]


def test_nothing_is_stale_before_the_first_result(node):
    assert node.look(received=9, answered=0, waiting_s=9.0) == ["status"]


def test_each_camera_is_watched_for_itself(node):
    assert node.look("rear") == []
    assert node.look("rear", silence_s=2.0, result_age_s=2.0) == ["stale rear", "status"]


def test_a_fault_is_told_with_its_code(node):
    node.fault = Fault(WorkerError("it hangs", code="MODEL_TIMEOUT"), "the stack")
    assert node.look() == ["MODEL_TIMEOUT", "status"]
