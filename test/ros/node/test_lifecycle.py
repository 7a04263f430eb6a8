"""A managed node in this process: what it answers while a transition runs, fails or is not possible."""

import gc
import threading
import time

import pytest
import rclpy
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from elysium_core.errors import ModelFileError
from elysium_ros.node.executors import SERVICE_QOS
from elysium_ros.node.lifecycle import ManagedNode

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)


class Subject(ManagedNode):
    """Does in each transition what the test says; remembers which steps ran."""

    def __init__(self, context):
        super().__init__("subject", context=context)
        self.steps = []
        self.plan = {}

    def _step(self, name):
        self.steps.append(name)
        self.plan.get(name, lambda: None)()

    def configure(self):
        self._step("configure")

    def activate(self):
        self._step("activate")

    def deactivate(self):
        self._step("deactivate")

    def cleanup(self):
        self._step("cleanup")


class Harness:
    def __init__(self, context):
        self.subject = Subject(context)
        self.caller = Node("caller", context=context)
        self.executor = MultiThreadedExecutor(num_threads=4, context=context)
        for node in (self.subject, self.caller):
            self.executor.add_node(node)
        self._change = self.caller.create_client(ChangeState, "/subject/change_state")
        self._state = self.caller.create_client(GetState, "/subject/get_state")
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()
        assert self._change.wait_for_service(30.0)
        assert self._state.wait_for_service(30.0)

    def _spin(self):
        while self.subject.context.ok():
            try:
                self.executor.spin_once()
            except ExternalShutdownException:
                return

    def begin(self, transition_id, label=""):
        """Ask for a transition; return an event and the future it is about."""
        done = threading.Event()
        request = ChangeState.Request(transition=Transition(id=transition_id, label=label))
        future = self._change.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return done, future

    def change(self, transition_id, label=""):
        done, future = self.begin(transition_id, label)
        assert done.wait(30.0), "no reply"
        return future.result().success

    def state(self):
        done = threading.Event()
        future = self._state.call_async(GetState.Request())
        future.add_done_callback(lambda _: done.set())
        assert done.wait(30.0), "no reply"
        return future.result().current_state.label


@pytest.fixture
def harness():
    context = rclpy.Context()
    rclpy.init(context=context)
    harness = Harness(context)
    yield harness
    rclpy.shutdown(context=context)
    harness.thread.join()
    # Else the middleware knows the node until its last reference is gone, and the next test meets a namesake.
    harness.subject.destroy_node()
    harness.caller.destroy_node()
    del harness
    gc.collect()


def test_the_state_is_told_and_other_transitions_are_refused_while_one_runs(harness):
    go, running = threading.Event(), threading.Event()
    harness.subject.plan["configure"] = lambda: (running.set(), go.wait(30.0))
    done, future = harness.begin(CONFIGURE)
    assert running.wait(30.0)
    assert harness.state() == "configuring"
    assert not harness.change(CLEANUP)
    assert not harness.change(CONFIGURE)
    go.set()
    assert done.wait(30.0)
    assert future.result().success
    assert harness.state() == "inactive"


def test_a_burst_of_calls_is_answered_and_changes_of_the_state_are_announced(harness):
    caller, events = harness.caller, []
    caller.create_subscription(TransitionEvent, "/subject/transition_event", events.append, SERVICE_QOS)
    deadline_s = time.monotonic() + 30.0
    while not caller.count_publishers("/subject/transition_event"):
        assert time.monotonic() < deadline_s
    client = caller.create_client(GetState, "/subject/get_state", qos_profile=SERVICE_QOS)
    assert client.wait_for_service(30.0)
    futures = [client.call_async(GetState.Request()) for _ in range(300)]
    while not all(future.done() for future in futures):
        assert time.monotonic() < deadline_s, f"{sum(not future.done() for future in futures)} replies are lost"
    assert harness.change(CONFIGURE)
    while [event.goal_state.label for event in list(events)][-2:] != ["configuring", "inactive"]:
        assert time.monotonic() < deadline_s, events
    assert (events[-2].start_state.label, events[-2].transition.label) == ("unconfigured", "configure")


def test_a_node_of_the_same_name_is_noticed(harness, until):
    until(lambda: harness.subject.namesakes == 0, "the node of the test before is forgotten by the middleware")
    twin = Node("subject", context=harness.subject.context)
    until(lambda: harness.subject.namesakes == 1, "the twin is seen")
    twin.destroy_node()


@pytest.mark.parametrize("transition", [CLEANUP, ACTIVATE, DEACTIVATE, 10, 97, 200])
def test_an_impossible_transition_is_refused_and_runs_nothing(harness, transition):
    assert not harness.change(transition)
    assert harness.state() == "unconfigured"
    assert harness.subject.steps == []
    assert harness.change(CONFIGURE)


def test_a_transition_may_be_named_by_its_label(harness):
    assert harness.change(0, "configure")
    assert not harness.change(CONFIGURE, "nonsense"), "the label counts"
    assert harness.state() == "inactive"


def fail(error):
    def step():
        raise error

    return step


def test_an_expected_failure_keeps_the_state_says_why_and_undoes_the_half_done(harness):
    subject = harness.subject
    subject.plan["configure"] = fail(ModelFileError("there is no model 'x'"))
    assert not harness.change(CONFIGURE)
    assert (harness.state(), subject.failure) == ("unconfigured", "MODEL_FILE: there is no model 'x'")
    assert subject.steps == ["configure", "cleanup"]
    subject.plan.clear()
    assert harness.change(CONFIGURE)
    assert subject.failure == ""


def test_an_unexpected_failure_frees_everything_and_the_node_can_be_configured_again(harness):
    subject = harness.subject
    assert harness.change(CONFIGURE)
    subject.plan["activate"] = fail(KeyError("surprise"))
    assert not harness.change(ACTIVATE)
    assert harness.state() == "unconfigured"
    assert subject.failure.startswith("INTERNAL: KeyError: 'surprise'")
    assert subject.steps[-2:] == ["deactivate", "cleanup"]
    subject.plan.clear()
    assert harness.change(CONFIGURE)
    assert harness.change(ACTIVATE)
    assert harness.change(DEACTIVATE)
    assert harness.change(CLEANUP)
    assert harness.state() == "unconfigured"


def test_starting_by_itself_gives_way_to_a_manager(harness):
    assert harness.change(CONFIGURE)
    harness.subject.start_by_itself()
    assert harness.state() == "inactive"
    assert harness.change(CLEANUP)
    harness.subject.start_by_itself()
    assert harness.state() == "active"


def test_starting_by_itself_stops_at_what_fails(harness):
    harness.subject.plan["configure"] = fail(ModelFileError("there is no model 'x'"))
    harness.subject.start_by_itself()
    assert harness.state() == "unconfigured"
    assert "activate" not in harness.subject.steps


def test_a_callback_that_outlives_its_node_gets_an_exception_and_not_a_crash_of_the_process():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ManagedNode("gone", context=context)
    node.destroy_node()
    with pytest.raises(InvalidHandle):
        _ = node.state
    with pytest.raises(InvalidHandle):
        node.trigger_configure()
    rclpy.shutdown(context=context)
