"""What each verb of ``elysium ros`` does: it calls the node, and its reply is a sentence and data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_core.errors import ConfigError, ExpressionError
from elysium_core.geometry import parse_box
from elysium_core.io.pictures import as_frames
from elysium_core.prompt.expression import clean_expression
from elysium_ros.client.foxglove import foxglove_layout, packaged_layout
from elysium_ros.client.tracker_client import NoAnswerError, TrackerClient
from elysium_ros.convert.messages import STATE_NAMES, as_plain, box_to_message, header_at, image_message
from elysium_ros.msg import Box2D, TrackedObjectArray, TrackerStatus


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: whether it is a yes, one sentence for a person, everything for a program."""

    success: bool
    sentence: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    """What every verb works with."""

    node: Node
    client: TrackerClient
    args: argparse.Namespace

    def messages(self, message_type: Any, topic: str, *, latched: bool = False) -> Iterator[Any]:
        """Yield messages of one of the tracker's topics.

        Raises:
            NoAnswerError: None came for as long as ``--timeout``.
        """
        queue: SimpleQueue[Any] = SimpleQueue()
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        name = f"{self.client.tracker}/{topic}"
        self.node.create_subscription(message_type, name, queue.put, QoSProfile(depth=10, durability=durability))
        while True:
            try:
                yield queue.get(timeout=self.args.timeout)
            except Empty:
                waited = f"nothing came on {name} within {self.args.timeout:g} s"
                remedy = "is the node active, does its camera send, and if it has names, is --camera one of them?"
                raise NoAnswerError(f"{waited}; {remedy}") from None

    def camera_topic(self, name: str) -> str:
        """Return a topic of the camera that was asked for; the node with one unnamed camera has no more."""
        return f"{self.args.camera}/{name}" if self.args.camera else name

    def box(self) -> Box2D | None:
        """Return ``--box`` in pixels of the camera's image, None if it was not given."""
        if self.args.box is None:
            return None
        # The message is in pixels, but a person may type fractions: only the node knows the camera's size.
        size = next(self.messages(TrackedObjectArray, self.camera_topic("objects")))
        width, height = size.image_width, size.image_height
        return box_to_message(parse_box(self.args.box, width, height), width, height)


def show_object(tracked: Any) -> str:
    """Return one line about a ``TrackedObject``."""
    box = tracked.box
    where = f"[{box.x_min:.0f}, {box.y_min:.0f}, {box.x_max:.0f}, {box.y_max:.0f}] px"
    name = f" {tracked.expression!r}" if tracked.expression else ""
    state = STATE_NAMES.get(tracked.state, tracked.state)
    return f"target {tracked.id}{name}: {state} at {where}, score {tracked.score:.2f}"


def _reply(response: Any, sentence: str) -> Reply:
    """Turn any response with ``success`` and ``message`` into a reply; ``sentence`` is what a yes means."""
    return Reply(response.success, sentence if response.success else response.message, as_plain(response))


def _track(session: Session) -> Reply:
    args = session.args
    if args.all_of and (args.expression or args.box is not None):
        raise ConfigError("--all does not go with words or --box; call twice, the second time with --add")
    if args.all_of:
        names = f"{{{clean_expression(args.all_of)}}}"
        response = session.client.track(names, None, camera=args.camera, add=args.add, wait_s=args.wait)
        return _reply(response, response.message)
    if not args.expression and args.box is None:
        raise ExpressionError(
            "say what to track: words such as 'the person', --box X1,Y1,X2,Y2, both, or --all 'person, dog'",
            code="EXPR_EMPTY",
        )
    # Refused here rather than by the node: half a surrogate or a NUL would not survive the way there.
    expression = clean_expression(args.expression) if args.expression else ""
    response = session.client.track(expression, session.box(), camera=args.camera, add=args.add, wait_s=args.wait)
    return _reply(response, show_object(response.object) if args.wait > 0 else response.message)


def _stop(session: Session) -> Reply:
    response = session.client.stop(session.args.id, session.args.camera)
    return _reply(response, "stopped " + (", ".join(str(number) for number in response.stopped_ids) or "nothing"))


def _describe(session: Session) -> Reply:
    args = session.args
    question = clean_expression(args.question) if args.question else ""
    response = session.client.describe(args.id, session.box(), question=question, camera=args.camera)
    return _reply(response, response.description.text)


def _ground(session: Session) -> Reply:
    args = session.args
    image = None
    if args.image:
        image = image_message(as_frames(args.image)[0].image, header_at(0, "file"))
    response = session.client.ground(clean_expression(args.expression), image, camera=args.camera)
    found = zip(response.boxes, response.scores, strict=True)
    lines = [
        f"[{b.x_min:.0f}, {b.y_min:.0f}, {b.x_max:.0f}, {b.y_max:.0f}] px, score {score:.2f}" for b, score in found
    ]
    return _reply(response, "; ".join(lines))


def _pause(session: Session) -> Reply:
    return _reply(session.client.pause(True), "paused")


def _resume(session: Session) -> Reply:
    return _reply(session.client.pause(False), "running")


def _reset(session: Session) -> Reply:
    return _reply(session.client.reset(), "reset")


def _status(session: Session) -> Reply:
    status = next(session.messages(TrackerStatus, "status", latched=True))
    data = as_plain(status)
    return Reply(True, "\n".join(f"{key}: {value}" for key, value in data.items() if key != "header"), data)


def _lifecycle(session: Session) -> Reply:
    wanted, client = session.args.transition, session.client
    success = client.change_state(wanted) if wanted else True
    if success and session.args.until:
        client.wait_for_state(session.args.until, session.args.timeout)
    state = client.lifecycle_state()
    sentence = state if success else f"{wanted} failed, the node is {state}; its log says why"
    return Reply(success, sentence, {"success": success, "state": state})


def _objects(session: Session) -> Reply:
    """Print messages as JSON lines, until ``--count`` or Ctrl-C."""
    for seen, message in enumerate(session.messages(TrackedObjectArray, session.camera_topic("objects")), start=1):
        data = as_plain(message)
        for item in data["objects"]:
            item["state"] = STATE_NAMES.get(item["state"], item["state"])
        print(json.dumps(data), flush=True)
        if seen == session.args.count:
            break
    return Reply(True, "", {})


def _layout(session: Session) -> Reply:
    layout = foxglove_layout(packaged_layout(), session.client.tracker, session.args.camera)
    return Reply(True, layout.rstrip(), json.loads(layout))


VERBS: dict[str, tuple[Callable[[Session], Reply], str]] = {
    "track": (_track, "follow an object named by words, marked by a box, or both"),
    "stop": (_stop, "stop following one target, or all"),
    "describe": (_describe, "ask for a text about a target, a box or the scene"),
    "ground": (_ground, "find words in one image"),
    "pause": (_pause, "stop inference, keep model and targets"),
    "resume": (_resume, "go on after a pause"),
    "reset": (_reset, "drop all targets and frames"),
    "status": (_status, "show what the node is doing"),
    "objects": (_objects, "print the tracked objects of each frame as JSON lines"),
    "layout": (_layout, "print a layout for Foxglove, with the topics and services of the node"),
    "lifecycle": (_lifecycle, "show the lifecycle state, or change it"),
}
