"""The tracker node in the test's own process, where its model can be held up or broken."""

import threading
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from elysium_core.errors import GPU_LOST, BackendError
from elysium_core.tracking.identity import IdentityModel
from elysium_ros.node.lifecycle import EXIT_RESTART
from elysium_ros.node.tracker_node import TrackerNode
from elysium_ros.perception import inference


class SlowModel(IdentityModel):
    """Takes as long to warm up as the test wants, and shows its trackers."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.trackers = []

    def warm_up(self):
        self.begun.set()
        assert self.go_on.wait(30.0)

    def tracker(self, mode="stream", config=None):
        self.trackers.append(super().tracker(mode, config))
        return self.trackers[-1]


@pytest.fixture
def made(monkeypatch):
    """A node that is configured, and its model."""
    model = SlowModel()
    monkeypatch.setattr(inference, "load_model", lambda options: model)
    rclpy.init(args=["--ros-args", "-p", "autostart:=false", "-p", "model.path:=identity"])
    node = TrackerNode()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    yield SimpleNamespace(node=node, model=model)
    model.go_on.set()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def verdicts(node, **values):
    return [
        node.set_parameters([Parameter(name.replace("__", "."), value=value)])[0].successful
        for name, value in values.items()
    ]


def test_what_is_set_while_the_node_warms_up_holds_afterwards(made, until):
    activating = threading.Thread(target=made.node.trigger_activate)
    activating.start()
    assert made.model.begun.wait(30.0)
    assert verdicts(made.node, tracking__lost_after=7.0, tracking__initial_expression="the red mug") == [True, True]
    assert verdicts(made.node, buffer__capacity=99) == [False], "it would not be used before the next activation"
    made.model.go_on.set()
    activating.join()
    assert made.node.state == "active"
    until(lambda: made.model.trackers and made.model.trackers[0].target_ids, "the target that was set")
    assert made.model.trackers[0].config.lost_after_s == 7.0


def test_a_lost_gpu_ends_the_process_with_a_code_for_whoever_watches_it(made):
    made.model.go_on.set()
    made.node.trigger_activate()
    assert (made.node.exit_code, rclpy.ok()) == (0, True)
    made.node._outputs.report(BackendError("out of memory", code="MEMORY"))
    assert (made.node.exit_code, rclpy.ok()) == (0, True)
    made.node._outputs.report(BackendError("the vision encoder failed: CUDA error", code=GPU_LOST))
    assert (made.node.exit_code, rclpy.ok()) == (EXIT_RESTART, False)
