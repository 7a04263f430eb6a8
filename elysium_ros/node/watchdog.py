"""Watches the model and the cameras: reports at once what has stopped working, and gives up what hangs.

It has its own thread and a steady clock: neither callbacks that wait, nor the model, nor ``/clock`` can hold it up.
"""

from __future__ import annotations

import threading

from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.node.publishers import Publishers
from elysium_ros.node.status_reporter import StatusReporter
from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.perception.inference import Inference

WATCHDOG_THREAD = "elysium_watchdog"
"""Name of the thread."""

_PERIOD_S = 0.1


class Watchdog:
    """Looks at the node ten times a second and reports each change for the worse or the better.

    Args:
        node: The node.
        parameters: Its parameters.
        inference: Its model.
        cameras: Its cameras.
        outputs: Publish that results have stopped.
        status: Where a change is published.
    """

    def __init__(
        self,
        node: ManagedNode,
        parameters: ParameterServer,
        inference: Inference,
        cameras: CameraInputs,
        outputs: Publishers,
        status: StatusReporter,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._inference = inference
        self._cameras = cameras
        self._outputs = outputs
        self._status = status
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # For each camera the number of the result after which silence was told.
        self._told: dict[str, int] = {}
        self._verdicts: dict[str, tuple[bool, bool]] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=WATCHDOG_THREAD, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the thread.

        Args:
            timeout_s: Longest wait [s].
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def look(self) -> None:
        """Look once at the model and at the cameras."""
        fault = self._inference.check()
        if fault is not None:
            self._node.events.report(fault.reason.code, str(fault.reason), error=True, detail=fault.detail)
        limit_s = self._parameters.settings.frame_timeout_s
        inputs = {state.camera: state.health for state in self._cameras.states()}
        for camera, health in inputs.items():
            if self._is_newly_stale(camera, health, limit_s):
                self._outputs.publish_stale(camera)
        verdicts = {camera: _verdict(health, limit_s) for camera, health in inputs.items()}
        # A camera that has just come, or gone with the activation, is no news.
        changed = any(self._verdicts.get(camera, verdict) != verdict for camera, verdict in verdicts.items())
        self._verdicts = verdicts
        if changed or fault is not None:
            self._status.publish()

    def _is_newly_stale(self, camera: str, health: CameraHealth, limit_s: float) -> bool:
        if not health.answered or health.result_age_s <= limit_s or self._told.get(camera) == health.answered:
            return False
        self._told[camera] = health.answered
        return True

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - such as a publisher that is being destroyed
                self._node.guard.report(error)


def _verdict(health: CameraHealth, limit_s: float) -> tuple[bool, bool]:
    """Return whether images are missing, and whether results are."""
    return health.silence_s > limit_s, health.waiting_s > limit_s
