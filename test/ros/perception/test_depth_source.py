"""Depth images beside the images: which one belongs to which, what is done with it, and why there is no position."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from elysium_ros.perception.depth_source import DepthSource
from elysium_ros.perception.types import DepthSettings, InferenceSettings

MS = 1_000_000
FRAME = SimpleNamespace(frame_id="optical")


def depth(metres=2.0, *, size=(48, 64), encoding="16UC1", frame_id="optical"):
    pixels = np.full(size, metres * 1000, np.uint16)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=frame_id), encoding=encoding, height=size[0], width=size[1],
        step=2 * size[1], is_bigendian=0, data=pixels.tobytes(),
    )  # fmt: skip


def calibration(frame_id="optical", focal=64.0):
    roi = SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0)
    k = (focal, 0, 32, 0, focal, 24, 0, 0, 1)
    return SimpleNamespace(header=SimpleNamespace(frame_id=frame_id), width=64, height=48, k=k, roi=roi)


@pytest.fixture
def seeing(scene, picture, at):
    """A camera with depth, a target in the middle of its image, and what is published of one image."""
    source = DepthSource()
    source.calibrate(calibration(), of_depth=False)
    mailbox = scene.mailboxes[""]
    mailbox.depth = source
    scene.perception.configure(InferenceSettings(depth=DepthSettings()))

    def see(stamp, frame_id="optical"):
        image = picture(48, 64)
        image.header = SimpleNamespace(frame_id=frame_id)
        mailbox.put(stamp, image, 1)
        scene.perception.look_at(mailbox.take())
        return scene.results[-1].views[0].position if scene.results[-1].views else None

    see(1)
    scene.start(place=at(24, 18, 40, 30))
    scene.outputs.reports.clear()
    return SimpleNamespace(see=see, source=source, scene=scene)


def test_a_box_has_a_position_and_listeners_are_told_the_same(seeing, at):
    told = []
    seeing.scene.start(place=at(24, 18, 40, 30), add=True, listener=lambda event: told.append(event) or True)
    seeing.source.put(1000 * MS, depth())
    position = seeing.see(1001 * MS)
    assert position.center == pytest.approx((0.0, 0.0, 2.0))
    assert position.size == pytest.approx((0.5, 0.375, 0.0))
    assert told[-1].view.position == position
    assert (seeing.source.health().problem, seeing.scene.reports) == ("", [])


def test_the_depth_nearest_in_time_is_taken_however_many_come_meanwhile(seeing):
    for number in range(8):
        seeing.source.put((1000 + 30 * number) * MS, depth(1.0 + number))
    assert seeing.see(1185 * MS).center[2] == pytest.approx(7.0)
    # While the model sees an image its depth may still come, and many others after it.
    seeing.source.expect(1250 * MS)
    seeing.source.put(1252 * MS, depth(4.0))
    for number in range(1, 20):
        seeing.source.put((1252 + 30 * number) * MS, depth(9.0))
    job = seeing.scene.results[-1]
    job = replace(job, image=replace(job.image, stamp_ns=1250 * MS))
    [view] = seeing.source.locate(job, job.views, DepthSettings(), str)
    assert view.position.center[2] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: None, "DEPTH_NOT_RECEIVED"),
        (lambda s: s.put(900 * MS, depth()), "DEPTH_TIME"),
        (lambda s: s.put(0, depth()), "DEPTH_TIME"),
        (lambda s: s.put(1000 * MS, depth(encoding="rgb8")), "DEPTH_ENCODING"),
        (lambda s: s.put(1000 * MS, depth(size=(48, 48))), "DEPTH_SIZE"),
        (lambda s: s.put(1000 * MS, depth(frame_id="depth_optical")), "DEPTH_FRAME"),
        (lambda s: (s.put(1000 * MS, depth()), s.calibrate(calibration("other"), of_depth=True)), "DEPTH_FRAME"),
        (lambda s: (s.put(1000 * MS, depth()), s.calibrate(None, of_depth=False)), "DEPTH_CALIBRATION"),
        (lambda s: (s.put(1000 * MS, depth()), s.calibrate(calibration(focal=0), of_depth=True)), "DEPTH_CALIBRATION"),
    ],
)
def test_depth_that_cannot_be_used_is_told_and_the_box_is_published_without_a_position(seeing, change, code):
    seeing.scene.outputs.report = lambda error: f"{error.code}: {error}"
    change(seeing.source)
    assert seeing.see(1000 * MS) is None
    assert seeing.scene.results[-1].views[0].update.box is not None
    assert seeing.source.health().problem.startswith(f"{code}: ")
    seeing.source.calibrate(None, of_depth=True)
    seeing.source.calibrate(calibration(), of_depth=False)
    seeing.source.put(1100 * MS, depth())
    assert seeing.see(1100 * MS) is not None
    assert seeing.source.health().problem == ""


def test_depth_of_another_resolution_and_without_frames_belongs_to_the_image(seeing):
    seeing.source.put(1000 * MS, depth(size=(24, 32), frame_id=""))
    assert seeing.see(1000 * MS).center == pytest.approx((0.0, 0.0, 2.0))


def test_a_reset_forgets_the_depth(seeing, at):
    seeing.source.put(1000 * MS, depth())
    seeing.scene.mailboxes[""].clear()
    seeing.source.expect(1000 * MS)
    assert seeing.see(1000 * MS) is None
    assert seeing.source.health().received == 1
