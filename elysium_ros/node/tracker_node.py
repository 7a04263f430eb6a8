"""The node: wires cameras, inference, outputs and services together and drives them through the lifecycle.

Nothing is computed here. ``docs/architecture.md`` shows what flows where.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos_overriding_options import InvalidQosOverridesError
from sensor_msgs.msg import CameraInfo

from elysium_core.errors import GPU_LOST, ConfigError, ElysiumError
from elysium_ros.convert.messages import message_to_frame
from elysium_ros.node.camera_input import CameraInput, InputTools
from elysium_ros.node.diagnostics import Condition, StatusReporter
from elysium_ros.node.events import Narrator
from elysium_ros.node.executors import NO_HANDLERS, PoolExecutor, SignalGate, spin
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.loading import ModelChoice, gpu_memory_used, load_model
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.node.parameters import Settings
from elysium_ros.node.publishers import Publishers
from elysium_ros.node.services import MAX_WAITING_CALLS, Services, ServiceTools
from elysium_ros.node.track_action import MAX_GOALS, TrackAction
from elysium_ros.perception.frame_statistics import Statistics
from elysium_ros.perception.mailbox import Mailbox
from elysium_ros.perception.perception import FrameResult, Hooks, StartRequest
from elysium_ros.perception.threads import Runtime
from elysium_ros.perception.worker import INFERENCE_THREAD

# A hint about a camera that stays silent is repeated this often.
_HINT_PERIOD_S = 5.0
# Threads for what does not wait long: lifecycle, parameters, housekeeping, quick services. They are made when needed.
_QUICK_THREADS = 10
_CLOSE_TIMEOUT_S = 3.0

EXIT_RESTART = 75
"""Exit code of a process that cannot go on but can be started again (EX_TEMPFAIL of sysexits.h)."""


class TrackerNode(ManagedNode):
    """Follows what a sentence or a box names in the images of one or more cameras."""

    def __init__(self) -> None:
        super().__init__("elysium")
        self.exit_code = 0
        self._parameter_server = ParameterServer(
            self, lambda: self.state in ("activating", "active"), self.guard.callback(self._on_parameters)
        )
        self._inputs: dict[str, CameraInput] = {}
        self._statistics = Statistics()
        self._narrator = Narrator()
        self._published_ids: list[int] = []
        self._hinted_at_s: dict[str, float] = {}
        self._outputs = Publishers(
            self, self.settings.cameras, lambda: self.settings, self._calibration, self._statistics, self.guard
        )
        self._runtime = Runtime(
            Hooks(message_to_frame, self._on_result, self._on_failure),
            self._outputs.publish_description,
            self._is_shutting_down,
            self.why_inactive,
        )
        self._reporter = StatusReporter(self, self._condition, self._runtime, self.guard)
        tools = ServiceTools(
            self._runtime,
            self.guard,
            self._outputs.publish_description,
            self._reporter.publish_status,
            lambda camera: self._inputs[camera].hint() if camera in self._inputs else "the node is not active",
            lambda camera: self._inputs[camera].state().age_s if camera in self._inputs else float("inf"),
            self._is_shutting_down,
        )
        self._service_api = Services(self, tools)
        self._action_api = TrackAction(self, tools)
        self._start_timers()

    @property
    def settings(self) -> Settings:
        """Present values of the parameters."""
        return self._parameter_server.settings

    def configure(self) -> None:
        """Check the parameters and load the model."""
        self._parameter_server.check()
        self._load()
        self._reporter.publish_status()

    def activate(self) -> None:
        """Warm up and subscribe to the cameras."""
        settings = self.settings
        self._load()
        self._statistics.reset()
        self._narrator = Narrator()
        mailboxes = [Mailbox(camera, settings.buffer_capacity) for camera in settings.cameras]
        self._runtime.describe_period_s = settings.describe_period_s
        self._runtime.open(mailboxes, settings.tracking_config(), settings.model_warmup)
        tools = InputTools(lambda: self.settings, self._statistics, self.events, self.guard, self._runtime.notify)
        try:
            for mailbox in mailboxes:
                self._inputs[mailbox.camera] = CameraInput(self, mailbox, tools)
        except (InvalidQosOverridesError, RuntimeError) as error:
            raise ConfigError(f"the QoS of an image subscription cannot be used: {error}") from error
        topics = ", ".join(camera_input.state().topic for camera_input in self._inputs.values())
        self.get_logger().info(f"active, listening to {topics}")
        # Warming up takes long: what was set meanwhile holds from the first image on.
        config, expression = self.settings.tracking_config(), self.settings.initial_expression
        self._runtime.post(lambda perception: perception.configure(config))
        self._start_initial(expression)
        self._reporter.publish_status()

    def deactivate(self) -> None:
        """Unsubscribe and end all targets; free the model if so configured."""
        inputs, self._inputs = self._inputs, {}
        for camera_input in inputs.values():
            camera_input.close()
        self._runtime.close()
        if self.settings.release_on_deactivate == "free":
            self._runtime.free()
        self._reporter.publish_status()

    def cleanup(self) -> None:
        """Free the model and end the inference thread."""
        self._runtime.free()
        self._runtime.stop()
        self._reporter.publish_status()

    def close(self) -> None:
        """End the threads of the node; wait a little for what they are doing."""
        self._runtime.stop(_CLOSE_TIMEOUT_S)
        self._outputs.close(_CLOSE_TIMEOUT_S)

    def _load(self) -> None:
        choice = ModelChoice.from_settings(self.settings)
        begin_s = time.monotonic()
        if self._runtime.load(lambda: load_model(choice), choice):
            info, took_s = self._runtime.model_info, time.monotonic() - begin_s
            where = f"on {info.device} ({info.backend}, {info.precision})" if info else ""
            self.get_logger().info(f"loaded {choice.path!r} {where} in {took_s:.1f} s")

    def _start_timers(self) -> None:
        # On a steady clock: with simulated time the node must come up before /clock does.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(
            self.settings.diagnostics_period_s,
            self.guard.callback(self._housekeeping),
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=steady,
        )
        if self.settings.autostart:
            self._autostart_timer = self.create_timer(
                0.0, self.guard.callback(self._autostart), callback_group=ReentrantCallbackGroup(), clock=steady
            )

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        self.start_by_itself()

    def _housekeeping(self) -> None:
        self._reporter.publish()
        if self.state != "active":
            return
        for camera_input in list(self._inputs.values()):
            camera_input.poll()
            self._hint_if_silent(camera_input)

    def _hint_if_silent(self, camera_input: CameraInput) -> None:
        state, now_s = camera_input.state(), time.monotonic()
        last_s = self._hinted_at_s.get(state.camera, float("-inf"))
        if state.silence_s < self.settings.frame_timeout_s or now_s - last_s < _HINT_PERIOD_S:
            return
        self._hinted_at_s[state.camera] = now_s
        code = "CAM_TIMEOUT" if state.ever_received else "CAM_NOT_RECEIVED"
        self.get_logger().warning(f"{code}: {camera_input.hint()}")

    def _on_result(self, result: FrameResult) -> None:
        self._outputs.publish(result)
        for line in self._narrator.lines(result):
            self.get_logger().info(line)
        ids = self._runtime.active_ids
        if ids != self._published_ids:
            self._published_ids = ids
            self._reporter.publish_status()

    def _on_failure(self, error: Exception) -> str:
        sentence = self.guard.report(error)
        if isinstance(error, ElysiumError) and error.code == GPU_LOST:
            self.get_logger().fatal(f"{sentence}; the node ends (respawn:=true of the launch file starts it again)")
            self.exit_code = EXIT_RESTART
            rclpy.try_shutdown(context=self.context)
        return sentence

    def _on_parameters(self, settings: Settings, changed: set[str]) -> None:
        self._runtime.describe_period_s = settings.describe_period_s
        if not self._runtime.is_open:
            return
        if any(name.startswith(("tracking.", "generation.")) for name in changed):
            config = settings.tracking_config()
            self._runtime.post(lambda perception: perception.configure(config))
        if "tracking.initial_expression" in changed:
            self._start_initial(settings.initial_expression)

    def _start_initial(self, expression: str) -> None:
        if expression:
            request = StartRequest(self.settings.cameras[0], expression)
            self._runtime.post(lambda perception: perception.start(request))

    def _calibration(self, camera: str) -> CameraInfo | None:
        camera_input = self._inputs.get(camera)
        return None if camera_input is None else camera_input.calibration

    def _is_shutting_down(self) -> bool:
        return not self.context.ok()

    def _condition(self) -> Condition:
        runtime = self._runtime
        simulated = self.get_parameter("use_sim_time").value
        return Condition(
            lifecycle=self.state,
            failure=self.failure,
            parameter_problems=tuple(self._parameter_server.problems.values()),
            inputs=tuple(camera_input.state() for camera_input in list(self._inputs.values())),
            frame_timeout_s=self.settings.frame_timeout_s,
            clock_runs=not simulated or self.get_clock().now().nanoseconds > 0,
            model=runtime.model_info,
            paused=runtime.paused,
            busy_s=runtime.busy_s,
            model_failures=runtime.failures,
            standing_failure=runtime.standing_failure,
            received=runtime.received,
            dropped=runtime.dropped,
            parse_failures=runtime.parse_failures,
            # Not while a model is being loaded: torch may be half imported then.
            gpu_memory=gpu_memory_used() if runtime.model_info else 0,
            active_ids=runtime.active_ids,
            statistics=self._statistics.snapshot(),
            event_counts=self.events.counts(),
        )


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
    if "torch" in sys.modules or any(thread.name == INFERENCE_THREAD for thread in threading.enumerate()):
        # All is closed. Taking torch apart takes seconds, and aborts if a model still runs, or loads, in a thread.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
