"""What is done with images and targets: the part of the node that uses the model. Knows no ROS.

Everything here runs in the inference thread (:mod:`elysium_ros.perception.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from elysium_core.errors import ElysiumError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import PerceptionModel, Tracker, TrackingConfig, TrackState, TrackUpdate
from elysium_ros.perception.camera_stream import CameraStream, Decode, Seen
from elysium_ros.perception.mailbox import Delivery, Incoming, Mailbox
from elysium_ros.perception.targets import EndReason, Listener, ObjectView, Sight, Target, TargetEvent

Place = Callable[[int, int], Box]
"""Says where a box is in a frame of a width and height [px]; raises ``BoxError``."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What is known after one frame.

    Attributes:
        image: The image.
        frame: What it decoded to.
        views: All targets of that camera.
        skipped: Images that arrived and were not looked at since the result before.
        wait_s: Time from the image's arrival until it was taken [s].
        decode_s: Time of decoding it [s].
        encode_s: Time of the vision encoder, over all trackers with targets [s].
        generate_s: Time of the language model, over all trackers with targets [s].
    """

    image: Incoming
    frame: Frame
    views: tuple[ObjectView, ...]
    skipped: int = 0
    wait_s: float = 0.0
    decode_s: float = 0.0
    encode_s: float = 0.0
    generate_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to follow.

    Attributes:
        camera: In which camera.
        expression: Words, may be empty if there is a place.
        place: Where it is, None to search by words.
        stamp_ns: Stamp of the image that ``place`` is about [ns]; 0 = the newest.
        add: Follow it beside that camera's targets instead of replacing them.
    """

    camera: str
    expression: str = ""
    place: Place | None = None
    stamp_ns: int = 0
    add: bool = False


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the node does with what happens here.

    Attributes:
        decode: Decodes an image.
        on_result: Hears of every frame.
        report: Counts and logs a failure of the model or of an image; returns the sentence for a person, which
            starts with the code.
    """

    decode: Decode
    on_result: Callable[[FrameResult], None]
    report: Callable[[Exception], str]


@dataclass(slots=True)
class _Counters:
    failures: int = 0
    failures_in_a_row: int = 0
    retired_parse_failures: int = 0
    last_failure: str = field(default="")


class Perception:
    """Follows targets in the images of all cameras with one model.

    Args:
        model: The model.
        config: Settings of tracking.
        mailboxes: One for each camera.
        ids: Where the ids of targets come from.
        hooks: See :class:`Hooks`.
    """

    def __init__(
        self,
        model: PerceptionModel,
        config: TrackingConfig,
        mailboxes: Iterable[Mailbox],
        ids: Iterator[int],
        hooks: Hooks,
    ) -> None:
        self.model = model
        self._config = config
        self._ids = ids
        self._hooks = hooks
        self._targets: dict[int, Target] = {}
        self._farewells: dict[str, list[tuple[Target, EndReason]]] = {}
        self._counters = _Counters()
        self._streams = {
            mailbox.camera: CameraStream(mailbox, self._new_tracker, hooks.decode) for mailbox in mailboxes
        }

    @property
    def config(self) -> TrackingConfig:
        """Settings of tracking."""
        return self._config

    @property
    def active_ids(self) -> list[int]:
        """Ids of the targets that are followed or searched for, ascending; may be read from any thread."""
        return sorted(self._targets.copy())

    @property
    def failures(self) -> int:
        """Frames that the model failed on."""
        return self._counters.failures

    @property
    def standing_failure(self) -> str:
        """Why the model failed on the newest frame; empty if it did not."""
        return self._counters.last_failure if self._counters.failures_in_a_row else ""

    @property
    def parse_failures(self) -> int:
        """Answers of the model without a usable box."""
        live = [tracker for stream in self._streams.values() for tracker in stream.trackers]
        return self._counters.retired_parse_failures + sum(map(_parse_failures, live))

    def stream(self, camera: str) -> CameraStream:
        """Return the stream of a camera, of the first one for ``""``.

        Raises:
            TargetError: There is no such camera.
        """
        if camera in self._streams:
            return self._streams[camera]
        if not camera:
            return next(iter(self._streams.values()))
        known = ", ".join(repr(name) for name in self._streams)
        raise TargetError(f"there is no camera {camera!r}; there is {known}", code="CAMERA_UNKNOWN")

    def target(self, target_id: int) -> Target:
        """Return a target that is followed.

        Raises:
            TargetError: There is none with this id.
        """
        if target_id in self._targets:
            return self._targets[target_id]
        known = ", ".join(map(str, self.active_ids)) or "none"
        raise TargetError(f"there is no target {target_id}; followed are: {known}", code="TARGET_UNKNOWN")

    def targets(self, camera: str = "") -> list[Target]:
        """Return the targets of a camera, of all cameras for ``""``, by id."""
        return [t for _, t in sorted(self._targets.items()) if not camera or t.camera == camera]

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next frame on."""
        self._config = config
        for stream in self._streams.values():
            for tracker in stream.trackers:
                tracker.configure(config)

    def start(self, request: StartRequest, listener: Listener | None = None) -> Target:
        """Start following something.

        Args:
            request: What.
            listener: Hears of every frame from the first on, and of the end.

        Raises:
            ExpressionError, BoxError, ImageError, TargetError: The request cannot be followed; the other targets
                are followed as before.
        """
        stream = self.stream(request.camera)
        words = self.model.clean_words(request.expression) if request.expression or request.place is None else ""
        place = None if request.place is None else self._find_place(stream, request.place, request.stamp_ns)
        replaced = [] if request.add else self.targets(stream.camera)
        self._check_room(len(replaced))
        for target in replaced:
            self._end(target, EndReason.REPLACED)
        tracker = stream.trackers[0] if place is None else stream.tracker_at(place.image)
        tracker_id = tracker.add(words, None if place is None else place.box)
        target = Target(next(self._ids), stream.camera, words, tracker, tracker_id, sight=place)
        if listener is not None:
            target.listeners.append(listener)
        self._targets[target.id] = target
        return target

    def stop(self, target_id: int, camera: str = "") -> list[int]:
        """Stop one target, or all (of a camera) for id 0; return the ids, ascending.

        Raises:
            TargetError: There is no such target or camera.
        """
        if camera:
            self.stream(camera)
        chosen = self.targets(camera) if target_id == 0 else [self.target(target_id)]
        if camera and any(target.camera != camera for target in chosen):
            raise TargetError(
                f"target {target_id} is not in camera {camera!r} but in {chosen[0].camera!r}", code="TARGET_UNKNOWN"
            )
        for target in chosen:
            self._end(target, EndReason.STOPPED)
        return [target.id for target in chosen]

    def reset(self, reason: EndReason) -> int:
        """End all targets and forget all images; return how many targets there were."""
        count = len(self._targets)
        for stream in self._streams.values():
            stream.mailbox.clear()
            self._restart(stream, reason)
        return count

    def look_at(self, delivery: Delivery) -> None:
        """Have the trackers of a camera see its next image, and publish what they say."""
        stream, image = self._streams[delivery.image.camera], delivery.image
        stream.skipped += delivery.skipped
        if not stream.is_new(image):
            return
        if image.epoch != stream.epoch:
            stream.epoch = image.epoch
            self._restart(stream, EndReason.TIME_JUMP)
        try:
            seen = stream.begin(image)
        except ElysiumError as error:
            self._hooks.report(error)
            return
        busy = [tracker for tracker in stream.trackers if tracker.target_ids]
        updates = [(t, update) for t in stream.trackers for update in self._step(t, seen.frame)]
        self._finish(stream, seen, updates, busy)
        self._retire(stream.drop_idle_trackers())

    def _step(self, tracker: Tracker, frame: Frame) -> list[TrackUpdate]:
        try:
            updates = tracker.step(frame)
        except Exception as error:  # noqa: BLE001 - whatever a model raises costs this frame and no more
            self._count_failure(error)
            ours = [target for target in self._targets.values() if target.tracker is tracker]
            return [target.failed(frame, self._counters.last_failure) for target in ours]
        failure = tracker.stats.failure
        if failure is None:
            self._counters.failures_in_a_row = 0
        else:
            self._count_failure(failure)
        return updates

    def _count_failure(self, error: Exception) -> None:
        self._counters.failures += 1
        self._counters.failures_in_a_row += 1
        self._counters.last_failure = self._hooks.report(error)

    def _finish(
        self, stream: CameraStream, seen: Seen, updates: list[tuple[Tracker, TrackUpdate]], busy: list[Tracker]
    ) -> None:
        """Turn the updates of one frame into the node's terms, publish them, and tell the listeners."""
        events = [event for event in (self._take_update(seen, *pair) for pair in updates) if event is not None]
        bye = self._farewells.pop(stream.camera, [])
        departed = [t.view(t.farewell(reason, seen.frame.index, seen.image.stamp_ns)) for t, reason in bye]
        views = tuple(departed) + tuple(view for _, view in events)
        skipped, stream.skipped = stream.skipped, 0
        result = FrameResult(
            seen.image,
            seen.frame,
            views,
            skipped,
            wait_s=seen.taken_s - seen.image.arrived_s,
            decode_s=seen.decode_s,
            encode_s=sum(tracker.stats.encode_s for tracker in busy),
            generate_s=sum(tracker.stats.generate_s for tracker in busy),
        )
        self._hooks.on_result(result)
        for target, view in events:
            target.tell(TargetEvent(seen.image, seen.frame.width, seen.frame.height, view))
            if view.update.state is TrackState.REMOVED:
                target.tell(TargetEvent(end=EndReason.LOST if target.sight else EndReason.NOT_FOUND))

    def _take_update(self, seen: Seen, tracker: Tracker, update: TrackUpdate) -> tuple[Target, ObjectView] | None:
        owners = (t for t in self._targets.values() if t.tracker is tracker and t.tracker_id == update.target_id)
        target = next(owners, None)
        if target is None:
            return None  # it has had its farewell
        target.last = replace(update, target_id=str(target.id))
        if update.box is not None:
            target.sight = Sight(seen.image, seen.frame, update.box)
        if update.state is TrackState.REMOVED:
            del self._targets[target.id]
        return target, target.view(target.last)

    def _find_place(self, stream: CameraStream, place: Place, stamp_ns: int) -> Sight:
        """Find the image that a box is about, see it first if it is new, and put the box into it."""
        image = stream.remembered(stamp_ns)
        frame = stream.frame_of(image)
        box = place(frame.width, frame.height)
        if stream.is_new(image):
            self.look_at(Delivery(image, 0))
        return Sight(image, frame, box)

    def _check_room(self, leaving: int) -> None:
        limit = self._config.max_targets
        if len(self._targets) - leaving >= limit:
            raise TargetError(
                f"there are already {limit} targets (tracking.max_objects); stop one first", code="TARGET_LIMIT"
            )

    def _end(self, target: Target, reason: EndReason) -> None:
        del self._targets[target.id]
        if target.tracker_id in target.tracker.target_ids:
            target.tracker.remove(target.tracker_id)
        self._farewells.setdefault(target.camera, []).append((target, reason))
        target.tell(TargetEvent(end=reason))

    def _restart(self, stream: CameraStream, reason: EndReason) -> None:
        for target in self.targets():
            if target.camera == stream.camera:
                self._end(target, reason)
        self._retire(stream.restart())

    def _retire(self, trackers: list[Tracker]) -> None:
        self._counters.retired_parse_failures += sum(map(_parse_failures, trackers))

    def _new_tracker(self) -> Tracker:
        return self.model.tracker(self._config.mode, self._config)


def _parse_failures(tracker: Any) -> int:
    # Copied first: status messages are made in another thread while the tracker counts.
    return sum(list(tracker.stats.parse_failures.values()))
