"""The life of the engine room: loaded, open, closed, freed."""

import threading

import pytest

from elysium_core.frames import Frame
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import TrackingConfig
from elysium_ros.perception.mailbox import Mailbox
from elysium_ros.perception.perception import Hooks, StartRequest
from elysium_ros.perception.targets import EndReason
from elysium_ros.perception.threads import Runtime
from elysium_ros.perception.worker import WorkerError


@pytest.fixture
def runtime():
    hooks = Hooks(Frame, lambda result: None, str)
    runtime = Runtime(hooks, lambda answer: None, lambda: False, lambda: "the node is not active")
    yield runtime
    runtime.stop()


class ClosableModel(IdentityModel):
    closed = False
    warmed_up = 0

    def close(self):
        self.closed = True

    def warm_up(self):
        self.warmed_up += 1


def test_a_model_is_loaded_once_until_it_is_to_come_from_elsewhere(runtime):
    first, second = ClosableModel(), ClosableModel()
    runtime.load(lambda: first, "a")
    runtime.load(lambda: second, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 2)
    assert first.warmed_up == 2
    runtime.close()
    runtime.load(lambda: second, "b")
    assert first.closed
    runtime.free()
    assert second.closed
    assert runtime.model_info is None


def test_a_model_that_cannot_be_loaded_is_an_error_and_another_one_can(runtime):
    with pytest.raises(ZeroDivisionError):
        runtime.load(lambda: 1 / 0, "a")
    runtime.load(ClosableModel, "a")
    assert runtime.model_info.name == "identity"


def test_calls_are_refused_before_opening_and_after_closing_and_targets_hear_of_the_end(runtime):
    with pytest.raises(WorkerError, match="not active"):
        runtime.call(lambda perception: None)
    runtime.load(ClosableModel, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 0)
    ends = []
    request = StartRequest("", "the red mug")
    runtime.call(lambda perception: perception.start(request, lambda event: ends.append(event.end) is None))
    assert runtime.active_ids == [1]
    runtime.close()
    assert ends == [EndReason.INACTIVE]
    assert runtime.active_ids == []
    for refused in (lambda: runtime.call(lambda perception: None), lambda: runtime.pause(True)):
        with pytest.raises(WorkerError, match="not active") as caught:
            refused()
        assert caught.value.code == "NOT_ACTIVE"


def test_a_late_target_is_stopped_again(runtime, until):
    runtime.load(ClosableModel, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 0)
    go = threading.Event()

    def slow(perception):
        go.wait(5.0)
        return perception.start(StartRequest("", "the red mug"))

    with pytest.raises(WorkerError, match="no answer"):
        runtime.call(slow, 0.05, lambda perception, target: perception.stop(target.id))
    go.set()
    until(lambda: runtime.call(lambda perception: perception.active_ids) == [])
    assert runtime.call(lambda perception: perception.start(StartRequest("", "next"))).id == 2
