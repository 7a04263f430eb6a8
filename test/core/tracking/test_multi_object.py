"""Following all objects of some names, with a model that reads coloured squares off the picture."""

from __future__ import annotations

import numpy as np
import pytest

from elysium_core.errors import BackendError, ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityTracker
from elysium_core.tracking.instances import find_instances, painted_over
from elysium_core.tracking.multi_object import MultiObjectTracker
from elysium_core.tracking.newcomers import InstanceSearch, same_object, split_names
from elysium_core.types import Grounding, TrackingConfig, TrackState

LEFT, MIDDLE, RIGHT = Box(0.0, 0.1, 0.2, 0.3), Box(0.4, 0.1, 0.6, 0.3), Box(0.8, 0.1, 1.0, 0.3)
PERIOD_S = 1.0


class Finder:
    """Knows where things of each name are; answers with all of them, also with known ones."""

    def __init__(self, **places):
        self.places, self.searches, self.score, self.fails = places, [], 0.9, False

    def find_all(self, image, names, *, known=()):
        self.searches.append(image.index)
        if self.fails:
            raise BackendError("the device failed")
        return {name: [Grounding(box, self.score) for box in self.places.get(name, ())] for name in names}

    def search_of_all(self, names):
        return InstanceSearch(self, list(names))


def frame(index: int, rate_hz: float = 10.0) -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), int((index + 1) * 1e9 / rate_hz), index)


def follow(finder, names=("person",), config=None, tracker=None):
    search = InstanceSearch(finder, names, PERIOD_S, 0.4)
    return MultiObjectTracker(tracker or IdentityTracker(config), search)


def shown(updates):
    return [(update.target_id, update.name, update.state.value) for update in updates]


def test_every_object_gets_an_id_and_none_is_found_twice():
    finder = Finder(person=[LEFT, RIGHT], dog=[MIDDLE])
    tracker = follow(finder, ("person", "dog"))
    first = tracker.step(frame(0))
    assert sorted(shown(first)) == [("1", "person", "TRACKED"), ("2", "person", "TRACKED"), ("3", "dog", "TRACKED")]
    assert {update.box for update in first} == {LEFT, MIDDLE, RIGHT}
    second = tracker.step(frame(1))
    assert sorted(shown(second)) == sorted(shown(first))
    assert [update.age for update in second] == [1, 1, 1]


def test_a_newcomer_is_found_within_the_period_and_searches_pause_between():
    finder = Finder(person=[LEFT])
    tracker = follow(finder)
    for index in range(6):
        tracker.step(frame(index))
    finder.places["person"] = [LEFT, RIGHT]
    ids = [{update.target_id for update in tracker.step(frame(index))} for index in range(6, 14)]
    assert (ids[0], ids[-1]) == ({"1"}, {"1", "2"})
    # The frame after each find is searched, too; then there is a pause of a second, ten frames.
    assert finder.searches == [0, 1, 11, 12]


@pytest.mark.parametrize(("score", "targets"), [(0.39, 0), (0.4, 1)])
def test_a_weak_answer_becomes_no_target(score, targets):
    finder = Finder(person=[LEFT])
    finder.score = score
    assert len(follow(finder).step(frame(0))) == targets


def test_no_more_are_followed_than_there_is_room_for():
    tracker = follow(Finder(person=[LEFT, MIDDLE, RIGHT]), config=TrackingConfig(max_targets=2))
    assert [len(tracker.step(frame(index))) for index in range(3)] == [2, 2, 2]


def test_a_failing_search_costs_no_target():
    finder = Finder(person=[LEFT])
    tracker = follow(finder)
    tracker.step(frame(0))
    finder.fails = True
    assert shown(tracker.step(frame(1))) == [("1", "person", "TRACKED")]
    assert tracker.stats.failures == 1


class Drifting(IdentityTracker):
    """From some frame on, the second target is where the first one is."""

    def step(self, frame):
        if frame.index >= 2 and "2" in self._targets:
            self._targets["2"].box = self._targets["1"].box
        return super().step(frame)


def test_of_two_targets_that_stay_on_one_object_the_younger_one_ends():
    tracker = follow(Finder(person=[LEFT, RIGHT]), tracker=Drifting())
    seen = [shown(tracker.step(frame(index))) for index in range(9)]
    ended = [index for index, updates in enumerate(seen) if ("2", "person", "REMOVED") in updates]
    assert ended == [7], "five frames on one object, and the end is reported with the next one"
    assert ("1", "person", "TRACKED") in seen[-1]


def test_a_stopped_one_is_found_again_under_another_id():
    tracker = follow(Finder(person=[LEFT]))
    tracker.step(frame(0))
    tracker.remove("1")
    states = {update.target_id: update.state for update in tracker.step(frame(1))}
    assert states == {"1": TrackState.REMOVED, "2": TrackState.TRACKED}


def test_after_a_reset_the_first_frame_is_searched():
    finder = Finder(person=[LEFT])
    tracker = follow(finder)
    for index in range(3):
        tracker.step(frame(index))
    tracker.reset()
    assert [update.box for update in tracker.step(frame(3))] == [LEFT]


def test_boxes_of_one_name_are_one_object_when_one_is_inside_the_other_and_those_of_two_names_are_not():
    part = Box(0.05, 0.12, 0.15, 0.28)
    assert same_object(("person", LEFT), ("person", part))
    assert not same_object(("person", LEFT), ("horse", part))
    assert not same_object(("person", LEFT), ("person", MIDDLE))


def test_names_are_split_cleaned_and_each_kept_once():
    clean = {"people": "person", "person": "person", "dog": "dog"}.__getitem__
    assert split_names("people, dog ,person,", lambda text: clean(text.strip())) == ["person", "dog"]
    for wrong in (" , ", ",".join(f"n{number}" for number in range(17))):
        with pytest.raises(ConfigError) as caught:
            split_names(wrong, str.strip)
        assert caught.value.code == "NAMES"


def test_known_objects_are_hidden_by_the_colour_around_them():
    image = np.full((20, 20, 3), 60, np.uint8)
    image[4:8, 4:8] = 200
    painted = painted_over(image, [Box(0.2, 0.2, 0.4, 0.4)])
    assert (painted == 60).all()
    assert image[5, 5, 0] == 200
    assert painted_over(image, [Box(0, 0, 1, 1)]).std() == 0


def test_a_model_names_each_object_once_and_no_known_one(oracle, show):
    runtime = oracle()
    image = show.picture([show.Sight((10, 10, 30, 30)), show.Sight((50, 50, 90, 90), 40)]).image
    found = find_instances(runtime, image, ["mug", "apple"])
    assert [[each.box for each in found[name]] for name in ("mug", "apple")] == [
        [Box(0.1, 0.1, 0.3, 0.3)],
        [Box(0.5, 0.5, 0.9, 0.9)],
    ]
    assert find_instances(runtime, image, ["mug"], [("mug", Box(0.1, 0.1, 0.32, 0.3))]) == {"mug": []}
