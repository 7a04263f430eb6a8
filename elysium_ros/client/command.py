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
from collections.abc import Sequence

from elysium_core.errors import ElysiumError
from elysium_ros.client.tracker_client import STATES, TRANSITIONS, NoAnswerError, TrackerClient, spinning
from elysium_ros.client.verbs import VERBS, Session

REFUSED, BAD_INPUT, NO_ANSWER = 1, 2, 3


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
    sub = {name: verbs.add_parser(name, help=text, description=text) for name, (_, text) in VERBS.items()}
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
    verb, _ = VERBS[args.verb]
    with spinning("elysium_client") as node:
        reply = verb(Session(node, TrackerClient(node, args.node, args.timeout), args))
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
