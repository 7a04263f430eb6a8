"""``elysium ros``: talks to a running tracker node from the shell, where the ``ros2`` command is missing.

    elysium ros track "the person"
    elysium ros objects --count 5

``elysium ros`` runs ``python -m elysium_ros.client.command``.

Exit code 0: done. 1: the node refused, and says why. 2: bad input. 3: the node did not answer in time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_core.errors import ConfigError, ElysiumError, ExpressionError
from elysium_core.geometry import parse_box
from elysium_core.io.pictures import as_frames
from elysium_core.prompt.expression import clean_expression
from elysium_ros.client.foxglove import foxglove_layout, packaged_layout
from elysium_ros.client.tracker_client import STATES, TRANSITIONS, NoAnswerError, TrackerClient, spinning
from elysium_ros.convert.messages import as_plain, box_to_message, header_at, image_message
from elysium_ros.msg import Box2D, TrackedObject, TrackedObjectArray, TrackerStatus

STATE_NAMES: dict[int, str] = {
    TrackedObject.STATE_TRACKED: "TRACKED",
    TrackedObject.STATE_UNCERTAIN: "UNCERTAIN",
    TrackedObject.STATE_LOST: "LOST",
    TrackedObject.STATE_REMOVED: "REMOVED",
    TrackedObject.STATE_STALE: "STALE",
}
"""Names of the states in ``msg/TrackedObject``."""

REFUSED, BAD_INPUT, NO_ANSWER = 1, 2, 3


@dataclass(frozen=True, slots=True)
class _Reply:
    """One answer: whether it is a yes, one sentence for a person, everything for a program."""

    success: bool
    sentence: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Session:
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


def _reply(response: Any, sentence: str) -> _Reply:
    """Turn any response with ``success`` and ``message`` into a reply; ``sentence`` is what a yes means."""
    return _Reply(response.success, sentence if response.success else response.message, as_plain(response))


def _track(session: _Session) -> _Reply:
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


def _stop(session: _Session) -> _Reply:
    response = session.client.stop(session.args.id, session.args.camera)
    return _reply(response, "stopped " + (", ".join(str(number) for number in response.stopped_ids) or "nothing"))


def _describe(session: _Session) -> _Reply:
    args = session.args
    question = clean_expression(args.question) if args.question else ""
    response = session.client.describe(args.id, session.box(), question=question, camera=args.camera)
    return _reply(response, response.description.text)


def _ground(session: _Session) -> _Reply:
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


def _pause(session: _Session) -> _Reply:
    return _reply(session.client.pause(True), "paused")


def _resume(session: _Session) -> _Reply:
    return _reply(session.client.pause(False), "running")


def _reset(session: _Session) -> _Reply:
    return _reply(session.client.reset(), "reset")


def _status(session: _Session) -> _Reply:
    status = next(session.messages(TrackerStatus, "status", latched=True))
    data = as_plain(status)
    return _Reply(True, "\n".join(f"{key}: {value}" for key, value in data.items() if key != "header"), data)


def _lifecycle(session: _Session) -> _Reply:
    wanted, client = session.args.transition, session.client
    success = client.change_state(wanted) if wanted else True
    if success and session.args.until:
        client.wait_for_state(session.args.until, session.args.timeout)
    state = client.lifecycle_state()
    sentence = state if success else f"{wanted} failed, the node is {state}; its log says why"
    return _Reply(success, sentence, {"success": success, "state": state})


def _objects(session: _Session) -> _Reply:
    """Print messages as JSON lines, until ``--count`` or Ctrl-C."""
    for seen, message in enumerate(session.messages(TrackedObjectArray, session.camera_topic("objects")), start=1):
        data = as_plain(message)
        for item in data["objects"]:
            item["state"] = STATE_NAMES.get(item["state"], item["state"])
        print(json.dumps(data), flush=True)
        if seen == session.args.count:
            break
    return _Reply(True, "", {})


def _layout(session: _Session) -> _Reply:
    layout = foxglove_layout(packaged_layout(), session.client.tracker, session.args.camera)
    return _Reply(True, layout.rstrip(), json.loads(layout))


_VERBS: dict[str, tuple[Callable[[_Session], _Reply], str]] = {
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


def _target_id(text: str) -> int:
    # The field has 32 bits and would silently keep the lower ones of a larger number.
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a target, a whole number; `objects` shows them")
    return int(text)


def _positive_s(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in seconds above 0")
    return value


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that may stand before or behind the verb: without a value of their own they leave the other's."""
    unset = argparse.SUPPRESS
    parser.add_argument("--node", default=unset, help="name of the node, with its namespace (default: elysium)")
    parser.add_argument("--timeout", type=_positive_s, default=unset, help="longest wait [s] (default: 10)")
    parser.add_argument("--json", action="store_true", default=unset, help="print the whole answer as one JSON object")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elysium ros", description="Talk to a running tracker node.")
    parser.set_defaults(node="elysium", timeout=10.0, json=False)
    _add_common(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    sub = {name: verbs.add_parser(name, help=text, description=text) for name, (_, text) in _VERBS.items()}
    for verb in sub.values():
        _add_common(verb)
    for name in ("track", "stop", "describe", "ground"):
        sub[name].add_argument("--camera", default="", help="which camera; the only or first one if omitted")
    for name in ("objects", "layout"):
        sub[name].add_argument("--camera", default="", help="which camera, if the node's have names")
    for name in ("track", "describe"):
        sub[name].add_argument(
            "--box", help="X1,Y1,X2,Y2: fractions 0..1 of the image, or pixels; where cameras have names, with --camera"
        )
    sub["track"].add_argument("expression", nargs="?", default="", help="what to look for, such as 'the person'")
    sub["track"].add_argument("--all", dest="all_of", metavar="NAMES", help="every object of them: 'person, dog'")
    sub["track"].add_argument("--add", action="store_true", help="keep following the camera's other targets")
    sub["track"].add_argument(
        "--wait", type=float, default=5.0, help="wait for the first box [s] (default: %(default)s)"
    )
    sub["stop"].add_argument("id", nargs="?", type=_target_id, default=0, help="the target; all if omitted")
    sub["describe"].add_argument(
        "id", nargs="?", type=_target_id, default=0, help="the target; else --box, else the scene"
    )
    sub["describe"].add_argument("--question", default="", help="what to ask; describe it if omitted")
    sub["ground"].add_argument("expression", help="what to look for")
    sub["ground"].add_argument("--image", help="a picture file; the camera's newest frame if omitted")
    sub["objects"].add_argument("--count", type=int, default=0, help="stop after this many frames; 0 = never")
    sub["lifecycle"].add_argument(
        "transition", nargs="?", choices=sorted(TRANSITIONS), help="show the state if omitted"
    )
    sub["lifecycle"].add_argument(
        "--until", choices=STATES, help="then wait for this state, at most for --timeout (a script's first line)"
    )
    return parser


def _run(args: argparse.Namespace) -> int:
    verb, _ = _VERBS[args.verb]
    with spinning("elysium_client") as node:
        reply = verb(_Session(node, TrackerClient(node, args.node, args.timeout), args))
    if args.json and reply.data:
        print(json.dumps(reply.data))
    elif reply.sentence:
        print(reply.sentence, file=sys.stdout if reply.success else sys.stderr)
    return 0 if reply.success else REFUSED


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process if omitted.

    Returns:
        The exit code; the module's text says what each means.
    """
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except NoAnswerError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_ANSWER
    except ElysiumError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # The reader has gone (... | head); the interpreter must not complain when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
