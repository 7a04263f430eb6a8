"""What is followed beyond one model: it outlives a jump in time, and a model that is loaded anew. Imports no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field

from elysium_ros.perception.instance_groups import InstanceGroup
from elysium_ros.perception.targets import TargetList
from elysium_ros.perception.types import StartRequest


@dataclass(frozen=True, slots=True)
class StandingRequest:
    """What is searched for again after a jump in time, even if it was lost before.

    Attributes:
        request: What to follow.
        target_id: The target or group that was made for it last.
    """

    request: StartRequest
    target_id: int


@dataclass(frozen=True, slots=True)
class Handover:
    """What a perception that was retired leaves to the next one.

    Attributes:
        targets: What was followed, and whose end was not published yet.
        standing: What is searched for again after a jump in time.
        groups: Requests for all objects of some names, by id.
    """

    targets: TargetList = field(default_factory=TargetList)
    standing: StandingRequest | None = None
    groups: dict[int, InstanceGroup] = field(default_factory=dict)
