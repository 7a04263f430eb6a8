"""The client in Python: replies that are lost on the way, which DDS does to the first ones of a new client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from std_srvs.srv import Trigger

from elysium_ros.client import tracker_client
from elysium_ros.client.tracker_client import NoAnswerError, TrackerClient
from elysium_ros.srv import StopTracking, Track


class LossyService:
    """Looks like a client of rclpy; the first replies never arrive."""

    def __init__(self, lost: int, response: Any) -> None:
        self.requests: list[Any] = []
        self.pending = 0
        self._lost = lost
        self._response = response

    def service_is_ready(self) -> bool:
        return True

    def call_async(self, request: Any) -> SimpleNamespace:
        self.requests.append(request)
        self.pending += 1
        arrives = len(self.requests) > self._lost
        return SimpleNamespace(done=lambda: arrives, result=lambda: self._response)

    def remove_pending_request(self, future: SimpleNamespace) -> None:
        self.pending -= 1


def client_of(service: LossyService, timeout_s: float = 5.0) -> TrackerClient:
    node: Any = SimpleNamespace(create_client=lambda kind, name: service)
    return TrackerClient(node, timeout_s=timeout_s)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_client, "_REPEATS_S", (0.02,))


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_target_is_asked_for_once_however_many_replies_are_lost_before(lost: int) -> None:
    service = LossyService(lost, Track.Response(success=True, id=4))
    client = client_of(service)
    assert client.track("the red mug").id == 4
    assert client.track("the blue cup", add=True).id == 4
    assert [r.expression for r in service.requests] == [""] * (lost + 1) + ["the red mug", "the blue cup"]
    # What goes before names nothing and waits for less than nothing, so that the node refuses it.
    assert all(r.wait_timeout < 0 for r in service.requests[: lost + 1])
    assert service.pending == 0


def test_nothing_is_stopped_and_no_transition_made_to_find_out_who_is_there() -> None:
    stopping = LossyService(1, StopTracking.Response(success=True))
    client_of(stopping).stop()
    assert [r.id for r in stopping.requests] == [2**32 - 1, 2**32 - 1, 0]
    changing = LossyService(1, ChangeState.Response(success=True))
    client_of(changing).change_state("activate")
    assert [r.transition.id for r in changing.requests] == [0, 0, tracker_client.TRANSITIONS["activate"]]


def test_what_can_be_done_twice_is_asked_again() -> None:
    service = LossyService(2, GetState.Response(current_state=State(id=3, label="active")))
    assert client_of(service).lifecycle_state() == "active"
    assert len(service.requests) == 3


def test_it_is_asked_again_soon_and_then_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_client, "_REPEATS_S", (0.1, 0.2, 0.4))
    waited: list[float] = []

    def lose(condition: Any, timeout_s: float, complaint: str, *rest: Any, **named: Any) -> None:
        if "did not answer" in complaint and not condition():
            waited.append(timeout_s)
            raise NoAnswerError(complaint)

    monkeypatch.setattr(tracker_client, "wait_until", lose)
    client_of(LossyService(5, GetState.Response(current_state=State(label="active")))).lifecycle_state()
    assert waited == [0.1, 0.2, 0.4, 0.4, 0.4]
    waited.clear()
    client_of(LossyService(2, Trigger.Response(success=True))).reset()
    assert waited == [0.4, 0.4], "a reset that comes late undoes what was asked for behind it"


def test_a_service_that_never_answers_is_given_up_after_the_whole_time() -> None:
    service = LossyService(10**6, None)
    with pytest.raises(NoAnswerError, match=r"/elysium/track did not answer within 0\.2 s"):
        client_of(service, 0.2).track("the red mug")
    assert len(service.requests) > 2
    assert service.pending == 0
