"""Requests for all objects of some names: ``{person, dog}``. Imports no ROS.

Such a request is a group. It has an id of its own, lasts until it is stopped or replaced, and finds its targets itself.
An ordinary expression never holds braces, so that no client asks for a group by accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from elysium_core.errors import ConfigError, ElysiumError, TargetError
from elysium_core.tracking.newcomers import FindsAll, InstanceSearch, Known, Newcomer
from elysium_core.types import PerceptionModel
from elysium_ros.perception.target_events import EndReason, Listener, TargetEvent
from elysium_ros.perception.targets import Target
from elysium_ros.perception.types import FrameJob, StartRequest

_ALL_FORM = re.compile(r"\s*\{(.*)\}\s*", re.DOTALL)
_MOST_GROUPS = 4


def names_of_all(expression: str) -> str:
    """The names in an expression such as ``{person, dog}``, with commas between them; empty for any other one."""
    match = _ALL_FORM.fullmatch(expression)
    return match[1] if match else ""


@dataclass(slots=True)
class InstanceGroup:
    """A request for all objects of some names.

    Attributes:
        id: The node's id of the request; targets and groups share one count.
        camera: Camera in which it searches.
        expression: The names as they are used, with commas between them.
        search: Finds newcomers.
        listener: Is passed on to the first target; None if there is none, or it was.
    """

    id: int
    camera: str
    expression: str
    search: InstanceSearch
    listener: Listener | None = None

    def take_listener(self) -> Listener | None:
        """Return the listener, the first time; None from then on."""
        listener, self.listener = self.listener, None
        return listener


class InstanceGroups:
    """The groups of all cameras. Used by the inference thread only."""

    def __init__(self) -> None:
        self.by_id: dict[int, InstanceGroup] = {}
        """The groups by id; to be read only."""

    @property
    def ids(self) -> list[int]:
        """Ids of the groups; may be read from any thread."""
        return list(self.by_id.copy())

    def __contains__(self, group_id: int) -> bool:
        return group_id in self.by_id

    def of(self, camera: str) -> list[InstanceGroup]:
        """The groups of a camera, of all cameras for ``""``."""
        return [group for group in self.by_id.values() if not camera or group.camera == camera]

    def prepare(self, model: PerceptionModel, request: StartRequest, mode: str = "stream") -> InstanceSearch:
        """Check a request for a group.

        Raises:
            TargetError: The model finds nothing by names (``TASK``), a box was given, too (``TARGET``), or there
                are too many groups (``TARGET_LIMIT``).
            ConfigError: There are no names or too many, the model cannot follow a box, or the mode is not ``stream``.
            ExpressionError: A name cannot be used.
        """
        if not isinstance(model, FindsAll):
            raise TargetError(f"the model {model.info.name!r} finds nothing by names; load another", code="TASK")
        if mode != "stream":
            raise ConfigError(
                "all objects are followed with clip.mode stream only; change it and ask again", code="MODE"
            )
        if request.place is not None:
            raise TargetError("a box is of one object, and names in braces ask for all; give one of the two")
        if request.add and len(self.by_id) >= _MOST_GROUPS:
            raise TargetError(
                f"there are already {_MOST_GROUPS} requests for all objects; stop one first", code="TARGET_LIMIT"
            )
        return model.search_of_all(names_of_all(request.expression))

    def start(self, group_id: int, camera: str, search: InstanceSearch, listener: Listener | None) -> InstanceGroup:
        """Begin a group; its first search is in the next frame."""
        group = self.by_id[group_id] = InstanceGroup(group_id, camera, ", ".join(search.names), search, listener)
        return group

    def end(self, groups: Iterable[InstanceGroup], reason: EndReason) -> list[int]:
        """End groups and tell who waits for their first target; return their ids."""
        ended = []
        for group in groups:
            del self.by_id[group.id]
            ended.append(group.id)
            if (listener := group.take_listener()) is not None:
                listener(TargetEvent(end=reason))
        return ended

    def newcomers(
        self, camera: str, job: FrameJob, targets: Iterable[Target], room: int
    ) -> Iterator[tuple[InstanceGroup, Newcomer]]:
        """Search a frame for newcomers of all groups of its camera, if it is time.

        Args:
            camera: The camera.
            job: The frame.
            targets: The targets of the camera, with what was seen of them in this frame.
            room: Most newcomers.

        Raises:
            BackendError: The model failed.
        """
        known = dict(_places(targets))
        for group in self.of(camera):
            for newcomer in group.search.look(job.frame, known, room):
                room -= 1
                known[f"new {room}"] = newcomer.name, newcomer.box
                yield group, newcomer

    def restart(self, camera: str) -> None:
        """Search anew after a jump in time."""
        for group in self.of(camera):
            group.search.restart()

    def move_to(self, model: PerceptionModel, groups: Mapping[int, InstanceGroup]) -> None:
        """Take over the groups of another perception, with a model that was loaded anew."""
        for group in groups.values():
            with suppress(ElysiumError):
                if isinstance(model, FindsAll):
                    self.by_id[group.id] = replace(group, search=model.search_of_all(group.search.names))

    def leave(self) -> dict[int, InstanceGroup]:
        """Let go of all groups and return them."""
        groups, self.by_id = self.by_id, {}
        return groups


def _places(targets: Iterable[Target]) -> Iterator[tuple[str, Known]]:
    for target in targets:
        if target.last is not None and target.last.box is not None:
            yield str(target.id), (target.expression, target.last.box)
