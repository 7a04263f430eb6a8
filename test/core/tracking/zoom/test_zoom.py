"""Closer looks: small things are found by words in parts of a picture, and followed through close-ups."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from elysium_core.api import Elysium
from elysium_core.errors import BackendError, ConfigError
from elysium_core.families.loaders import LoadedModel
from elysium_core.geometry import Box
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import ModelInfo, TrackingConfig, TrackState

TRACKED, UNCERTAIN, LOST, REMOVED = TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST, TrackState.REMOVED
PARTS = 4 + 9


def small(k: int) -> tuple[int, int, int, int]:
    """A thing of 20 px in 400x300: too small for the eyes in the whole frame, not in a part of it."""
    return 370 - 4 * k, 20 + 2 * k, 390 - 4 * k, 40 + 2 * k


def large(k: int) -> tuple[int, int, int, int]:
    return 20 + 2 * k, 160, 150 + 2 * k, 290


@pytest.fixture
def in_frame(room):
    return lambda rectangle: Box.from_px(*rectangle, room.width, room.height)


@pytest.fixture
def model(eyes):
    return Elysium(LoadedModel(eyes().family, ModelInfo(name="eyes")))


@pytest.fixture
def follower(eyes, window_kind):
    return lambda zoom=True, **settings: StreamTracker(eyes(window_kind), TrackingConfig(zoom=zoom, **settings))


def close_to(truth: Box) -> object:
    """A view is a hundred steps wide, a frame is more."""
    return pytest.approx(list(truth), abs=0.005)


class TestGround:
    def test_a_small_thing_is_found_with_closer_looks_only(self, model, paint, in_frame):
        frame = paint(small(0))
        without, found = model.ground(frame, "the mug"), model.ground(frame, "the mug", zoom=True)
        assert without.score < 0.3
        assert found.score > 0.9
        assert list(found.box) == close_to(in_frame(small(0)))
        assert found.text.startswith("[")

    def test_what_is_large_and_sure_costs_nothing_more(self, model, paint):
        frame = paint(large(0))
        assert model.ground(frame, "the mug", zoom=True) == model.ground(frame, "the mug")
        assert len(model.runtime.family.vision.pictures) == 2

    def test_a_thing_of_middle_size_is_looked_at_once_more(self, model, paint, in_frame):
        thing = (100, 99, 164, 165)
        found = model.ground(paint(thing), "the mug", zoom=True)
        assert list(found.box) == close_to(in_frame(thing))
        assert model.runtime.family.vision.pictures == [(400, 300), (198, 198)]

    def test_what_is_not_sure_has_to_be_confirmed(self, model, paint, in_frame):
        """A guess at a wrong place would be taken for a finding; a closer look at that place shows nothing."""
        model.runtime.family.vision.guess = [40, 40, 50, 50, 45]
        frame = paint(small(0))
        assert model.ground(frame, "the mug").score == pytest.approx(0.45)
        found = model.ground(frame, "the mug", zoom=True)
        assert list(found.box) == close_to(in_frame(small(0)))

    def test_what_is_not_there_is_looked_for_everywhere_and_not_found(self, model, paint):
        found = model.ground(paint(None, small(0)), "the mug", zoom=True)
        assert (found.box, found.score) == (None, 0.0)
        assert len(model.runtime.family.vision.pictures) == 1 + PARTS

    def test_half_of_a_thing_does_not_count(self, model, paint, room):
        """A bar across the frame, too thin for the eyes: every part cuts it, and sees a large piece of it."""
        model.runtime.family.vision._see = lambda image, color: (
            [0, 40, 100, 60, 95] if image.shape[1] < room.width else [30, 30, 60, 60, 20]
        )
        found = model.ground(paint(None), "the mug", zoom=True)
        assert found.score < 0.3


def test_a_description_is_made_from_a_closer_look(model, paint, in_frame, monkeypatch):
    asked = []
    monkeypatch.setattr(
        model.runtime, "ask", lambda visual, question, *rest: (asked.append(question), SimpleNamespace(token_ids=[]))[1]
    )
    model.describe([paint(small(k), index=k) for k in range(3)], in_frame(small(0)), zoom=True)
    assert model.runtime.family.vision.pictures == [(60, 60)] * 3
    assert "[50,33,83,67]" in asked[0]
    model.describe(paint(large(0)), in_frame(large(0)), zoom=True)
    assert model.runtime.family.vision.pictures[3:] == [(400, 300)]


class TestStream:
    def test_a_small_thing_given_by_its_box_is_followed_with_zoom_only(self, follower, paint, in_frame):
        for zoom in (True, False):
            tracker = follower(zoom)
            tracker.add(box=in_frame(small(0)))
            last = [tracker.step(paint(small(k), large(k), index=k))[0] for k in range(24)][-1]
            assert (last.state is TRACKED) == zoom
        # The second run told where it was lost; the first one where it is.
        assert last.box is None

    def test_it_is_followed_where_it_is(self, follower, paint, in_frame):
        tracker = follower()
        tracker.add(box=in_frame(small(0)))
        for k in range(24):
            (update,) = tracker.step(paint(small(k), large(k), index=k))
            assert update.state is TRACKED
            assert list(update.box) == close_to(in_frame(small(k)))

    def test_a_box_given_later_belongs_to_the_frame_before(self, follower, paint, in_frame):
        tracker = follower()
        tracker.step(paint(small(0)))
        tracker.add(box=in_frame(small(0)))
        for k in range(1, 5):
            (update,) = tracker.step(paint(small(k), index=k))
            assert list(update.box) == close_to(in_frame(small(k)))

    def test_words_find_a_small_thing_within_as_many_frames_as_there_are_parts(self, follower, paint, in_frame):
        tracker = follower()
        tracker.add("the mug")
        states = []
        for k in range(20):
            (update,) = tracker.step(paint(small(k), large(k), index=k))
            states.append(update.state)
        assert states.index(TRACKED) < PARTS
        assert set(states[states.index(TRACKED) :]) == {TRACKED}
        assert list(update.box) == close_to(in_frame(small(19)))

    def test_a_wrong_guess_is_not_followed_while_parts_are_searched(self, follower, paint, in_frame):
        tracker = follower()
        tracker._runtime.family.vision.guess = [40, 40, 50, 50, 45]
        tracker.add("the mug")
        for k in range(PARTS):
            (update,) = tracker.step(paint(small(k), index=k))
            assert update.box is None or list(update.box) == close_to(in_frame(small(k)))
        assert update.state is TRACKED

    def test_a_search_costs_one_more_picture_a_frame(self, follower, paint):
        tracker = follower()
        tracker.add("the mug")
        tracker.add("the apple")
        for k in range(PARTS):
            updates = tracker.step(paint(None, None, index=k))
            assert [update.state for update in updates] == [LOST, LOST]
        assert tracker.stats.vision_encodes == 2 * PARTS

    def test_large_things_cost_nothing_more(self, follower, paint, in_frame):
        counts = []
        for zoom in (True, False):
            tracker = follower(zoom)
            tracker.add("the apple", box=in_frame(large(0)))
            for k in range(10):
                tracker.step(paint(None, large(k), index=k))
            counts.append((tracker.stats.vision_encodes, tracker.stats.llm_passes, tracker.stats.llm_tokens))
        assert counts[0] == counts[1]

    def test_several_are_encoded_together_and_kept_apart(self, follower, paint, in_frame):
        def other(k):
            return 40 + 3 * k, 200 - k, 60 + 3 * k, 220 - k

        tracker = follower()
        tracker.add(box=in_frame(small(0)))
        tracker.add("the apple", box=in_frame(other(0)))
        for k in range(12):
            updates = tracker.step(paint(small(k), other(k), index=k))
            for update, truth in zip(updates, (small(k), other(k)), strict=True):
                assert list(update.box) == close_to(in_frame(truth))

    def test_closer_looks_can_be_asked_for_and_left_out_at_any_time(self, follower, paint, in_frame):
        """It grows small and comes back: without closer looks it is lost on the way."""
        tracker = follower(zoom=False)
        tracker.add("the mug", box=in_frame(large(0)))
        tracker.step(paint(large(0)))
        tracker.configure(TrackingConfig(zoom=True))
        # Its first frame with closer looks opens one; it is large then.
        assert tracker.step(paint(large(1), index=1))[0].state is TRACKED
        shrinking = [(100, 100, 100 + side, 100 + side) for side in range(120, 19, -10)]
        for k, thing in enumerate(shrinking, 2):
            (update,) = tracker.step(paint(thing, index=k))
            assert update.state is TRACKED
        assert list(update.box) == close_to(in_frame(shrinking[-1]))
        tracker.configure(TrackingConfig(zoom=False))
        assert tracker.step(paint(shrinking[-1], index=20))[0].state is UNCERTAIN

    def test_it_goes_on_after_a_failure_of_the_model(self, follower, paint, in_frame, monkeypatch):
        tracker = follower()
        tracker.add(box=in_frame(small(0)))
        for k in range(3):
            tracker.step(paint(small(k), index=k))
        runtime = tracker._runtime
        with monkeypatch.context() as broken:
            broken.setattr(runtime.family.vision, "encode", fail)
            (update,) = tracker.step(paint(small(3), index=3))
            assert update.state is UNCERTAIN
        (update,) = tracker.step(paint(small(4), index=4))
        assert update.state is TRACKED
        assert list(update.box) == close_to(in_frame(small(4)))

    def test_nothing_is_kept_of_what_has_gone(self, follower, paint, in_frame):
        tracker = follower(remove_after_s=0.5, lost_after_s=0.5)
        stopped = tracker.add(box=in_frame(small(0)))
        tracker.add(box=in_frame(large(0)))
        tracker.step(paint(small(0), large(0)))
        tracker.remove(stopped)
        states = [u.state for k in range(1, 30) for u in tracker.step(paint(None, None, index=k))]
        assert states.count(REMOVED) == 2
        assert not tracker._zoom_follow._openings
        assert not tracker._zoom_follow._windows

    def test_times_of_eyes_and_words_add_up(self, follower, paint, in_frame):
        tracker = follower()
        tracker.add(box=in_frame(small(0)))
        for k in range(3):
            tracker.step(paint(small(k), index=k))
            assert tracker.stats.encode_s > 0
            assert tracker.stats.generate_s > 0


def fail(images):
    raise BackendError("no memory", code="MEMORY")


def test_zoom_is_for_streams():
    with pytest.raises(ConfigError, match="zoom needs mode 'stream', not 'clip'"):
        TrackingConfig(mode="clip", zoom=True)
    with pytest.raises(ConfigError, match="zoom = 1 is not True or False"):
        TrackingConfig(zoom=1)
