"""The log of a normal run: one line when something changes, none when nothing does."""

from __future__ import annotations

import numpy as np

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.node.events import Narrator
from elysium_ros.perception.mailbox import Incoming
from elysium_ros.perception.perception import FrameResult
from elysium_ros.perception.targets import ObjectView

FRAME = Frame(np.zeros((48, 64, 3), np.uint8))
BOX = Box(0.1, 0.2, 0.3, 0.4)


def said(narrator: Narrator, *states: tuple[str, TrackState, str], camera: str = "") -> list[str]:
    """Return what is said of one frame with these targets: id, state, reason."""
    updates = [
        TrackUpdate(id_, 0, BOX, 0.625, state, expression="the red mug", reason=reason) for id_, state, reason in states
    ]
    image = Incoming(camera=camera, stamp_ns=1, payload=None, size=0, number=1)
    return list(narrator.lines(FrameResult(image, FRAME, tuple(ObjectView(update) for update in updates))))


def test_a_target_is_told_of_when_it_is_found_lost_found_again_and_ended() -> None:
    narrator = Narrator()
    assert said(narrator) == ["images of 64 x 48 px arrive"]
    assert said(narrator, ("1", TrackState.UNCERTAIN, "score 0.1 is below 0.3")) == []
    assert said(narrator, ("1", TrackState.TRACKED, "")) == ["target 1 ('the red mug') found, score 0.62"]
    assert said(narrator, ("1", TrackState.TRACKED, "")) == []
    assert said(narrator, ("1", TrackState.UNCERTAIN, "")) == []
    lost = ("1", TrackState.LOST, "no box")
    assert said(narrator, lost) == ["target 1 ('the red mug') lost, no box"]
    assert said(narrator, lost) == []
    assert said(narrator, ("1", TrackState.TRACKED, "")) == ["target 1 ('the red mug') found again, score 0.62"]
    ended = ("1", TrackState.REMOVED, "it was stopped")
    assert said(narrator, ended, ("2", TrackState.TRACKED, "")) == [
        "target 1 ('the red mug') ended, it was stopped",
        "target 2 ('the red mug') found, score 0.62",
    ]


def test_what_was_never_found_is_not_said_to_be_lost() -> None:
    narrator = Narrator()
    said(narrator)
    assert said(narrator, ("1", TrackState.LOST, "not found yet")) == []
    assert said(narrator, ("1", TrackState.TRACKED, "")) == ["target 1 ('the red mug') found, score 0.62"]


def test_several_cameras_are_named() -> None:
    narrator = Narrator()
    assert said(narrator, camera="front") == ["images of 64 x 48 px arrive in camera 'front'"]
    assert said(narrator, ("1", TrackState.TRACKED, ""), camera="rear") == [
        "images of 64 x 48 px arrive in camera 'rear'",
        "target 1 ('the red mug') in camera 'rear' found, score 0.62",
    ]
