"""A node that runs and follows nothing says once what to type."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import pytest
import yaml

from elysium_core.errors import ExpressionError
from elysium_ros.client.command import _parser
from elysium_ros.node import idle_hint
from elysium_ros.node.camera_hints import InputState
from elysium_ros.node.idle_hint import IdleHint
from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.srv import Track


class Node:
    """A node whose state is as the test says; notes what it is told."""

    def __init__(self, monkeypatch, name="/elysium", camera="", known=("the person",)):
        self.now_s, self.ids, self.paused, self.answered, self.said = 0.0, (), False, 3, []
        monkeypatch.setattr(idle_hint.time, "monotonic", lambda: self.now_s)
        self.hint = IdleHint(
            SimpleNamespace(
                get_fully_qualified_name=lambda: name, get_logger=lambda: SimpleNamespace(info=self.said.append)
            ),
            SimpleNamespace(
                state=lambda: SimpleNamespace(active_ids=self.ids, paused=self.paused), check_words=self.check
            ),
            SimpleNamespace(states=lambda: [InputState(camera, "/image", 1, CameraHealth(answered=self.answered))]),
        )
        self.known = known
        self.hint.begin()

    def check(self, words):
        if words not in self.known:
            raise ExpressionError(words)

    def look(self, now_s):
        self.said.clear()
        self.now_s = now_s
        self.hint.look()
        return list(self.said)


def test_it_is_said_once_after_each_activation(monkeypatch):
    node = Node(monkeypatch)
    assert node.look(1.0) == []
    (said,) = node.look(6.0)
    assert said.startswith("nothing is followed yet: call ros2 service call /elysium/track ")
    assert node.look(60.0) == []
    node.hint.begin()
    assert node.look(62.0) == []
    assert len(node.look(70.0)) == 1


@pytest.mark.parametrize("why", ["followed", "paused", "no image"])
def test_it_is_not_said_where_something_else_is_the_matter(monkeypatch, why):
    node = Node(monkeypatch)
    node.ids, node.paused, node.answered = (1,) * (why == "followed"), why == "paused", 3 * (why != "no image")
    assert node.look(6.0) == []
    node.ids, node.paused, node.answered = (), False, 3
    assert len(node.look(7.0)) == (why != "followed")


@pytest.mark.parametrize(("name", "camera"), [("/elysium", ""), ("/robot_1/eyes", ""), ("/elysium", "front")])
@pytest.mark.parametrize("known", [("the person",), ("the hat",), ()])
def test_both_lines_can_be_typed_as_they_are(monkeypatch, name, camera, known):
    (said,) = Node(monkeypatch, name, camera, known).look(6.0)
    line, other = re.fullmatch(r"nothing is followed yet: call (.+) \(or: (.+)\)", said).groups()
    command = shlex.split(line)
    assert command[:5] == ["ros2", "service", "call", f"{name}/track", "elysium_ros/srv/Track"]
    request = Track.Request(**yaml.safe_load(command[5]))
    assert (request.expression, request.camera) == (known[0] if known else "the person", camera)
    given = _parser().parse_args(shlex.split(other)[2:])
    assert (given.expression, given.camera or "") == (request.expression, camera)
