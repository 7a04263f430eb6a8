"""The action: a goal from its start to each of its ends."""

import threading

import pytest
from rclpy.action import ActionClient

from elysium_ros.action import TrackObject
from elysium_ros.msg import Box2D, TrackedObject

WHOLE = Box2D(x_max=64.0, y_max=48.0)
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


class Goal:
    """One goal of the action, its feedback and its result."""

    def __init__(self, client, **fields):
        self.feedback = []
        self._accepted, self._ended = threading.Event(), threading.Event()
        goal = TrackObject.Goal(**fields)
        sent = client.send_goal_async(goal, feedback_callback=lambda message: self.feedback.append(message.feedback))
        sent.add_done_callback(self._take_handle)

    def _take_handle(self, future):
        self.handle = future.result()
        self.handle.get_result_async().add_done_callback(self._take_result)
        self._accepted.set()

    def _take_result(self, future):
        self.status, self.result = future.result().status, future.result().result
        self._ended.set()

    def cancel(self):
        assert self._accepted.wait(30.0)
        self.handle.cancel_goal_async()

    def has_ended(self, timeout_s):
        return self._ended.wait(timeout_s)

    def wait(self):
        assert self.has_ended(30.0)
        return self.result


@pytest.fixture(scope="module")
def goal_client(running):
    """One for all tests. The first replies to it can be lost, so a goal that is refused is sent until one comes."""
    client = ActionClient(running.node, TrackObject, running.topic("track_object"))
    assert client.wait_for_server(30.0)
    running.until(lambda: Goal(client).has_ended(1.0), "an answer to a goal")
    yield client
    client.destroy()


@pytest.fixture
def send_goal(tracker, goal_client):
    return lambda **fields: Goal(goal_client, **fields)


def wait_for_feedback(goal, count):
    event = threading.Event()
    for _ in range(6000):
        if len(goal.feedback) >= count:
            return goal.feedback
        event.wait(0.005)
    raise AssertionError(f"{len(goal.feedback)} feedbacks came, not {count}")


def test_a_goal_reports_every_frame_until_it_is_cancelled(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(expression="the red mug")
        feedback = wait_for_feedback(goal, 3)
        goal.cancel()
        result = goal.wait()
    assert (goal.status, result.reason) == (CANCELED, TrackObject.Result.REASON_CANCELED)
    assert result.frames >= 3
    assert result.last.id == result.id
    assert feedback[0].object.box == WHOLE
    assert tracker.objects[""].of(feedback[0].header).objects[-1] == feedback[0].object
    assert (result.id, TrackedObject.STATE_TRACKED) not in tracker.states(tracker.see()), (
        "the target ended with the goal"
    )


def test_a_goal_ends_when_its_time_is_over(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(box=PART, max_duration=0.3)
        result = goal.wait()
    assert (goal.status, result.reason) == (SUCCEEDED, TrackObject.Result.REASON_TIMEOUT)
    assert "0.3 s" in result.message


def test_a_goal_ends_when_another_request_replaces_its_target(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(expression="one")
        wait_for_feedback(goal, 1)
        tracker.client.track("two")
        result = goal.wait()
    assert (goal.status, result.reason) == (ABORTED, TrackObject.Result.REASON_REPLACED)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"expression": ""}, "EXPR_EMPTY"), ({"expression": "it", "max_duration": -1.0}, "TIME_INVALID")],
)
def test_a_goal_that_cannot_be_started_says_why(send_goal, fields, code):
    goal = send_goal(**fields)
    result = goal.wait()
    assert (goal.status, result.reason, result.id) == (ABORTED, TrackObject.Result.REASON_ERROR, 0)
    assert result.message.startswith(f"{code}: ")
