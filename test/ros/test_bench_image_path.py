"""The path of one image through the node, as the bench traces it: in order, in two threads, and short."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.call_path import ImagePath, Step, lines, median_path

# It may become shorter. To make it longer takes a reason.
# The record of each camera and its time line made it two files longer, the turns of images and questions one.
MOST_FILES, MOST_FUNCTIONS, MOST_CALLS = 12, 37, 39


@pytest.fixture(scope="module")
def traced() -> dict[str, object]:
    command = [sys.executable, "-m", "bench.image_path", "--model", "identity", "--width", "64", "--height", "48"]
    finished = subprocess.run(
        [*command, "--warm-up", "3", "--images", "3", "--json"], check=True, capture_output=True, text=True, timeout=100
    )
    return json.loads(finished.stdout)


def test_an_image_goes_from_its_callback_to_the_messages(traced: dict[str, object]) -> None:
    functions = [step["function"] for step in traced["steps"]]
    way = [
        "CameraInput._on_image",
        "Mailbox.put",
        "Mailbox.take",
        "Perception.look_at",
        "CameraStream.begin",
        "image_to_rgb",
        "IdentityTracker.step",
        "Target.take",
        "Publishers.publish",
        "object_to_message",
        "Statistics.result_published",
    ]
    assert [name for name in functions if name in way] == way
    assert functions[0] == way[0]
    threads = [step["thread"] for step in traced["steps"]]
    assert set(threads) == {"elysium_cameras", "elysium_inference"}
    assert threads == sorted(threads), "the camera thread is done before the inference thread begins"


def test_the_path_through_the_node_is_short(traced: dict[str, object]) -> None:
    node = traced["elysium_ros"]
    assert 0 < node["files"] <= MOST_FILES
    assert 0 < node["functions"] <= MOST_FUNCTIONS
    assert 0 < node["calls"] <= MOST_CALLS
    assert (
        traced["calls"] == node["calls"] + traced["elysium_core"]["calls"] == sum(s["calls"] for s in traced["steps"])
    )


def path(*calls: int) -> ImagePath:
    return ImagePath(tuple(Step("t", f"elysium_ros/{n}.py", "f", count) for n, count in enumerate(calls)))


def test_the_path_with_the_median_number_of_calls_is_shown() -> None:
    assert median_path([path(9), path(1, 1), path(5), path(3)]) == path(3)
    text = list(lines(path(2, 40)))
    assert text[:2] == ["elysium_ros/0.py  [t]", "       2  f"]
    assert text[-1] == "together: 2 files, 2 functions, 42 calls"
