"""What to type, for a user whose node runs and follows nothing."""

from __future__ import annotations

import shlex
import time
from typing import Final

from elysium_core.errors import ElysiumError
from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.perception.inference import Inference

# Long enough for somebody who starts a target from a script or a launch file.
_PATIENCE_S: Final = 5.0
# Something that each of the models in the package knows; others take any words.
_EXAMPLES: Final = ("the person", "the hat")


class IdleHint:
    """Says once after each activation that images come and nothing is followed, with the line to type.

    Args:
        node: The node.
        inference: Its model.
        cameras: Its cameras.
    """

    def __init__(self, node: ManagedNode, inference: Inference, cameras: CameraInputs) -> None:
        self._node = node
        self._inference = inference
        self._cameras = cameras
        self._due_s: float | None = None

    def begin(self) -> None:
        """The node has become active."""
        self._due_s = time.monotonic() + _PATIENCE_S

    def look(self) -> None:
        """Give the hint if it is due; called again and again while the node is active."""
        if self._due_s is None:
            return
        state = self._inference.state()
        if state.active_ids:
            self._due_s = None
        elif time.monotonic() >= self._due_s and not state.paused:
            answered = [each.camera for each in self._cameras.states() if each.health.answered]
            if answered:
                self._due_s = None
                self._node.get_logger().info(f"nothing is followed yet: call {self._line(answered[0])}")

    def _line(self, camera: str) -> str:
        name, where = self._node.get_fully_qualified_name(), f", camera: '{camera}'" if camera else ""
        words = self._known_words()
        other = ["elysium", "ros", "track", words, *(["--camera", camera] if camera else ())]
        other += [] if name == "/elysium" else ["--node", name]
        request = f"{{expression: '{words}'{where}}}"
        return f'ros2 service call {name}/track elysium_ros/srv/Track "{request}" (or: {shlex.join(other)})'

    def _known_words(self) -> str:
        for words in _EXAMPLES:
            try:
                self._inference.check_words(words)
            except ElysiumError:
                continue
            return words
        return _EXAMPLES[0]
