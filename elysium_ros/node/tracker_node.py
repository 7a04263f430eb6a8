"""The tracker node: connects cameras, inference, outputs and services, and drives them through the lifecycle.

Nothing is computed here. ``docs/architecture.md`` shows the path of an image.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType

from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.executors import NO_HANDLERS, PoolExecutor, SignalGate, spin
from elysium_ros.node.idle_hint import IdleHint
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.node.parameters import Settings
from elysium_ros.node.publishers import Publishers
from elysium_ros.node.services import MAX_WAITING_CALLS, Services
from elysium_ros.node.status_reporter import StatusReporter
from elysium_ros.node.track_action import MAX_GOALS, TrackAction
from elysium_ros.node.watchdog import Watchdog
from elysium_ros.perception.frame_statistics import Statistics
from elysium_ros.perception.inference import Inference
from elysium_ros.perception.types import StartRequest
from elysium_ros.perception.worker import INFERENCE_THREAD

# Threads for callbacks that do not wait long: lifecycle, parameters, timers, quick services. They start when needed.
_QUICK_THREADS = 10
_CLOSE_TIMEOUT_S = 3.0


class TrackerNode(ManagedNode):
    """Follows what a sentence or a box names in the images of one or more cameras."""

    def __init__(self) -> None:
        super().__init__("elysium")
        self._parameter_server = ParameterServer(
            self,
            lambda: self.state in ("activating", "active"),
            self.guard.callback(self._on_parameters),
            self._check_parameters,
        )
        self._statistics = Statistics()
        self._inference = Inference(self)
        self._cameras = CameraInputs(self, self._parameter_server, self._statistics)
        self._status_reporter = StatusReporter(
            self, self._parameter_server, self._cameras, self._inference, self._statistics
        )
        self._outputs = Publishers(self, self._parameter_server, self._cameras, self._statistics, self._status_reporter)
        self._service_api = Services(self, self._inference, self._cameras, self._outputs, self._status_reporter)
        self._action_api = TrackAction(self, self._inference, self._status_reporter)
        self._idle_hint = IdleHint(self, self._inference, self._cameras)
        self._watchdog = Watchdog(
            self, self._parameter_server, self._inference, self._cameras, self._outputs, self._status_reporter
        )
        # On a steady clock: with simulated time the node must come up before /clock does.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(
            self._parameter_server.settings.diagnostics_period_s,
            self.guard.callback(self._housekeeping),
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=steady,
        )
        self._autostart_timer = self.create_timer(
            0.0, self.guard.callback(self._autostart), callback_group=ReentrantCallbackGroup(), clock=steady
        )
        self._watchdog.start()

    def configure(self) -> None:
        """Check the parameters and load the model."""
        self._parameter_server.check()
        self._load()
        self._inference.check_words(self._parameter_server.settings.initial_expression)
        self._status_reporter.publish_status()

    def activate(self) -> None:
        """Warm up and subscribe to the cameras."""
        self._load()
        self._statistics.reset()
        mailboxes = self._inference.open(self._parameter_server.settings.inference_settings(), self._outputs)
        self._cameras.open(mailboxes)
        topics = ", ".join(state.topic for state in self._cameras.states())
        self.get_logger().info(f"active, listening to {topics}")
        # Warming up takes long: what was set meanwhile holds from the first image on.
        settings = self._parameter_server.settings
        self._inference.configure(settings.inference_settings())
        self._start_initial(settings)
        self._idle_hint.begin()
        self._status_reporter.publish_status()

    def deactivate(self) -> None:
        """Unsubscribe and end all targets; free the model if so configured."""
        self._cameras.close()
        self._inference.close()
        if self._parameter_server.settings.release_on_deactivate == "free":
            self._inference.free()
        self._status_reporter.publish_status()

    def cleanup(self) -> None:
        """Free the model and end the inference thread."""
        self._inference.free()
        self._inference.stop()
        self._status_reporter.publish_status()

    def close(self) -> None:
        """End the threads of the node; wait a little for what they are doing."""
        self._watchdog.stop(_CLOSE_TIMEOUT_S)
        self._action_api.close()
        self._inference.stop(_CLOSE_TIMEOUT_S)
        self._outputs.close(_CLOSE_TIMEOUT_S)

    def _load(self) -> None:
        options, begin_s = self._parameter_server.settings.load, time.monotonic()
        if self._inference.load(options):
            info, took_s = self._inference.state().model, time.monotonic() - begin_s
            where = f"on {info.device} ({info.backend}, {info.precision})" if info else ""
            self.get_logger().info(f"loaded {options.model!r} {where} in {took_s:.1f} s")

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self._parameter_server.settings.autostart:
            self.start_by_itself()

    def _housekeeping(self) -> None:
        self._status_reporter.publish()
        if self.state == "active":
            self._cameras.check()
            self._idle_hint.look()
        if self.namesakes:
            name = self.get_fully_qualified_name()
            self.events.report("NODE_NAME", f"another node is named {name} too; give one another name or namespace")

    def _check_parameters(self, settings: Settings, changed: set[str]) -> None:
        if "tracking.initial_expression" in changed:
            self._inference.check_words(settings.initial_expression)

    def _on_parameters(self, settings: Settings, changed: set[str]) -> None:
        if not self._inference.is_open:
            return
        self._inference.configure(settings.inference_settings())
        if "tracking.initial_expression" in changed:
            self._start_initial(settings)

    def _start_initial(self, settings: Settings) -> None:
        if settings.initial_expression:
            request = StartRequest(settings.cameras[0], settings.initial_expression)
            self._inference.post(lambda perception: perception.start_standing(request))


def make_executor(node: TrackerNode) -> PoolExecutor:
    """Return what runs the node's callbacks."""
    return PoolExecutor(node, 2 * MAX_WAITING_CALLS + MAX_GOALS + _QUICK_THREADS)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a shutdown of the context; return the exit code.

    The code is 0, or ``EXIT_RESTART`` if a new process is needed to go on. With torch in the process, or a model that
    still runs, it does not return but ends the process with that code.
    """
    gate = SignalGate()
    rclpy.init(args=args, signal_handler_options=NO_HANDLERS)
    node: TrackerNode | None = None
    try:
        node = TrackerNode()
        executor = make_executor(node)
        if gate.open():
            spin(executor, node.guard.report)
        exit_code = node.exit_code
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
        if node is not None:
            # Or others see this node for 20 s more, and its shared memory stays for ever.
            node.destroy_node()
    if "torch" in sys.modules or any(thread.name == INFERENCE_THREAD for thread in threading.enumerate()):
        # All is closed. Taking torch apart takes seconds, and aborts if a model still runs, or loads, in a thread.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
