"""The inference thread: requests and images in turn, with deadlines instead of sleeps."""

import itertools
import threading

import pytest

from elysium_ros.perception.mailbox import Mailbox
from elysium_ros.perception.worker import MAX_REQUESTS, Worker, WorkerError


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


def test_a_request_runs_in_the_thread_and_gives_its_result_or_its_error(start):
    worker = start()
    assert worker.call(lambda: threading.current_thread().name, 5.0) == "elysium_inference"
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0, 5.0)
    with pytest.raises(TimeoutError, match="its own"):
        worker.call(lambda: (_ for _ in ()).throw(TimeoutError("its own")), 5.0)


def test_a_caller_leaves_after_its_timeout_and_a_late_result_is_undone(start, until):
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


def test_too_many_requests_are_refused_and_the_others_answered(start, until):
    worker, go = start(), threading.Event()
    running = worker.post(lambda: go.wait(5.0))
    until(running.running)
    waiting = [worker.post(lambda n=n: n) for n in range(MAX_REQUESTS)]
    with pytest.raises(WorkerError) as caught:
        worker.post(lambda: None)
    assert caught.value.code == "BUSY"
    go.set()
    assert [future.result(5.0) for future in waiting] == list(range(MAX_REQUESTS))


def test_stopping_refuses_what_waits(start, until):
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


def test_a_slow_consumer_gets_the_newest_image_and_the_queue_never_grows(start, until, put):
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


def test_cameras_take_turns_however_fast_one_of_them_is(start, until):
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


def test_images_do_not_starve_requests_nor_requests_images(start, until):
    seen = []
    mailbox = Mailbox("", 2)
    worker = start(lambda delivery: (seen.append(delivery.image.stamp_ns), mailbox.put(len(seen) + 1, None, 1)))
    mailbox.put(1, None, 1)
    worker.watch([mailbox])
    for _ in range(20):
        worker.call(lambda: None, 5.0)
    until(lambda: len(seen) > 20)
    worker.watch(())


def test_a_paused_worker_answers_but_does_not_look(start, until, put):
    seen = []
    worker, mailbox = start(lambda delivery: seen.append(delivery.image.stamp_ns)), Mailbox("", 4)
    worker.watch([mailbox])
    worker.paused = True
    put(worker, mailbox, 1)
    assert worker.call(lambda: len(seen), 5.0) == 0
    worker.paused = False
    until(lambda: seen == [1])


def test_a_failure_is_told_and_the_thread_goes_on(start, until, put):
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
