"""Starts the processes, asks for the targets by real service calls while the video plays, and stops everything."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from std_srvs.srv import SetBool

from elysium_core.errors import ElysiumError
from elysium_core.geometry import Box
from elysium_core.io.frame_writer import FrameWriter
from elysium_ros.client.node_process import NodeProcess, NodeProcessError, claim_domain, private_environment
from elysium_ros.client.tracker_client import TrackerClient, spinning
from elysium_ros.convert.messages import box_to_message, ns_to_stamp
from elysium_ros.demo.recorder import FrameNumbers, Recorder

TRACKER = "/elysium"

# Long enough for a busy machine, on which a process takes a minute to start. They cost nothing elsewhere: a node that
# has died is noticed at once, and playing ends by itself.
_ANSWER_S, _LOAD_S, _FIRST_BOX_S, _LAST_ANSWER_S = 180.0, 900.0, 30.0, 60.0
_POLL_S = 0.02


class DemoError(ElysiumError):
    """The demo could not be played to its end."""

    code = "DEMO"


@dataclass(frozen=True, slots=True)
class Wish:
    """One target to ask for.

    Attributes:
        expression: Words, may be empty if there is a box.
        box: Box in the first frame of the video, None to find it by the words.
        at_frame: Ask when the camera has sent this many frames; the first wish is asked before.
    """

    expression: str
    box: Box | None
    at_frame: int


@dataclass(frozen=True, slots=True)
class Play:
    """What is played.

    Attributes:
        video: The file.
        width: Frame width [px].
        height: Frame height [px].
        fps: Frames a second as recorded.
        wishes: The targets, in the order they are asked for.
        model: Model of the tracker node.
        device: Device of the tracker node.
        rate_hz: Frames a second, 0 = as recorded.
    """

    video: Path
    width: int
    height: int
    fps: float
    wishes: Sequence[Wish]
    model: str = "real"
    device: str = "auto"
    rate_hz: float = 0.0

    @property
    def sent_hz(self) -> float:
        """Frames a second as sent."""
        return self.rate_hz or self.fps

    @property
    def held_frames(self) -> int:
        """Frames after which the camera waits: a box is drawn on the first frame, words need no picture."""
        return int(self.wishes[0].box is not None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was heard.

    Attributes:
        recorder: Everything that was sent and answered.
        target_ids: Id of each wish, in order.
    """

    recorder: Recorder
    target_ids: Sequence[str]


def perform(play: Play, writers: Sequence[FrameWriter], log_folder: Path) -> Outcome:
    """Run a play from beginning to end.

    Args:
        play: What to play.
        writers: Where annotated pictures go.
        log_folder: Where the output of both nodes is kept.

    Raises:
        ElysiumError: A node could not start, died or did not stop cleanly, or a target was refused.
    """
    with ExitStack() as stack:
        domain = stack.enter_context(claim_domain())
        say(f"two nodes start in ROS domain {domain}")
        node = stack.enter_context(spinning("elysium_demo", domain))
        recorder = Recorder(node, TRACKER, FrameNumbers(play.sent_hz, play.held_frames), writers)
        stack.callback(recorder.close)
        tracker = stack.enter_context(
            NodeProcess("elysium_ros.node.tracker_node", _tracker_parameters(play), private_environment(domain))
        )
        camera = stack.enter_context(
            NodeProcess("elysium_ros.video.video_node", _camera_parameters(play), private_environment(domain))
        )
        stack.callback(_keep_logs, log_folder, [tracker, camera])
        client = TrackerClient(node, TRACKER, _ANSWER_S, tracker.check_alive)
        player = TrackerClient(node, "/video", _ANSWER_S, camera.check_alive)
        stage = Stage(client, player, recorder, tracker, camera)
        stage.activate()
        target_ids = stage.play(play)
        stage.stop()
        return Outcome(recorder, target_ids)


