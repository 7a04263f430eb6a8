"""Requests for all objects of some names: ``{person, dog}``."""

import pytest

from elysium_core.errors import ConfigError, ExpressionError, TargetError
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.tracking.newcomers import InstanceSearch, split_names
from elysium_core.types import Grounding, TrackingConfig
from elysium_ros.perception.instance_groups import names_of_all
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import StartRequest

LEFT, RIGHT = Box(0.0, 0.1, 0.2, 0.3), Box(0.7, 0.1, 0.9, 0.3)


class Finder(IdentityModel):
    """Finds what it is told to be there."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def find_all(self, image, names, *, known=()):
        return {name: [Grounding(box, 0.9) for box in self.boxes] for name in names}

    def search_of_all(self, names):
        return InstanceSearch(self, split_names(names, self.clean_words))


@pytest.fixture
def found(make_scene):
    """A scene in which all persons were asked for, and two are there."""
    scene = make_scene(model=Finder(LEFT, RIGHT))
    scene.group = scene.start("{person}")
    scene.see(10**9)
    return scene


@pytest.mark.parametrize(
    ("text", "names"), [("{person, dog}", "person, dog"), (" { cup } ", " cup "), ("the person", ""), ("a {b}", "")]
)
def test_only_names_in_braces_ask_for_all(text, names):
    assert names_of_all(text) == names


def test_all_objects_become_targets_with_ids_of_their_own(found):
    found.see(2 * 10**9)
    assert (found.group.id, found.states()) == (1, [(2, "TRACKED"), (3, "TRACKED")])
    views = found.results[-1].views
    assert [(view.label, view.update.box) for view in views] == [("person", LEFT), ("person", RIGHT)]
    assert found.perception.active_ids == [1, 2, 3]


def test_what_is_followed_already_is_not_found_again(make_scene):
    scene = make_scene(model=Finder(LEFT))
    scene.see(10**9)
    own = scene.start("person", place=lambda width, height: LEFT)
    scene.see(2 * 10**9)
    scene.start("{person}", add=True)
    for stamp in range(3, 7):
        scene.see(stamp * 10**9)
    assert scene.states() == [(own.id, "TRACKED")]


def test_the_request_ends_with_its_targets(found):
    assert found.perception.stop(found.group.id) == [1, 2, 3]
    found.see(2 * 10**9)
    assert found.states() == [(2, "REMOVED"), (3, "REMOVED")]
    found.see(5 * 10**9)
    assert (found.results[-1].views, found.perception.active_ids) == ((), [])


@pytest.mark.parametrize("end", ["stop all", "replace", "reset"])
def test_nothing_is_found_any_more_after_an_end(found, end):
    if end == "stop all":
        assert found.perception.stop(0) == [1, 2, 3]
    elif end == "replace":
        found.start("the mug")
    else:
        found.perception.reset(EndReason.RESET)
    for stamp in range(2, 6):
        found.see(stamp * 10**9)
    labels = {view.label for view in found.results[-1].views}
    assert labels == ({"the mug"} if end == "replace" else set())


def test_one_target_can_be_stopped_alone(found):
    assert found.perception.stop(2) == [2]
    assert found.group.id in found.perception.active_ids


def test_a_caller_hears_of_the_first_object_and_of_the_end(make_scene):
    scene, heard = make_scene(model=Finder(LEFT)), []
    scene.start("{person}", listener=lambda event: heard.append(event) or True)
    scene.see(10**9)
    scene.see(2 * 10**9)
    assert heard[0].view.update.box == LEFT
    ends = []
    scene.start("{dog}", listener=lambda event: ends.append(event.end) or True)
    scene.perception.stop(0)
    assert ends == [EndReason.STOPPED]


def test_after_a_jump_in_time_all_are_searched_anew(found):
    for stamp in (9, 1, 2, 3, 4):  # the third image after a jump back is believed
        found.see(stamp * 10**9)
    states = dict(found.states())
    assert found.group.id in found.perception.active_ids
    assert [state for number, state in states.items() if number > 3] == ["TRACKED", "TRACKED"]


def test_a_request_from_the_start_is_made_once_however_often_time_jumps(make_scene):
    scene = make_scene(model=Finder(LEFT))
    group = scene.perception.start_standing(StartRequest("", "{person}"))
    for stamp in (9, 1, 2, 3, 9, 1, 2, 3):
        scene.see(stamp * 10**9)
    assert [target.group_id for target in scene.perception.targets()] == [group.id]
    assert set(scene.perception.active_ids) == {group.id, *(target.id for target in scene.perception.targets())}


def test_another_model_goes_on_with_the_request(found):
    heir = Perception(
        Finder(LEFT), found.perception._settings, found.mailboxes.values(), iter(range(9, 20)), found.outputs
    )
    heir.succeed(found.perception.retire())
    found.perception = heir
    found.see(5 * 10**9)
    found.see(6 * 10**9)
    assert {9, found.group.id} <= set(heir.active_ids)
    assert {2, 3}.isdisjoint(heir.active_ids), "its targets were given by boxes, which are gone"


def test_there_is_room_for_as_many_as_targets_are_allowed(make_scene):
    scene = make_scene(model=Finder(LEFT, RIGHT), config=TrackingConfig(max_targets=1))
    scene.start("{person}")
    for stamp in (1, 2, 3):
        scene.see(stamp * 10**9)
    assert len(scene.results[-1].views) == 1


def test_what_cannot_be_done_is_refused_and_changes_nothing(make_scene, at):
    scene = make_scene(model=Finder(LEFT))
    kept = scene.start("the mug")
    scene.see(10**9)
    with pytest.raises(TargetError):
        scene.start("{person}", place=at(0, 0, 9, 9))
    with pytest.raises(ConfigError) as caught:
        scene.start("{ , }")
    assert caught.value.code == "NAMES"
    with pytest.raises(ExpressionError):
        scene.start("{}")
    for _ in range(4):
        scene.start("{person}", add=True)
    with pytest.raises(TargetError) as limit:
        scene.start("{person}", add=True)
    assert limit.value.code == "TARGET_LIMIT"
    assert kept.id in scene.perception.active_ids
    with pytest.raises(TargetError) as unable:
        make_scene(model=IdentityModel()).start("{person}")
    assert unable.value.code == "TASK"
