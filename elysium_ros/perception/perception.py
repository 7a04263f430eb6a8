"""Follows targets in the images of all cameras with one model. Imports no ROS.

Everything here runs in the inference thread (:mod:`elysium_ros.perception.worker`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from elysium_core.errors import ElysiumError, TargetError
from elysium_core.settings import TrackingConfig
from elysium_core.types import PerceptionModel, Tracker, TrackState
from elysium_ros.perception.answers import DescriptionSchedule, describe_target
from elysium_ros.perception.camera import CameraStream, Mailbox
from elysium_ros.perception.handover import Handover, StandingRequest
from elysium_ros.perception.instance_groups import InstanceGroup, InstanceGroups, names_of_all
from elysium_ros.perception.requests import Question, TakeBreak
from elysium_ros.perception.target_events import EndReason, Listener
from elysium_ros.perception.targets import Sight, Target, TargetList
from elysium_ros.perception.types import FrameJob, Incoming, InferenceSettings, Outputs, Place, StartRequest
from elysium_ros.perception.waiting_frames import Followed, WaitingFrames

AUTOMATIC_PERIOD_S = 10.0
"""Time between two descriptions of one target by a model that can describe, unless it is set [s]."""

Result = TypeVar("Result")


class Perception:
    """The targets of all cameras, from activation to deactivation.

    Attributes:
        model: The model.
        failures: Frames that the model failed on.
        standing_failure: Why the model failed on the newest frame; empty if it did not.

    Args:
        model: The model.
        settings: Its tracking and description settings are used here.
        mailboxes: One for each camera.
        ids: Where the ids of targets come from.
        outputs: Where results go.
    """

    def __init__(
        self,
        model: PerceptionModel,
        settings: InferenceSettings,
        mailboxes: Iterable[Mailbox],
        ids: Iterator[int],
        outputs: Outputs,
    ) -> None:
        self.model = model
        self.failures = 0
        self.standing_failure = ""
        self._settings = settings
        self._schedule = DescriptionSchedule()
        self._ids = ids
        self._outputs = outputs
        self._targets = TargetList()
        self._groups = InstanceGroups()
        self._retired = False
        self._standing: StandingRequest | None = None
        self._streams = {
            mailbox.camera: CameraStream(mailbox, lambda: model.tracker(self.config.mode, self.config))
            for mailbox in mailboxes
        }
        self._waiting = {camera: WaitingFrames() for camera in self._streams}

    @property
    def config(self) -> TrackingConfig:
        """Settings of tracking."""
        return self._settings.tracking

    @property
    def max_answer_age_s(self) -> float:
        """Questions about an image that arrived longer ago are refused [s]; 0 = never."""
        return self._settings.max_answer_age_s

    @property
    def active_ids(self) -> list[int]:
        """Ids of what is followed or searched for, groups included, ascending; may be read from any thread."""
        return sorted([*self._targets.ids, *self._groups.ids])

    @property
    def parse_failures(self) -> int:
        """Answers of the model without a usable box; may be read from any thread."""
        return sum(stream.parse_failures for stream in self._streams.values())

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
        if (target := self._targets.get(target_id)) is not None:
            return target
        known = ", ".join(map(str, self.active_ids)) or "none"
        raise TargetError(f"there is no target {target_id}; followed are: {known}", code="TARGET_UNKNOWN")

    def targets(self, camera: str = "") -> list[Target]:
        """Return the targets of a camera, of all cameras for ``""``, by id."""
        return self._targets.of(camera)

    def configure(self, settings: InferenceSettings) -> None:
        """Take new settings of tracking and descriptions from the next frame on."""
        self._settings = settings
        for stream in self._streams.values():
            for tracker in stream.trackers:
                tracker.configure(settings.tracking)

    def start(self, request: StartRequest, listener: Listener | None = None) -> Target | InstanceGroup:
        """Start following something.

        Args:
            request: What.
            listener: Called with every frame from the first on, and with the end.

        Returns:
            The target; for a request such as ``{person, dog}`` the group, whose targets come by themselves.

        Raises:
            ExpressionError, BoxError, ImageError, TargetError: The request cannot be followed; the other targets
                are followed as before.
        """
        stream = self.stream(request.camera)
        camera = stream.mailbox.camera
        if names_of_all(request.expression):
            search = self._groups.prepare(self.model, request, self.config.mode)
            self._replace(stream, request)
            self._targets.note_change()
            return self._groups.start(next(self._ids), camera, search, listener)
        words = self.model.clean_words(request.expression) if request.expression or request.place is None else ""
        place = None if request.place is None else self._find_place(stream, request.place, request.stamp_ns)
        self._check_room(0 if request.add else len(self._targets.of(camera)))
        self._replace(stream, request)
        tracker = stream.trackers[0] if place is None else stream.tracker_at(place.image)
        tracker_id = tracker.add(words, None if place is None else place.box)
        target = Target(next(self._ids), camera, words, tracker, tracker_id, place)
        if listener is not None:
            target.listen(listener)
        self._targets.add(target)
        return target

    def _replace(self, stream: CameraStream, request: StartRequest) -> None:
        """End what a request takes the place of."""
        if request.add:
            return
        camera = stream.mailbox.camera
        self._groups.end(self._groups.of(camera), EndReason.REPLACED)
        for target in self._targets.of(camera):
            self._targets.end(target, EndReason.REPLACED)
        if self._stands(stream):
            self._standing = None

    def start_standing(self, request: StartRequest) -> Target | InstanceGroup:
        """Start following something that is searched for again after a jump in time, even if it was lost before.

        A target that is started instead of it, and the end of it by a request, end that.

        Raises:
            ExpressionError, ImageError, TargetError: As for :meth:`start`.
        """
        target = self.start(request)
        self._standing = StandingRequest(request, target.id)
        return target

    def stop(self, target_id: int, camera: str = "") -> list[int]:
        """Stop one target, or all (of a camera) for id 0; return the ids, ascending.

        Raises:
            TargetError: There is no such target or camera.
        """
        if camera:
            self.stream(camera)
        if target_id in self._groups:
            chosen = [target for target in self.targets(camera) if target.group_id == target_id]
            groups = [group for group in self._groups.of(camera) if group.id == target_id]
        else:
            chosen = self.targets(camera) if target_id == 0 else [self.target(target_id)]
            groups = self._groups.of(camera) if target_id == 0 else []
        if camera and any(target.camera != camera for target in chosen):
            raise TargetError(
                f"target {target_id} is not in camera {camera!r} but in {chosen[0].camera!r}", code="TARGET_UNKNOWN"
            )
        for target in chosen:
            self._targets.end(target, EndReason.STOPPED)
        standing = self._standing
        is_meant = standing is not None and target_id in (0, standing.target_id)
        if is_meant and (not camera or self._stands(self.stream(camera))):
            self._standing = None
        return sorted([*self._groups.end(groups, EndReason.STOPPED), *(target.id for target in chosen)])

    def reset(self, reason: EndReason) -> int:
        """End all targets and forget all images; return how many targets there were."""
        count = len(self._targets)
        self._standing = None
        for stream in self._streams.values():
            stream.mailbox.clear()
            self._restart(stream, reason, stream.epoch)
        return count

    def retire(self) -> Handover:
        """Let go of all targets without the inference thread, whose model hangs or has failed.

        Nothing that the model still does has an effect from now on. May be called from any thread.

        Returns:
            What another perception goes on with.
        """
        self._retired = True
        return Handover(self._targets.leave(), self._standing, self._groups.leave())

    def succeed(self, left: Handover) -> None:
        """Go on with what another perception has left: targets with words are searched for again, others end."""
        self._targets, self._standing = left.targets, left.standing
        self._groups.move_to(self.model, left.groups)
        for target in self._targets.of():
            self._search_again(target, EndReason.MODEL_FAILED)

    def look_at(self, image: Incoming) -> None:
        """Run the trackers of a camera on its next image and publish the result."""
        stream = self._streams[image.camera]
        if image.number <= stream.last_number:
            return  # a box was drawn on it before its turn came
        if image.epoch != stream.epoch:
            self._restart(stream, EndReason.TIME_JUMP, image.epoch)
        try:
            job = stream.begin(image)
        except ElysiumError as error:
            if self._retired:
                return
            stream.mailbox.record.image_refused(self._outputs.report(error))
            return
        self._follow(stream.trackers, job)
        if len(stream.trackers) > 1:
            stream.drop_idle_trackers()
        if self._groups.by_id:
            self._find_newcomers(stream, job)

    def report(self, error: Exception) -> None:
        """Count and log a failure that no caller waits for."""
        if not self._retired:
            self._outputs.report(error)

    def ask(self, question: Callable[[Perception], Result], take_break: TakeBreak) -> Result:
        """Have the model answer something that takes long.

        Args:
            question: The question.
            take_break: What is done between the parts of the answer.

        Raises:
            Exception: Any that ``question`` or ``take_break`` raises.
        """
        with self.model.interrupted_by(take_break):
            return question(self)

    def next_question(self) -> Question[object] | None:
        """Return a description that is due by now; None if there is none."""
        period_s = self._settings.describe_period_s
        if period_s < 0:
            period_s = 0.0 if self.model.info.describes == "none" else AUTOMATIC_PERIOD_S
        if period_s == 0 or self._retired:
            return None
        target = self._schedule.next(self.targets(), period_s, time.monotonic())
        return None if target is None else partial(self.ask, partial(_describe, target))

    def describe(self, target: Target) -> None:
        """Describe a target and publish the text, if it is still followed."""
        if self._targets.get(target.id) is not target:
            return
        answer = describe_target(self.model, self._streams[target.camera], target, zoom=self.config.zoom)
        if not self._retired:
            self._outputs.publish_description(answer)

    def _follow(self, trackers: Sequence[Tracker], job: FrameJob) -> None:
        """Run the trackers of a camera on a decoded image, publish the result, and pass it to listeners."""
        waiting = self._waiting[job.image.camera] if self.config.mode == "paper" else None
        if waiting is not None:
            waiting.add(job)
        followed: list[Followed] = []
        encode_s = generate_s = 0.0
        for tracker in trackers:
            reported = self._step(tracker, job, waiting)
            if reported:
                stats = tracker.stats
                encode_s, generate_s = encode_s + stats.encode_s, generate_s + stats.generate_s
            followed += reported
        if self._retired:
            return
        timed = replace(job, encode_s=encode_s, generate_s=generate_s)
        if waiting is None:
            self._publish(timed, followed)
            return
        self._streams[job.image.camera].mailbox.record.wait_anew()  # no result is due yet of a frame that waits
        for each, own in waiting.ready(followed, trackers):
            # The times are those of the whole clip; the newest frame has them.
            self._publish(timed if each is job else each, own)

    def _publish(self, job: FrameJob, followed: list[Followed]) -> None:
        """Publish a finished frame and pass it to listeners."""
        mailbox, settings = self._streams[job.image.camera].mailbox, self._settings.depth
        mailbox.record.image_answered()
        ended, changed = self._targets.take_news(job)
        if mailbox.depth is not None and settings is not None:
            located = mailbox.depth.locate(job, (view for _, view in followed), settings, self._outputs.report)
            followed = [(target, view) for (target, _), view in zip(followed, located, strict=True)]
        views = ended + [view for _, view in followed]
        self._outputs.publish(replace(job, views=tuple(views), targets_changed=changed))
        for target, view in followed:
            target.tell(job, view)

    def _find_newcomers(self, stream: CameraStream, job: FrameJob) -> None:
        """Start to follow what the groups of a camera find in a frame; it is published from the next frame on."""
        camera, tracker = stream.mailbox.camera, stream.trackers[0]
        room = self.config.max_targets - len(self._targets)
        try:
            for group, found in self._groups.newcomers(camera, job, self._targets.of(camera), room):
                if self._retired:
                    return
                sight = Sight(job.image, job.frame, found.box)
                tracker_id = tracker.add(box=found.box)
                target = Target(next(self._ids), camera, found.name, tracker, tracker_id, sight, group.id)
                if (listener := group.take_listener()) is not None:
                    target.listen(listener)
                self._targets.add(target)
        except ElysiumError as error:
            self._count_failure(error)

    def _step(self, tracker: Tracker, job: FrameJob, waiting: WaitingFrames | None) -> list[Followed]:
        """Run one tracker on a frame; return its targets with their views."""
        owners = self._targets.by_tracker_id(tracker)
        try:
            updates = tracker.step(job.frame)
        except Exception as error:  # noqa: BLE001 - an exception of the model must cost no more than this frame
            if self._retired:
                return []
            self._count_failure(error)
            updates = [target.failed(job.frame, self.standing_failure) for target in owners.values()]
        else:
            failure = tracker.stats.failure
            if failure is None:
                self.standing_failure = ""
            else:
                self._count_failure(failure)
        if self._retired:
            return []
        followed = []
        for update in updates:
            target = owners.get(update.target_id)
            if target is None:
                continue  # it has had its farewell
            about = job if waiting is None else waiting.job_of(update.frame_index)
            followed.append((target, target.take(update, about)))
            if update.state is TrackState.REMOVED:
                self._targets.remove(target)
        return followed

    def _count_failure(self, error: Exception) -> None:
        self.failures += 1
        self.standing_failure = self._outputs.report(error)

    def _find_place(self, stream: CameraStream, place: Place, stamp_ns: int) -> Sight:
        """Find the image that a box is about, see it first if it is new, and put the box into it."""
        image = stream.remembered(stamp_ns)
        frame = stream.frame_of(image)
        box = place(frame.width, frame.height)
        self.look_at(image)
        return Sight(image, frame, box)

    def _check_room(self, leaving: int) -> None:
        limit = self.config.max_targets
        if len(self._targets) - leaving >= limit:
            raise TargetError(
                f"there are already {limit} targets (tracking.max_objects); stop one first", code="TARGET_LIMIT"
            )

    def _restart(self, stream: CameraStream, reason: EndReason, epoch: int) -> None:
        """Forget the images of a camera; after a jump in time, go on searching for what was given in words."""
        camera = stream.mailbox.camera
        stream.restart(epoch)
        self._waiting[camera].clear()
        if reason is EndReason.TIME_JUMP:
            self._groups.restart(camera)
        else:
            self._groups.end(self._groups.of(camera), reason)
        for target in self._targets.of(camera):
            if reason is EndReason.TIME_JUMP:
                self._search_again(target, reason)
            else:
                self._targets.dismiss(target, reason)
        standing = self._standing
        if standing is not None and self._stands(stream) and standing.target_id not in self.active_ids:
            self.start_standing(replace(standing.request, add=True))

    def _search_again(self, target: Target, reason: EndReason) -> None:
        if target.group_id:  # its group finds it again
            self._targets.dismiss(target, reason)
            return
        tracker = self._streams[target.camera].trackers[0]
        try:
            target.search_again(tracker, tracker.add(target.expression))
        except ElysiumError:  # it was given by a box alone, or there is no room any more
            self._targets.dismiss(target, reason)

    def _stands(self, stream: CameraStream) -> bool:
        """Say whether the standing request is about this camera."""
        return self._standing is not None and self.stream(self._standing.request.camera) is stream


def _describe(target: Target, perception: Perception) -> None:
    perception.describe(target)