def say(sentence: str) -> None:
    """Write one line of progress to stderr."""
    sys.stderr.write(f"demo: {sentence}\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Stage:
    """Both processes, and the ways to talk to them."""

    client: TrackerClient
    player: TrackerClient
    recorder: Recorder
    tracker: NodeProcess
    camera: NodeProcess

    def activate(self) -> None:
        """Take the tracker through its lifecycle; loading the model is the long part."""
        for transition in ("configure", "activate"):
            if not self.client.change_state(transition, _LOAD_S):
                raise DemoError(f"the tracker node failed to {transition}: {self.tracker.last_line()}")
        say(f"{TRACKER} is {self.client.lifecycle_state()}")

    def play(self, play: Play) -> list[str]:
        """Play the video and ask for the targets; return their ids."""
        first, *others = play.wishes
        if play.held_frames:
            self._let_play()
            self._wait_for_frame(play.held_frames)
            # The tracker may get the images later than this process hears of them.
            self._wait(lambda: self.recorder.answered > 0, _LAST_ANSWER_S)
        target_ids = [self._ask(first, play, wait_s=0.0, add=False)]
        self._let_play()
        for wish in others:
            self._wait_for_frame(wish.at_frame)
            target_ids.append(self._ask(wish, play, wait_s=_FIRST_BOX_S, add=True))
        self._wait(lambda: not self.camera.is_alive)
        _check_end(self.camera.wait(1.0), self.camera)
        self._wait(lambda: self.recorder.is_complete, _LAST_ANSWER_S)
        return target_ids

    def stop(self) -> None:
        """End the tracker, and make sure that it ended as it should."""
        self.tracker.check_alive()
        _check_end(self.tracker.stop(), self.tracker)
        self.recorder.close()
        if self.recorder.problem is not None:
            raise self.recorder.problem

    def _let_play(self) -> None:
        self.player.call(SetBool, "play", SetBool.Request(data=True))

    def _ask(self, wish: Wish, play: Play, *, wait_s: float, add: bool) -> str:
        box = None if wish.box is None else box_to_message(wish.box, play.width, play.height)
        stamp = None if wish.box is None else ns_to_stamp(self.recorder.first_stamp_ns or 0)
        response = self.client.track(wish.expression, box, box_stamp=stamp, add=add, wait_s=wait_s)
        name = repr(wish.expression) if wish.expression else "a box"
        if not response.id:
            raise DemoError(f"the tracker node refused {name}: {response.message}")
        say(f"{TRACKER}/track at frame {self.recorder.sent}: {response.message or f'{name} is target {response.id}'}")
        return str(response.id)

    def _wait(self, condition: Callable[[], bool], timeout_s: float = float("inf")) -> None:
        """Poll until ``condition`` holds or time is up, while the tracker lives."""
        deadline_s = time.monotonic() + timeout_s
        while not condition() and time.monotonic() < deadline_s:
            self.tracker.check_alive()
            time.sleep(_POLL_S)

    def _wait_for_frame(self, count: int) -> None:
        self._wait(lambda: self.recorder.sent >= count or not self.camera.is_alive)


def _check_end(exit_code: int, process: NodeProcess) -> None:
    if exit_code != 0 or "Traceback" in process.output():
        raise NodeProcessError(f"{process.name} ended with exit code {exit_code}: {process.last_line()}")


def _tracker_parameters(play: Play) -> dict[str, object]:
    return {
        "autostart": False,
        "model.path": play.model,
        "model.device": play.device,
        # Large images get lost between two processes of one machine with best effort, which is for live cameras.
        "qos_overrides./image.subscription.reliability": "reliable",
    }


def _camera_parameters(play: Play) -> dict[str, object]:
    return {
        "source": str(play.video),
        "rate": play.rate_hz,
        "stamps": "video",
        "start_paused": True,
        "pause_after": play.held_frames,
        "wait_for_subscribers": 1,
        "exit_at_end": True,
    }


def _keep_logs(folder: Path, processes: Sequence[NodeProcess]) -> None:
    for process in processes:
        (folder / f"{process.name}.log").write_text(process.output(), "utf-8")
