"""Following in crops, with a model that reads coloured rectangles off the crops it is shown.

Prompts, engine, drafts, box text and crops are the package's own; only what the network sees is replaced, so that the
tracker's decisions can be checked exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from elysium_core.errors import BackendError
from elysium_core.families.base import Anchor, CropSizes, Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.crop_tracker import CropTracker
from elysium_core.types import TrackingConfig, TrackState

WIDTH, HEIGHT = 320, 240
RED, BLUE = (200, 0, 0), (0, 0, 200)
GREY = (90, 90, 90)


class CropFamily:
    """An Elysium family whose encoder finds the anchor's colour in a live crop.

    A visual token holds the box in hundredths of its picture and how sure the model is of it, as the scripted decoder
    of this folder reads them.
    """

    def __init__(self, family):
        self._family = family
        self.crop_sizes = CropSizes(anchor_px=64, live_px=128)
        self.batches: list[int] = []

    def __getattr__(self, name):
        return getattr(self._family, name)

    def encode_anchors(self, crops, boxes):
        anchors = []
        for crop, box in zip(crops, boxes, strict=True):
            x, y = (int(value * 64) for value in box.center)
            anchors.append(Anchor(self._seen(box, 95), box, tuple(int(v) for v in crop[y, x])))
        return anchors

    def encode_crops(self, crops, anchors):
        self.batches.append(len(crops))
        return [self._seen(*found(crop, anchor.memory)) for crop, anchor in zip(crops, anchors, strict=True)]

    def _seen(self, box, certainty):
        rows = torch.zeros(1, 2 + 5 * 3)
        rows[0, 0] = 2
        values = [*(round(100 * value) for value in box), certainty] if box is not None else [40, 40, 50, 50, 12]
        rows[0, 2:] = torch.tensor([*values, *[0] * 10])
        return Seen(rows)


def found(crop, color):
    """The largest extent of a colour in a crop."""
    near = np.abs(crop.astype(int) - np.array(color)).max(-1) < 40
    ys, xs = np.nonzero(near)
    if len(xs) < 12:
        return None, 0
    side = len(crop)
    return Box(xs.min() / side, ys.min() / side, (xs.max() + 1) / side, (ys.max() + 1) / side), 95


def paint(*things, index=0):
    """A grey frame with coloured rectangles ((x1, y1, x2, y2), colour)."""
    image = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    for (x1, y1, x2, y2), color in things:
        image[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = color
    return Frame(image, stamp_ns=(index + 1) * 33_000_000, index=index)


def moved(rectangle, step, dx=3, dy=1):
    x1, y1, x2, y2 = rectangle
    return x1 + dx * step, y1 + dy * step, x2 + dx * step, y2 + dy * step


def truth(rectangle):
    return Box.from_px(*rectangle, WIDTH, HEIGHT, clip=True)


@pytest.fixture
def follower(oracle):
    def make(**settings):
        runtime = oracle()
        runtime.family = CropFamily(runtime.family)
        return CropTracker(runtime, TrackingConfig(**settings))

    return make


START = (60, 60, 90, 84)


def test_a_box_is_followed_across_the_frame(follower):
    tracker = follower()
    tracker.add(box=truth(START))
    for step in range(40):
        place = moved(START, step)
        (update,) = tracker.step(paint((place, RED), index=step))
        assert update.state is TrackState.TRACKED
        assert update.box.iou(truth(place)) > 0.75, step


def test_a_look_alike_elsewhere_is_never_taken(follower):
    tracker = follower()
    tracker.add(box=truth(START))
    for step in range(20):
        place = moved(START, step)
        (update,) = tracker.step(paint((place, RED), ((250, 180, 280, 204), RED), index=step))
        assert update.box.iou(truth(place)) > 0.7


def test_targets_share_one_batch_and_one_pass_a_frame(follower):
    tracker, other = follower(), moved(START, 40)
    tracker.add(box=truth(START))
    tracker.add(box=truth(other))
    tracker.step(paint((START, RED), (other, BLUE)))
    before = tracker.stats.llm_passes
    apart = follower()
    apart.add(box=truth(START))
    for step in range(1, 6):
        updates = tracker.step(paint((START, RED), (other, BLUE), index=step))
        assert [u.state for u in updates] == [TrackState.TRACKED] * 2
        apart.step(paint((START, RED), (other, BLUE), index=step))
    assert tracker._runtime.family.batches[-5:] == [2] * 5
    assert tracker.stats.llm_passes - before <= apart.stats.llm_passes + 5


def test_a_target_that_has_gone_is_doubted_at_once_and_lost_in_time(follower):
    tracker = follower(lost_after_s=0.3, remove_after_s=0.0)
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    states = [tracker.step(paint(index=step))[0].state for step in range(1, 30)]
    assert states[0] is TrackState.UNCERTAIN
    assert states[-1] is TrackState.LOST
    assert TrackState.TRACKED not in states


def test_it_is_found_again_near_its_last_place(follower):
    tracker = follower(lost_after_s=0.2, remove_after_s=0.0)
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    for step in range(1, 15):
        tracker.step(paint(index=step))
    again = moved(START, 20)
    states = [tracker.step(paint((again, RED), index=step))[0].state for step in range(15, 25)]
    assert states[-1] is TrackState.TRACKED
    assert tracker.step(paint((again, RED), index=25))[0].box.iou(truth(again)) > 0.5


def test_two_targets_on_one_object_do_not_both_keep_it(follower):
    tracker = follower()
    tracker.add(box=truth(START))
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    updates = tracker.step(paint((START, RED), index=1))
    assert [u.state for u in updates] == [TrackState.TRACKED, TrackState.UNCERTAIN]
    assert updates[1].box is None
    assert "target 1 is at the same place" in updates[1].reason


def test_of_two_targets_at_one_place_the_surer_one_keeps_it(follower, monkeypatch):
    def blue_passes_for_red_less_surely(crop, color, look=found):
        is_lost = np.abs(np.subtract(color, RED)).max() < 40 and look(crop, RED)[0] is None
        return (look(crop, BLUE)[0], 60) if is_lost else look(crop, color)

    monkeypatch.setitem(globals(), "found", blue_passes_for_red_less_surely)
    tracker, beside = follower(), moved(START, 1, dx=32, dy=0)
    tracker.add(box=truth(START))
    tracker.add(box=truth(beside))
    tracker.step(paint((START, RED), (beside, BLUE)))
    updates = tracker.step(paint((START, BLUE), index=1))  # blue has come to where red was
    assert [u.state for u in updates] == [TrackState.UNCERTAIN, TrackState.TRACKED]
    assert "target 2 is at the same place" in updates[0].reason


@pytest.mark.parametrize("place", [(-8, 40, 22, 70), (300, 100, 330, 130), (100, -9, 130, 21), (4, 4, 16, 12)])
def test_at_the_edges_and_small_ones_too(follower, place):
    tracker = follower()
    tracker.add(box=truth(place))
    for step in range(5):
        (update,) = tracker.step(paint((place, RED), index=step))
        assert update.state is TrackState.TRACKED
        assert update.box.iou(truth(place)) > 0.6


def test_a_box_refers_to_the_newest_frame(follower):
    tracker = follower()
    tracker.step(paint((START, RED)))
    tracker.add(box=truth(START))
    place = moved(START, 1)
    (update,) = tracker.step(paint((place, RED), index=1))
    assert update.box.iou(truth(place)) > 0.8


def test_a_failure_of_the_model_is_told_and_overcome(follower, monkeypatch):
    tracker = follower()
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))

    def fail(crops, anchors):
        raise RuntimeError("CUDA error: device lost")

    with monkeypatch.context() as broken:
        broken.setattr(tracker._runtime.family, "encode_crops", fail)
        (update,) = tracker.step(paint((START, RED), index=1))
    assert (update.state, update.box) == (TrackState.UNCERTAIN, None)
    assert "device lost" in update.reason
    assert tracker.stats.failures == 1
    assert tracker.step(paint((START, RED), index=2))[0].state is TrackState.TRACKED
    assert tracker.stats.failure is None


def test_memory_of_a_removed_target_is_freed(follower):
    tracker = follower()
    name = tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    tracker.remove(name)
    assert [u.state for u in tracker.step(paint((START, RED), index=1))] == [TrackState.REMOVED]
    assert not tracker._followed


def test_a_model_that_follows_in_frames_is_refused(oracle):
    with pytest.raises(BackendError, match="follows in whole frames"):
        CropTracker(oracle(), TrackingConfig())


def test_settings_may_change_while_it_runs(follower):
    tracker = follower()
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    tracker.configure(replace(tracker.config, score_threshold=0.99))
    assert tracker.step(paint((START, RED), index=1))[0].state is TrackState.UNCERTAIN


@pytest.mark.parametrize(("certainty", "follows"), [(22, True), (12, False)])
def test_the_crop_follows_answers_that_are_nearly_sure(follower, monkeypatch, certainty, follows):
    monkeypatch.setitem(globals(), "found", lambda crop, color, look=found: (look(crop, color)[0], certainty))
    tracker = follower(lost_after_s=60.0)
    tracker.add(box=truth(START))
    for step in range(25):
        (update,) = tracker.step(paint((moved(START, step), RED), index=step))
    assert update.state is TrackState.UNCERTAIN
    assert (tracker._followed["1"].box.iou(truth(moved(START, 24))) > 0.7) is follows


def takes_blue_for_red(crop, color, look=found):
    """Where there is no red, the model surely takes something blue for it."""
    seen = look(crop, color)
    return look(crop, BLUE) if seen[0] is None and np.abs(np.subtract(color, RED)).max() < 40 else seen


@pytest.mark.parametrize("lost_after_s", [0.2, 60.0], ids=["lost", "in doubt"])
def test_what_is_found_after_a_doubt_must_lead_back_to_the_target(follower, monkeypatch, lost_after_s):
    monkeypatch.setitem(globals(), "found", takes_blue_for_red)
    tracker, other = follower(lost_after_s=lost_after_s, remove_after_s=0.0), (64, 64, 94, 88)
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED)))
    for step in range(1, 6):
        tracker.step(paint(index=step))
    states = {tracker.step(paint((other, BLUE), index=step))[0].state for step in range(6, 26)}
    assert TrackState.TRACKED not in states
    assert tracker._followed["1"].box.iou(truth(START)) > 0.9, "it did not leave for what is not the target"
    states = [tracker.step(paint((START, RED), index=step))[0].state for step in range(26, 32)]
    assert states[-1] is TrackState.TRACKED


@pytest.mark.parametrize("others", [(), (((100, 92, 118, 106), BLUE),)], ids=["nowhere", "elsewhere"])
def test_a_jump_must_lead_back_to_the_target(follower, monkeypatch, others):
    monkeypatch.setitem(globals(), "found", takes_blue_for_red)
    tracker, beside = follower(), (92, 60, 120, 84)
    tracker.add(box=truth(START))
    tracker.step(paint((START, RED), *others))
    (update,) = tracker.step(paint((beside, BLUE), index=1))
    assert update.state is TrackState.UNCERTAIN
    assert tracker._followed["1"].box.iou(truth(START)) > 0.9
    # The target itself may jump as far.
    (update,) = tracker.step(paint((beside, RED), index=2))
    assert update.state is TrackState.TRACKED
    assert update.box.iou(truth(beside)) > 0.5


def test_where_all_is_well_nothing_is_looked_at_twice(follower):
    tracker = follower()
    tracker.add(box=truth(START))
    for step in range(10):
        tracker.step(paint((moved(START, step), RED), index=step))
    assert tracker._runtime.family.batches == [1] * 9


def follows_any_red(crop, color, look=found):
    """The target's own red is followed through all shades; of other anchors only the very shade is found."""
    if color != RED:
        return look(crop, color)
    reds = (crop[..., 0] > 80) & (crop[..., 1:].max(-1) < 40)
    return look(np.where(reds[..., None], np.array(RED, np.uint8), np.uint8(0)), RED)


def test_the_way_back_leads_to_the_last_sure_picture_because_things_change(follower, monkeypatch):
    monkeypatch.setitem(globals(), "found", follows_any_red)
    tracker = follower(lost_after_s=60.0)
    tracker.add(box=truth(START))
    for step in range(12):
        tracker.step(paint((START, (200 - 8 * step, 0, 0)), index=step))
    for step in range(12, 18):
        assert tracker.step(paint(index=step))[0].state is not TrackState.TRACKED
    states = [tracker.step(paint((START, (112, 0, 0)), index=step))[0].state for step in range(18, 22)]
    assert states[-1] is TrackState.TRACKED
