"""The services of the node: each checks its request, runs it in the inference thread, and replies, also on failure."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from rclpy.callback_groups import CallbackGroup
from std_srvs.srv import SetBool, Trigger

from elysium_core.errors import ImageError
from elysium_core.frames import Frame
from elysium_core.types import Grounding
from elysium_ros.convert.images import decode_image
from elysium_ros.convert.messages import (
    box_from_message,
    box_to_message,
    is_no_box,
    object_to_message,
    resize,
    stamp_to_ns,
)
from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.executors import SERVICE_QOS, BoundedCallbackGroup
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.publishers import Publishers
from elysium_ros.node.status_reporter import StatusReporter
from elysium_ros.node.target_requests import EventQueue, seconds, start_target
from elysium_ros.perception.answers import check_age, describe_place, describe_scene, describe_target, ground
from elysium_ros.perception.inference import MODEL_TIMEOUT_S, Inference
from elysium_ros.perception.instance_groups import InstanceGroup
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.requests import WorkerError
from elysium_ros.perception.target_events import EndReason, TargetEvent
from elysium_ros.perception.targets import Target
from elysium_ros.perception.types import Answer, Incoming
from elysium_ros.srv import Describe, Ground, StopTracking, Track

# A picture with more pixels is searched at a smaller size; the model sees parts of about 300 px a side.
_LARGEST_PICTURE_PX = 4_000_000

MAX_WAITING_CALLS = 8
"""Calls of ``~/track`` that may wait for a box, and calls of ``~/describe`` and ``~/ground`` that may wait for the
model, at the same time; one more of the former is refused, more of the latter wait their turn."""


class Services:
    """Creates the services on a node.

    Args:
        node: The node.
        inference: Where the work is done.
        cameras: Why images of a camera may be missing.
        publishers: Where descriptions are published.
        status: Where a change of the targets is published.
    """

    def __init__(
        self,
        node: ManagedNode,
        inference: Inference,
        cameras: CameraInputs,
        publishers: Publishers,
        status: StatusReporter,
    ) -> None:
        self._node = node
        self._inference = inference
        self._cameras = cameras
        self._publishers = publishers
        self._status = status
        # A call of ~/track may wait for a box all day. So these calls have a group apart from those that wait for an
        # answer of the model, with room for one more, which replies that all places are taken.
        self._places = threading.BoundedSemaphore(MAX_WAITING_CALLS)
        tracking, asking = BoundedCallbackGroup(MAX_WAITING_CALLS + 1), BoundedCallbackGroup(MAX_WAITING_CALLS)
        quick = BoundedCallbackGroup(2)
        self._decoding = threading.Lock()
        _create(node, Track, "track", self._track, tracking)
        _create(node, Describe, "describe", self._describe, asking)
        _create(node, Ground, "ground", self._ground, asking)
        _create(node, StopTracking, "stop", self._stop, quick)
        _create(node, SetBool, "pause", self._pause, quick)
        _create(node, Trigger, "reset", self._reset, quick)

    def _track(self, request: Track.Request, response: Track.Response) -> Track.Response:
        wait_s = seconds(request.wait_timeout, "wait_timeout")
        if wait_s > 0 and not self._places.acquire(blocking=False):
            raise WorkerError(
                f"{MAX_WAITING_CALLS} calls of ~/track are waiting for their box already; "
                "call without wait_timeout, or later",
                code="BUSY",
            )
        queue = EventQueue(self._node)
        try:
            target = start_target(self._inference, request, request.add, queue)
            self._status.publish_status()
            response.id = int(target.id)
            response.success, response.message = True, _started(target)
            if wait_s > 0:
                self._wait_for_box(target, queue, wait_s, response)
        finally:
            queue.close()
            if wait_s > 0:
                self._places.release()
        return response

    def _wait_for_box(
        self, target: Target | InstanceGroup, queue: EventQueue, wait_s: float, response: Track.Response
    ) -> None:
        end_s = time.monotonic() + wait_s
        last: TargetEvent | None = None
        while (event := queue.get(end_s)) is not None:
            if event.end is not None:
                response.success, response.message = False, _ended(target, event.end)
                return
            last = event
            _fill_object(event, response)
            if event.view is not None and event.view.update.box is not None:
                if words := event.view.update.described:
                    response.message += f", followed by the words {words!r}"
                return
        response.success = False
        response.message = self._why_no_box(target, last, wait_s)

    def _why_no_box(self, target: Target | InstanceGroup, last: TargetEvent | None, wait_s: float) -> str:
        going_on = f"the search goes on as target {target.id}, ~/stop ends it"
        if last is None and self._inference.state().paused:
            return f"PAUSED: inference is paused; {going_on}"
        health = self._cameras.health(target.camera)
        if last is None and health.refused:
            return f"{health.refusal_code}: {health.refusal_text}; {going_on}"
        if last is None and health.received and health.silence_s < wait_s:
            return f"TIMEOUT: images arrive, but the model gave no answer within {wait_s:g} s; {going_on}"
        if last is None:
            return f"NO_IMAGE: {self._cameras.hint(target.camera)}; {going_on}"
        reason = last.view.update.reason if last.view is not None else ""
        return f"NOT_FOUND: no box within {wait_s:g} s{f' ({reason})' if reason else ''}; {going_on}"

    def _stop(self, request: StopTracking.Request, response: StopTracking.Response) -> StopTracking.Response:
        target_id, camera = int(request.id), str(request.camera)
        stopped = self._inference.call(lambda perception: perception.stop(target_id, camera))
        self._status.publish_status()
        response.success, response.stopped_ids = True, stopped
        response.message = f"stopped {', '.join(map(str, stopped))}" if stopped else "nothing was followed"
        return response

    def _describe(self, request: Describe.Request, response: Describe.Response) -> Describe.Response:
        timeout_s = seconds(request.timeout, "timeout") or MODEL_TIMEOUT_S
        answer = self._inference.ask(partial(_answer, request), timeout_s)
        response.description = self._publishers.publish_description(answer)
        response.success, response.message = True, _age(answer.image)
        return response

    def _ground(self, request: Ground.Request, response: Ground.Response) -> Ground.Response:
        timeout_s = seconds(request.timeout, "timeout") or MODEL_TIMEOUT_S
        given = self._given_picture(request)
        search = partial(_search, request, given)
        found, frame, image, least = self._inference.ask(search, timeout_s)
        response.header = request.image.header if image is None else image.payload.header
        if found.box is None:
            response.message = "NOT_FOUND: the model's answer has no box"
            return response
        response.success, response.message = True, "" if image is None else _age(image)
        if not found.is_sure(least):
            response.success = False
            response.message = (
                f"NOT_SURE: the best box scores {found.score:.2f}, below tracking.score_threshold {least:g}"
            )
        # A large picture was searched at a smaller size.
        width, height = (request.image.width, request.image.height) if given else (frame.width, frame.height)
        response.boxes = [box_to_message(found.box, width, height)]
        response.scores = [float(found.score)]
        return response

    def _given_picture(self, request: Ground.Request) -> Frame | None:
        """Decode the picture of a request here, so that the inference thread need not; None if there is none."""
        message = request.image
        if len(message.data) == 0:
            if message.width or message.height:
                raise ImageError("the image has a size but no data; leave it out to search the newest one")
            return None
        with self._decoding:  # one at a time: each takes several hundred megabytes at most
            picture = decode_image(message)
            scale = math.sqrt(_LARGEST_PICTURE_PX / max(1, picture.shape[0] * picture.shape[1]))
            if scale < 1:
                picture = resize(picture, max(1, int(message.width * scale)), max(1, int(message.height * scale)))
        return Frame(picture, stamp_to_ns(message.header.stamp))

    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._inference.pause(bool(request.data))
        self._status.publish_status()
        response.success, response.message = True, "paused" if request.data else "running"
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        count = self._inference.call(lambda perception: perception.reset(EndReason.RESET))
        self._status.publish_status()
        response.success, response.message = True, f"{count} targets ended and all images forgotten"
        return response


def _create(
    node: ManagedNode, service_type: Any, name: str, callback: Callable[..., Any], group: CallbackGroup
) -> None:
    guarded = node.guard.service(callback)
    node.create_service(service_type, f"~/{name}", guarded, qos_profile=SERVICE_QOS, callback_group=group)


def _answer(request: Describe.Request, perception: Perception) -> Answer:
    model, zoom, max_age_s = perception.model, perception.config.zoom, perception.max_answer_age_s
    if request.id:
        target = perception.target(int(request.id))
        stream = perception.stream(target.camera)
        return describe_target(model, stream, target, request.question, zoom=zoom, max_age_s=max_age_s)
    stream = perception.stream(request.camera)
    if is_no_box(request.box):
        return describe_scene(model, stream, request.question, max_age_s=max_age_s)
    place = partial(box_from_message, request.box)
    return describe_place(model, stream, place, request.question, zoom=zoom, max_age_s=max_age_s)


def _search(
    request: Ground.Request, given: Frame | None, perception: Perception
) -> tuple[Grounding, Frame, Incoming | None, float]:
    image, frame, stream = None, given, None
    if frame is None:
        stream = perception.stream(request.camera)
        image = check_age(stream.remembered(0), perception.max_answer_age_s)
        frame = stream.frame_of(image)
    with nullcontext() if stream is None else stream.unbroken():
        found = ground(perception.model, frame, request.expression, zoom=perception.config.zoom)
    return found, frame, image, perception.config.score_threshold


def _age(image: Incoming) -> str:
    return f"from the image that arrived {time.monotonic() - image.arrived_s:.2f} s ago"


def _fill_object(event: TargetEvent, response: Track.Response) -> None:
    if event.image is not None and event.view is not None:
        response.header = event.image.payload.header
        response.object = object_to_message(event.view, event.width, event.height)


def _started(target: Target | InstanceGroup) -> str:
    if isinstance(target, InstanceGroup):
        return f"following all objects of {target.expression!r} for request {target.id}, ~/stop with this id ends it"
    return f"following {target.expression!r} as target {target.id}" if target.expression else f"target {target.id}"


def _ended(target: Target | InstanceGroup, end: EndReason) -> str:
    codes = {EndReason.LOST: "NOT_FOUND", EndReason.INACTIVE: "NOT_ACTIVE"}
    return f"{codes.get(end, end.name)}: target {target.id} is no longer followed: {end.value}"
