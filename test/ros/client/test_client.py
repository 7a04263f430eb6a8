"""The shell client, against a scripted node that has the tracker's services."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool, Trigger

from elysium_core.io.image import write_image
from elysium_ros.client.command import BAD_INPUT, NO_ANSWER, REFUSED, main
from elysium_ros.client.tracker_client import spinning
from elysium_ros.convert.messages import as_plain
from elysium_ros.msg import Box2D, TrackedObject, TrackedObjectArray, TrackerStatus
from elysium_ros.srv import Describe, Ground, StopTracking, Track

BOX = Box2D(x_min=10.0, y_min=20.0, x_max=30.0, y_max=40.0)


class ScriptedTracker:
    """Answers every service in a known way and keeps the requests."""

    def __init__(self, node: Node) -> None:
        self.requests: list[object] = []
        self.success = True
        self.state = "inactive"
        for kind, name, answer in [
            (Track, "track", self.track),
            (StopTracking, "stop", self.stop),
            (Describe, "describe", self.describe),
            (Ground, "ground", self.ground),
            (SetBool, "pause", self.yes),
            (Trigger, "reset", self.yes),
            (GetState, "get_state", self.get_state),
            (ChangeState, "change_state", self.change_state),
        ]:
            node.create_service(kind, f"/scripted/{name}", self.kept(answer))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_publisher(TrackerStatus, "/scripted/status", latched).publish(TrackerStatus(model="identity"))
        self.objects = [
            node.create_publisher(TrackedObjectArray, f"/scripted/{topic}", 10) for topic in ("objects", "rear/objects")
        ]
        node.create_timer(0.02, self.publish)

    def kept(self, answer):
        def respond(request, response):
            self.requests.append(request)
            return answer(request, response)

        return respond

    def publish(self) -> None:
        message = TrackedObjectArray(image_width=200, image_height=100)
        message.objects = [TrackedObject(id=7, state=TrackedObject.STATE_LOST, box=BOX)]
        for publisher in self.objects:
            publisher.publish(message)
            message.camera = "rear"

    def yes(self, request, response):
        response.success = self.success
        response.message = "" if self.success else "NOT_ACTIVE: the node is inactive"
        return response

    def track(self, request, response):
        response.id = 7 if self.success else 0
        response.object = TrackedObject(id=7, expression=request.expression, box=BOX, score=0.5)
        return self.yes(request, response)

    def stop(self, request, response):
        response.stopped_ids = [1, 2]
        return self.yes(request, response)

    def describe(self, request, response):
        response.description.text = "a mug on a table"
        return self.yes(request, response)

    def ground(self, request, response):
        response.boxes, response.scores = [BOX], [0.25]
        return self.yes(request, response)

    def get_state(self, request, response):
        response.current_state = State(id=2, label=self.state)
        return response

    def change_state(self, request, response):
        response.success = self.success
        self.state = "active" if self.success else self.state
        return response


@pytest.fixture
def tracker() -> Iterator[ScriptedTracker]:
    with spinning("scripted_tracker") as node:
        yield ScriptedTracker(node)


def run(*arguments: str) -> int:
    return main(["--node", "scripted", "--timeout", "60", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["track", "the red mug"], "target 7 'the red mug': TRACKED at [10, 20, 30, 40] px, score 0.50\n"),
        (["stop"], "stopped 1, 2\n"),
        (["describe", "7"], "a mug on a table\n"),
        (["ground", "the mug"], "[10, 20, 30, 40] px, score 0.25\n"),
        (["pause"], "paused\n"),
        (["resume"], "running\n"),
        (["reset"], "reset\n"),
        (["lifecycle"], "inactive\n"),
        (["lifecycle", "activate"], "active\n"),
        (["lifecycle", "activate", "--until", "active"], "active\n"),
        (["lifecycle", "--until", "inactive"], "inactive\n"),
    ],
)
def test_each_verb_says_what_the_node_answered(
    tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(*arguments) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("arguments", [["track", "the mug"], ["stop"], ["describe"], ["ground", "it"], ["pause"]])
def test_a_refusal_is_told_with_its_reason(
    tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    tracker.success = False
    assert run(*arguments) == REFUSED
    assert "NOT_ACTIVE: the node is inactive" in capsys.readouterr().err


def test_a_transition_that_fails_is_told(tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]) -> None:
    tracker.success = False
    assert run("lifecycle", "configure") == REFUSED
    assert "configure failed, the node is inactive" in capsys.readouterr().err


def test_json_is_the_whole_answer(tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "track", "the mug") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["success"], answer["id"], answer["object"]["box"]["x_max"]) == (True, 7, 30.0)


def test_the_objects_of_one_of_several_cameras(tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("objects", "--count", "1", "--camera", "rear") == 0
    assert json.loads(capsys.readouterr().out)["camera"] == "rear"
    assert run("track", "--box", "0.1,0.1,0.5,0.5", "--camera", "rear") == 0
    [request] = [r for r in tracker.requests if isinstance(r, Track.Request) and r.wait_timeout >= 0]
    assert (request.camera, request.box) == ("rear", Box2D(x_min=20.0, y_min=10.0, x_max=100.0, y_max=50.0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["describe", "abc"], "'abc' is not the id of a target"),
        (["--timeout", "-1", "status"], "'-1' is not a time in seconds above 0"),
    ],
)
def test_a_bad_argument_is_named(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == BAD_INPUT
    assert said in capsys.readouterr().err


def test_nothing_to_track_is_refused_before_anyone_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--node", "nobody", "track"]) == BAD_INPUT
    assert "say what to track" in capsys.readouterr().err


def test_waiting_for_a_state_ends(tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--node", "scripted", "--timeout", "2", "lifecycle", "--until", "active"]) == NO_ANSWER
    assert "/scripted was not active within 2 s, it is inactive" in capsys.readouterr().err


def test_objects_are_json_lines_with_names_of_states(
    tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("objects", "--count", "2") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["objects"][0]["state"] for line in lines] == ["LOST", "LOST"]


def test_a_late_listener_gets_the_status(tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 0
    assert "model: identity\n" in capsys.readouterr().out


@pytest.mark.parametrize("box", ["0.1,0.2,0.3,0.4", "20,20,60,40", "20px,20px,60px,40px"])
def test_a_box_is_sent_in_pixels_of_the_camera(tracker: ScriptedTracker, box: str) -> None:
    assert run("track", "--box", box, "--add", "--wait", "0") == 0
    sent = tracker.requests[-1]
    assert [sent.box.x_min, sent.box.y_min, sent.box.x_max, sent.box.y_max] == pytest.approx([20, 20, 60, 40])
    assert sent.add


def test_a_picture_is_sent_to_be_searched(tracker: ScriptedTracker, tmp_path: Path) -> None:
    write_image(tmp_path / "mug.png", np.full((4, 6, 3), 9, np.uint8))
    assert run("ground", "the mug", "--image", str(tmp_path / "mug.png")) == 0
    sent = tracker.requests[-1].image
    assert (sent.width, sent.height, sent.encoding, set(sent.data)) == (6, 4, "rgb8", {9})


@pytest.mark.parametrize(
    "arguments",
    [
        ["track", "<image>"],
        ["track", "bad \udcff text"],
        ["track", "--box", "5,5,1,1"],
        ["track", "--box", "1,2"],
        ["ground", " "],
        ["ground", "it", "--image", "no/such.png"],
    ],
)
def test_bad_input_is_one_sentence(
    tracker: ScriptedTracker, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(*arguments) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
    assert tracker.requests == []


@pytest.mark.parametrize("arguments", [["nonsense"], ["stop", str(2**32 + 7)], ["lifecycle", "explode"], []])
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)


@pytest.mark.parametrize("arguments", [["stop"], ["status"], ["objects"]])
def test_a_node_that_is_not_there_is_waited_for_and_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["--node", "nobody", "--timeout", "0.2", *arguments]) == NO_ANSWER
    assert "/nobody/" in capsys.readouterr().err


def elysium_ros_process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "elysium_core.cli", "ros", "--node", "scripted", "--timeout", "60", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_elysium_command_hands_over_to_the_client(tracker: ScriptedTracker) -> None:
    with elysium_ros_process("track", "the red mug", "--wait", "0", "--json") as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["object"]["expression"] == "the red mug"
    tracker.success = False
    with elysium_ros_process("stop") as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (REFUSED, "", "NOT_ACTIVE: the node is inactive\n")


def test_a_reader_that_goes_away_ends_the_listing_without_complaint(tracker: ScriptedTracker) -> None:
    with elysium_ros_process("objects") as process:
        assert json.loads(process.stdout.readline())["image_width"] == 200
        process.stdout.close()
        complaint = process.stderr.read()
        assert (process.wait(timeout=100), complaint) == (0, "")


def test_messages_become_plain_data() -> None:
    message = TrackerStatus(model="m", active_ids=[3, 1], latency_p50=float("nan"))
    plain = as_plain(message)
    assert (plain["model"], plain["active_ids"], plain["latency_p50"]) == ("m", [3, 1], None)
    assert as_plain(Ground.Request(expression="x"))["image"]["data"] == []


def test_bulk_data_is_shown_by_its_length() -> None:
    request = Ground.Request()
    request.image.data = bytes(1000)
    assert as_plain(request)["image"]["data"] == "<1000 items>"
