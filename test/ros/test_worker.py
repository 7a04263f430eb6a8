"""Mailboxes, the inference thread, and what it does with targets: all without ROS, with deadlines instead of sleeps."""

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import BoxError, ExpressionError, ImageError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.config import TrackingConfig
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.tracking.types import TrackState
from elysium_ros.answers import describe_place, describe_scene, describe_target, ground, next_due
from elysium_ros.guard import EventLog, Guard
from elysium_ros.mailbox import TIME_JUMP_NS, Delivery, Mailbox, Verdict
from elysium_ros.perception import Hooks, Perception, StartRequest
from elysium_ros.runtime import Runtime
from elysium_ros.targets import EndReason
from elysium_ros.worker import MAX_REQUESTS, Worker, WorkerError

SECOND = 1_000_000_000


def until(condition, timeout_s=5.0):
    """Poll until something is true; the test fails if it does not become so."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        threading.Event().wait(0.002)


# --- mailbox ---


def test_the_newest_image_wins_and_the_others_are_counted():
    mailbox = Mailbox("front", 4)
    for stamp in (1, 2, 3):
        assert mailbox.put(stamp, f"image {stamp}", 10) is Verdict.KEPT
    delivery = mailbox.take()
    assert (delivery.image.payload, delivery.skipped) == ("image 3", 2)
    assert mailbox.take() is None
    assert (mailbox.received, mailbox.dropped) == (3, 2)


@pytest.mark.parametrize("stamp", [5, 4])
def test_an_equal_or_older_stamp_is_dropped(stamp):
    mailbox = Mailbox("", 4)
    mailbox.put(5, "first", 1)
    assert mailbox.put(stamp, "late", 1) is Verdict.OUT_OF_ORDER
    delivery = mailbox.take()
    assert (delivery.image.payload, delivery.skipped) == ("first", 1)


def test_a_jump_back_in_time_starts_a_new_epoch_and_forgets_the_images():
    mailbox = Mailbox("", 4)
    mailbox.put(TIME_JUMP_NS + 9, "before", 1)
    assert mailbox.put(8, "after", 1) is Verdict.TIME_JUMP
    assert [image.payload for image in mailbox.recent()] == ["after"]
    assert mailbox.take().image.epoch == 1
    assert mailbox.put(9, "next", 1) is Verdict.KEPT


def test_images_without_a_stamp_are_all_taken():
    mailbox = Mailbox("", 4)
    assert [mailbox.put(0, n, 1) for n in range(3)] == [Verdict.KEPT] * 3
    assert mailbox.take().image.payload == 2


def test_the_memory_is_bounded_by_number_and_by_bytes():
    mailbox = Mailbox("", 3)
    for stamp in range(1, 6):
        mailbox.put(stamp, stamp, 1)
    assert [image.payload for image in mailbox.recent()] == [3, 4, 5]
    assert mailbox.find(4).payload == 4
    assert mailbox.find(1) is None
    mailbox.put(6, "huge", 10**9)
    assert [image.payload for image in mailbox.recent()] == ["huge"]


@given(st.lists(st.one_of(st.integers(0, 5 * SECOND), st.sampled_from(["take", "refuse"])), max_size=40))
def test_every_image_is_delivered_skipped_or_waiting(steps):
    mailbox = Mailbox("", 3)
    delivered = skipped = 0
    numbers = []
    for step in steps:
        if step == "take":
            if delivery := mailbox.take():
                delivered += 1
                skipped += delivery.skipped
                numbers.append(delivery.image.number)
        elif step == "refuse":
            mailbox.refuse()
        else:
            mailbox.put(step, None, 1)
    if delivery := mailbox.take():
        delivered += 1
        skipped += delivery.skipped
    assert numbers == sorted(set(numbers))
    assert mailbox.received == delivered + mailbox.dropped
    assert skipped <= mailbox.dropped


# --- inference thread ---


@pytest.fixture
def start():
    """Start workers whose threads end with the test."""
    workers = []

    def start(on_image=lambda delivery: None, on_failure=lambda error: None):
        workers.append(Worker(on_image, on_failure))
        workers[-1].start()
        return workers[-1]

    yield start
    assert all(worker.stop(5.0) for worker in workers)


def put(worker, mailbox, stamp):
    mailbox.put(stamp, stamp, 1)
    worker.notify()


def test_a_request_runs_in_the_thread_and_gives_its_result_or_its_error(start):
    worker = start()
    assert worker.call(lambda: threading.current_thread().name, 5.0) == "elysium_inference"
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0, 5.0)
    with pytest.raises(TimeoutError, match="its own"):
        worker.call(lambda: (_ for _ in ()).throw(TimeoutError("its own")), 5.0)


def test_a_caller_leaves_after_its_timeout_and_a_late_result_is_undone(start):
    worker, go, undone = start(), threading.Event(), []
    with pytest.raises(WorkerError, match=r"no answer within 0\.01 s") as caught:
        worker.call(lambda: go.wait(5.0), 0.01, abandon=undone.append)
    assert caught.value.code == "TIMEOUT"
    go.set()
    until(lambda: undone == [True])


def test_a_request_whose_caller_has_left_does_not_run_at_all(start):
    worker, go, ran = start(), threading.Event(), []
    worker.post(lambda: go.wait(5.0))
    with pytest.raises(WorkerError):
        worker.call(lambda: ran.append(1), 0.01)
    go.set()
    assert worker.call(lambda: "done", 5.0) == "done"
    assert ran == []


def test_too_many_requests_are_refused_and_the_others_answered(start):
    worker, go = start(), threading.Event()
    running = worker.post(lambda: go.wait(5.0))
    until(running.running)
    waiting = [worker.post(lambda n=n: n) for n in range(MAX_REQUESTS)]
    with pytest.raises(WorkerError) as caught:
        worker.post(lambda: None)
    assert caught.value.code == "BUSY"
    go.set()
    assert [future.result(5.0) for future in waiting] == list(range(MAX_REQUESTS))


def test_stopping_refuses_what_waits(start):
    worker, go = start(), threading.Event()
    running = worker.post(lambda: go.wait(5.0))
    until(running.running)
    waiting = worker.post(lambda: None)
    assert not worker.stop(0.01)
    with pytest.raises(WorkerError, match="shutting down"):
        waiting.result(5.0)
    with pytest.raises(WorkerError):
        worker.post(lambda: None)
    go.set()
    assert worker.stop(5.0)


def test_a_caller_gives_up_when_the_process_ends(start):
    worker, go = start(), threading.Event()
    with pytest.raises(WorkerError, match="shutting down"):
        worker.call(lambda: go.wait(5.0), float("inf"), give_up=lambda: True)
    go.set()


def test_a_slow_consumer_gets_the_newest_image_and_the_queue_never_grows(start):
    seen, go = [], threading.Semaphore(0)

    def look(delivery):
        seen.append((delivery.image.stamp_ns, delivery.skipped))
        assert go.acquire(timeout=5.0)

    worker, mailbox = start(look), Mailbox("", 4)
    worker.watch([mailbox])
    put(worker, mailbox, 1)
    until(lambda: seen == [(1, 0)])
    for stamp in range(2, 10):
        put(worker, mailbox, stamp)
    go.release()
    until(lambda: seen == [(1, 0), (9, 7)])
    go.release()


def test_cameras_take_turns_however_fast_one_of_them_is(start):
    order, go = [], threading.Event()
    cameras = [Mailbox(name, 2) for name in ("a", "b", "c")]
    worker = start(lambda delivery: (order.append(delivery.image.camera), go.wait(5.0), refill(delivery)))
    stamps = itertools.count(2)

    def refill(delivery):
        # The first camera always has a newer image; the others get theirs back too.
        if len(order) < 12:
            cameras["abc".index(delivery.image.camera)].put(next(stamps), None, 1)

    for mailbox in cameras:
        mailbox.put(1, None, 1)
    worker.watch(cameras)
    go.set()
    until(lambda: len(order) >= 12)
    assert order[:12] == ["a", "b", "c"] * 4


def test_images_do_not_starve_requests_nor_requests_images(start):
    seen = []
    mailbox = Mailbox("", 2)
    worker = start(lambda delivery: (seen.append(delivery.image.stamp_ns), mailbox.put(len(seen) + 1, None, 1)))
    mailbox.put(1, None, 1)
    worker.watch([mailbox])
    for _ in range(20):
        worker.call(lambda: None, 5.0)
    until(lambda: len(seen) > 20)
    worker.watch(())


def test_a_paused_worker_answers_but_does_not_look(start):
    seen = []
    worker, mailbox = start(lambda delivery: seen.append(delivery.image.stamp_ns)), Mailbox("", 4)
    worker.watch([mailbox])
    worker.paused = True
    put(worker, mailbox, 1)
    assert worker.call(lambda: len(seen), 5.0) == 0
    worker.paused = False
    until(lambda: seen == [1])


def test_a_failure_is_told_and_the_thread_goes_on(start):
    failures, seen = [], []

    def look(delivery):
        if delivery.image.stamp_ns == 1:
            raise RuntimeError("broken")
        seen.append(delivery.image.stamp_ns)

    worker, mailbox = start(look, failures.append), Mailbox("", 4)
    worker.watch([mailbox])
    put(worker, mailbox, 1)
    until(lambda: [str(error) for error in failures] == ["broken"])
    put(worker, mailbox, 2)
    until(lambda: seen == [2])


# --- targets ---


class FaultyTracker(IdentityTracker):
    """Raises on the frames that it is told to."""

    broken = False

    def step(self, frame):
        updates = super().step(frame)
        if FaultyTracker.broken:
            raise RuntimeError("the model broke")
        return updates


class FaultyModel(IdentityModel):
    def tracker(self, mode="stream", config=None):
        return FaultyTracker(replace(config or TrackingConfig(), mode=mode))


class Scene:
    """A perception with cameras that are fed by hand, and all that it said."""

    def __init__(self, cameras=("",), model=None, config=None):
        self.mailboxes = {camera: Mailbox(camera, 4) for camera in cameras}
        self.results = []
        self.reports = []
        self.perception = Perception(
            model or IdentityModel(),
            config or TrackingConfig(),
            self.mailboxes.values(),
            itertools.count(1),
            Hooks(self.decode, self.results.append, self.report),
        )

    def decode(self, payload, stamp_ns, index):
        if payload == "broken":
            raise ImageError("it cannot be read")
        return Frame(np.zeros((*payload, 3), np.uint8), stamp_ns, index)

    def report(self, error):
        self.reports.append(str(error))
        return f"INTERNAL: {error}"

    def arrive(self, stamp, camera="", payload=(48, 64)):
        self.mailboxes[camera].put(stamp, payload, 1)

    def see(self, stamp, camera="", payload=(48, 64)):
        """Have an image arrive and be looked at; return what was published of it."""
        self.arrive(stamp, camera, payload)
        before = len(self.results)
        self.perception.look_at(self.mailboxes[camera].take())
        return self.results[before:]

    def start(self, expression="", place=None, stamp=0, add=False, camera="", listener=None):
        return self.perception.start(StartRequest(camera, expression, place, stamp, add), listener)

    def states(self):
        return [(view.id, view.update.state.value) for view in self.results[-1].views]


def at(*box):
    return lambda width, height: Box.from_px(*box, width, height)


@pytest.fixture
def scene():
    FaultyTracker.broken = False
    return Scene()


def test_every_frame_is_published_also_without_targets(scene):
    [result] = scene.see(1)
    assert (result.image.stamp_ns, result.frame.width, result.views) == (1, 64, ())


def test_a_target_by_words_and_one_by_a_box_share_the_frames(scene):
    first = scene.start("the red mug")
    scene.see(1)
    second = scene.start(place=at(16, 12, 32, 24), add=True)
    scene.see(2)
    assert scene.states() == [(first.id, "TRACKED"), (second.id, "TRACKED")]
    assert scene.results[-1].views[1].update.box == Box(0.25, 0.25, 0.5, 0.5)
    assert len(scene.perception.stream("").trackers) == 1


def test_a_box_on_the_newest_image_is_put_on_that_image_even_if_nobody_has_looked_at_it(scene):
    scene.see(1)
    scene.arrive(2)
    scene.start(place=at(0, 0, 32, 24))
    assert [result.image.stamp_ns for result in scene.results] == [1, 2]
    assert scene.mailboxes[""].take() is not None, "the image still waits for the thread"
    scene.see(3)
    assert scene.states() == [(1, "TRACKED")]


def test_an_image_that_was_looked_at_early_is_not_published_twice_and_its_skips_are_kept(scene):
    for stamp in (1, 2, 3):
        scene.arrive(stamp)
    scene.start(place=at(0, 0, 32, 24))
    scene.perception.look_at(scene.mailboxes[""].take())
    assert [result.image.stamp_ns for result in scene.results] == [3]
    assert scene.see(4)[0].skipped == 2


def test_a_box_on_an_earlier_image_gets_a_tracker_of_its_own_that_starts_there(scene):
    scene.start("the red mug")
    for stamp in (1, 2, 3):
        scene.see(stamp)
    target = scene.start(place=at(0, 0, 32, 24), stamp=2, add=True)
    stream = scene.perception.stream("")
    assert len(stream.trackers) == 2
    scene.see(4)
    assert scene.states() == [(1, "TRACKED"), (target.id, "TRACKED")]
    scene.perception.stop(target.id)
    scene.see(5)
    assert len(stream.trackers) == 1


def test_a_box_on_an_image_that_is_not_remembered_is_refused(scene):
    with pytest.raises(TargetError, match="no image has arrived") as caught:
        scene.start(place=at(0, 0, 32, 24))
    assert caught.value.code == "NO_IMAGE"
    for stamp in range(1, 7):
        scene.see(stamp)
    with pytest.raises(TargetError, match="from 3 to 6 ns") as caught:
        scene.start(place=at(0, 0, 32, 24), stamp=1)
    assert caught.value.code == "BOX_STAMP"


def test_a_new_target_replaces_the_camera_s_others_unless_it_is_added():
    scene = Scene(("a", "b"))
    scene.see(1, "a")
    ends = []
    scene.start("one", camera="a", listener=lambda event: ends.append(event.end) is None)
    scene.start("two", camera="b")
    scene.start("three", camera="a", add=True)
    four = scene.start("four", camera="a")
    assert scene.perception.active_ids == [2, four.id]
    assert ends == [EndReason.REPLACED]
    scene.see(2, "a")
    assert scene.states() == [(1, "REMOVED"), (3, "REMOVED"), (4, "TRACKED")]
    scene.see(3, "a")
    assert scene.states() == [(4, "TRACKED")], "REMOVED is said once"


def test_a_refused_request_leaves_the_other_targets_alone(scene):
    scene.see(1)
    scene.start("the red mug")
    for arguments, error in [
        ({"expression": ""}, ExpressionError),
        ({"expression": "the <image>"}, ExpressionError),
        ({"place": at(100, 100, 200, 200)}, BoxError),
        ({"expression": "x", "camera": "rear"}, TargetError),
        ({"place": at(0, 0, 9, 9), "stamp": 77}, TargetError),
    ]:
        with pytest.raises(error):
            scene.start(**arguments)
    assert scene.perception.active_ids == [1]


def test_there_is_a_limit_over_all_cameras():
    scene = Scene(("a", "b"), config=TrackingConfig(max_targets=2))
    scene.start("one", camera="a")
    scene.start("two", camera="b")
    with pytest.raises(TargetError, match="already 2 targets") as caught:
        scene.start("three", camera="a", add=True)
    assert caught.value.code == "TARGET_LIMIT"
    scene.start("four", camera="a")
    assert scene.perception.active_ids == [2, 3]


def test_stopping_one_all_and_none():
    scene = Scene(("a", "b"))
    for camera in ("a", "a", "b"):
        scene.start("it", camera=camera, add=True)
    with pytest.raises(TargetError, match="no target 9; followed are: 1, 2, 3"):
        scene.perception.stop(9)
    with pytest.raises(TargetError, match="not in camera 'b' but in 'a'"):
        scene.perception.stop(1, "b")
    assert scene.perception.stop(2) == [2]
    assert scene.perception.stop(0, "b") == [3]
    assert scene.perception.stop(0) == [1]
    assert scene.perception.stop(0) == []


def test_a_target_stopped_between_two_frames_is_removed_in_the_next(scene):
    scene.see(1)
    scene.start(place=at(0, 0, 32, 24))
    scene.see(2)
    scene.perception.stop(1)
    [result] = scene.see(3)
    [view] = result.views
    assert view.update.state is TrackState.REMOVED
    assert (view.update.box, view.update.last_box, view.update.reason) == (None, Box(0, 0, 0.5, 0.5), "it was stopped")
    assert scene.see(4)[0].views == ()


def test_a_jump_back_in_time_ends_the_targets_of_that_camera():
    scene = Scene(("a", "b"))
    ends = []
    scene.see(9 * SECOND, "a")
    scene.start("one", camera="a", listener=lambda event: ends.append(event.end) is None)
    scene.start("two", camera="b")
    [result] = scene.see(2 * SECOND, "a")
    assert result.image.stamp_ns == 2 * SECOND
    assert scene.states() == [(1, "REMOVED")]
    assert ends == [EndReason.TIME_JUMP]
    assert scene.perception.active_ids == [2]
    scene.start("three", camera="a")
    scene.see(3 * SECOND, "a")
    assert scene.states() == [(3, "TRACKED")]


def test_an_image_that_cannot_be_read_is_reported_and_the_next_one_counts_it(scene):
    scene.start("the red mug")
    assert scene.see(1, payload="broken") == []
    assert scene.reports == ["it cannot be read"]
    [result] = scene.see(2)
    assert result.skipped == 1
    assert scene.states() == [(1, "TRACKED")]


def test_a_failing_model_makes_its_targets_lost_and_never_repeats_a_box():
    scene = Scene(model=FaultyModel())
    scene.start("the red mug")
    scene.see(1)
    FaultyTracker.broken = True
    try:
        [result] = scene.see(2)
    finally:
        FaultyTracker.broken = False
    update = result.views[0].update
    assert (update.state, update.box, update.frame_index, update.stamp_ns) == (TrackState.LOST, None, 1, 2)
    assert "the model broke" in update.reason
    assert scene.perception.failures == 1
    assert "the model broke" in scene.perception.standing_failure
    scene.see(3)
    assert scene.states() == [(1, "TRACKED")]
    assert scene.perception.standing_failure == ""


def test_a_listener_hears_each_frame_then_the_end_and_may_leave(scene):
    events, first = [], []
    target = scene.start("the red mug", listener=lambda event: events.append(event) is None)
    target.listeners.append(lambda event: first.append(event) is not None)
    for stamp in (1, 2):
        scene.see(stamp)
    scene.perception.reset(EndReason.RESET)
    assert [event.image.stamp_ns if event.image else event.end for event in events] == [1, 2, EndReason.RESET]
    assert len(first) == 1


def test_a_reset_forgets_images_and_targets_and_ids_go_on(scene):
    scene.see(1)
    scene.start("one")
    assert scene.perception.reset(EndReason.RESET) == 1
    assert scene.mailboxes[""].newest() is None
    assert scene.start("two").id == 2
    scene.see(1)
    assert scene.states() == [(1, "REMOVED"), (2, "TRACKED")]


def test_new_settings_reach_all_trackers(scene):
    scene.start("one")
    scene.perception.configure(TrackingConfig(max_targets=1))
    with pytest.raises(TargetError):
        scene.start("two", add=True)
    assert scene.perception.stream("").trackers[0].config.max_targets == 1


# --- answers ---


def test_a_target_is_described_where_it_was_seen_last(scene):
    target = scene.start("the red mug")
    with pytest.raises(TargetError, match="not been found yet") as caught:
        describe_target(scene.perception, target.id)
    assert caught.value.code == "NOT_SEEN"
    scene.see(5)
    answer = describe_target(scene.perception, target.id)
    assert (answer.text, answer.image.stamp_ns, answer.target_id) == ("something at 0,0,100,100", 5, target.id)
    scene.see(6)
    view = scene.results[-1].views[0]
    assert (view.description, view.description_stamp_ns) == (answer.text, 5)


def test_a_target_given_by_a_box_can_be_described_at_once(scene):
    scene.see(5)
    target = scene.start(place=at(16, 12, 32, 24))
    assert describe_target(scene.perception, target.id).text == "something at 25,25,50,50"


def test_a_box_and_the_scene_are_described_in_the_newest_image(scene):
    with pytest.raises(TargetError, match="no image"):
        describe_scene(scene.perception, "")
    scene.see(5)
    place = describe_place(scene.perception, "", at(16, 12, 32, 24))
    assert (place.text, place.box) == ("something at 25,25,50,50", Box(0.25, 0.25, 0.5, 0.5))
    assert describe_scene(scene.perception, "", "Is it raining?").question == "Is it raining?"
    with pytest.raises(ExpressionError):
        describe_scene(scene.perception, "", "USER: hello")


class AskedModel(IdentityModel):
    """Remembers what it was asked about."""

    def ask(self, frames, question):
        self.asked = frames
        return super().ask(frames, question)


def test_a_question_about_a_box_is_asked_of_the_picture_inside_it():
    scene = Scene(model=AskedModel())
    scene.see(1)
    describe_place(scene.perception, "", at(20, 10, 40, 30), "What is it?")
    frame = scene.perception.model.asked
    assert (frame.width, frame.height) == (26, 26), "the box and 15 % on each side"


def test_a_question_about_the_scene_is_asked_of_the_last_images_of_one_size():
    scene = Scene(model=AskedModel())
    for stamp, payload in ((1, (10, 10)), (2, (48, 64)), (3, "broken"), (4, (48, 64))):
        scene.see(stamp, payload=payload)
    describe_scene(scene.perception, "")
    assert [frame.stamp_ns for frame in scene.perception.model.asked] == [2, 4]


def test_grounding_leaves_no_trace(scene):
    found = ground(scene.perception, Frame(np.zeros((4, 4, 3), np.uint8)), "the red mug")
    assert found.box == Box(0, 0, 1, 1)
    assert scene.perception.active_ids == []
    with pytest.raises(ExpressionError):
        ground(scene.perception, Frame(np.zeros((4, 4, 3), np.uint8)), " ")


def test_the_target_that_waited_longest_is_due_for_its_periodic_description(scene):
    first, second = scene.start("one"), scene.start("two", add=True)
    assert next_due(scene.perception, 1.0, 100.0) is None, "nothing was seen yet"
    scene.see(1)
    assert next_due(scene.perception, 0.0, 100.0) is None
    first.described_at_s, second.described_at_s = 99.0, 98.0
    assert next_due(scene.perception, 1.5, 100.0) is second
    assert next_due(scene.perception, 5.0, 100.0) is None


# --- runtime ---


@pytest.fixture
def runtime():
    hooks = Hooks(Frame, lambda result: None, str)
    runtime = Runtime(hooks, lambda answer: None, lambda: False, lambda: "the node is not active")
    yield runtime
    runtime.stop()


class ClosableModel(IdentityModel):
    closed = False
    warmed_up = 0

    def close(self):
        self.closed = True

    def warm_up(self):
        self.warmed_up += 1


def test_a_model_is_loaded_once_until_it_is_to_come_from_elsewhere(runtime):
    first, second = ClosableModel(), ClosableModel()
    runtime.load(lambda: first, "a")
    runtime.load(lambda: second, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 2)
    assert first.warmed_up == 2
    runtime.close()
    runtime.load(lambda: second, "b")
    assert first.closed
    runtime.free()
    assert second.closed
    assert runtime.model_info is None


def test_a_model_that_cannot_be_loaded_is_an_error_and_another_one_can(runtime):
    with pytest.raises(ZeroDivisionError):
        runtime.load(lambda: 1 / 0, "a")
    runtime.load(ClosableModel, "a")
    assert runtime.model_info.name == "identity"


def test_calls_are_refused_before_opening_and_after_closing_and_targets_hear_of_the_end(runtime):
    with pytest.raises(WorkerError, match="not active"):
        runtime.call(lambda perception: None)
    runtime.load(ClosableModel, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 0)
    ends = []
    request = StartRequest("", "the red mug")
    runtime.call(lambda perception: perception.start(request, lambda event: ends.append(event.end) is None))
    assert runtime.active_ids == [1]
    runtime.close()
    assert ends == [EndReason.INACTIVE]
    assert runtime.active_ids == []
    for refused in (lambda: runtime.call(lambda perception: None), lambda: runtime.pause(True)):
        with pytest.raises(WorkerError, match="not active") as caught:
            refused()
        assert caught.value.code == "NOT_ACTIVE"


def test_a_late_target_is_stopped_again(runtime):
    runtime.load(ClosableModel, "a")
    runtime.open([Mailbox("", 1)], TrackingConfig(), 0)
    go = threading.Event()

    def slow(perception):
        go.wait(5.0)
        return perception.start(StartRequest("", "the red mug"))

    with pytest.raises(WorkerError, match="no answer"):
        runtime.call(slow, 0.05, lambda perception, target: perception.stop(target.id))
    go.set()
    until(lambda: runtime.call(lambda perception: perception.active_ids) == [])
    assert runtime.call(lambda perception: perception.start(StartRequest("", "next"))).id == 2


# --- guard ---


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, message):
        self.lines.append(message)

    error = warning


def test_an_event_is_logged_at_once_then_with_a_count():
    log, now = Log(), [0.0]
    events = EventLog(log, period_s=5.0, clock=lambda: now[0])
    for _ in range(4):
        events.report("IMG_SHAPE", "odd\n\x1b[31m")
    assert len(log.lines) == 1
    assert log.lines[0].isprintable()
    now[0] = 6.0
    events.report("IMG_SHAPE", "odd")
    assert log.lines[1] == "IMG_SHAPE: odd (3 more since the last line)"
    assert events.count("IMG_SHAPE") == 5
    assert events.counts() == {"IMG_SHAPE": 5}


class Reply:
    success = True
    message = ""
    half_done = False


def test_a_guarded_service_always_replies_with_a_code_and_a_fresh_reply():
    log = Log()
    guard = Guard(EventLog(log))

    def fail(request, response):
        response.half_done = True
        raise request

    expected = guard.service(fail)(BoxError("the box is odd"), Reply())
    assert (expected.success, expected.message, expected.half_done) == (False, "BOX_INVALID: the box is odd", False)
    assert log.lines == [], "a refused request is the caller's business"
    unexpected = guard.service(fail)(KeyError("x"), Reply())
    assert unexpected.message.startswith("INTERNAL: KeyError")
    assert "Traceback" in log.lines[0]


def test_a_guarded_callback_raises_nothing_and_is_silent_while_shutting_down():
    log, ending = Log(), [False]
    guard = Guard(EventLog(log, period_s=0.0), is_shutting_down=lambda: ending[0])

    def fail():
        raise OSError("gone")

    guard.callback(fail)()
    assert len(log.lines) == 1
    ending[0] = True
    guard.callback(fail)()
    assert len(log.lines) == 1


def test_a_delivery_for_an_image_seen_already_is_ignored(scene):
    scene.see(1)
    image = scene.mailboxes[""].newest()
    scene.perception.look_at(Delivery(image, 0))
    assert len(scene.results) == 1
