"""The inference thread: requests and images in turn, with deadlines instead of sleeps."""

import itertools
import threading
import time

import pytest

from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.request_queue import MAX_REQUESTS
from elysium_ros.perception.requests import WorkerError
from elysium_ros.perception.worker import Worker


class Watch:
    """Looks at images as the test says; notes what failed."""

    def __init__(self, look=lambda image: None, question=lambda: None):
        self.look_at = look
        self.next_question = question
        self.failures = []

    def report(self, error):
        self.failures.append(str(error))


@pytest.fixture
def start():
    """Start workers whose threads end with the test."""
    workers = []

    def start():
        workers.append(Worker())
        workers[-1].start()
        return workers[-1]

    yield start
    assert all(worker.stop(5.0) for worker in workers)


@pytest.fixture
def watching(start):
    """Start a worker that watches one camera; return it and the mailbox."""

    def watching(watch, capacity=4):
        worker = start()
        mailbox = Mailbox("", capacity, worker.arrivals)
        worker.watch([mailbox], watch)
        return worker, mailbox

    return watching


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


def test_a_slow_consumer_gets_the_newest_image_and_the_queue_never_grows(watching, until):
    seen, go = [], threading.Semaphore(0)

    def look(image):
        seen.append(image.stamp_ns)
        assert go.acquire(timeout=5.0)

    _, mailbox = watching(Watch(look))
    mailbox.put(1, None, 1)
    until(lambda: seen == [1])
    for stamp in range(2, 10):
        mailbox.put(stamp, None, 1)
    go.release()
    until(lambda: seen == [1, 9])
    assert mailbox.dropped == 7
    go.release()


def test_cameras_take_turns_however_fast_one_of_them_is(start, until):
    order, go = [], threading.Event()
    worker = start()
    cameras = {name: Mailbox(name, 2, worker.arrivals) for name in ("a", "b", "c")}
    stamps = itertools.count(2)

    def look(image):
        order.append(image.camera)
        go.wait(5.0)
        # The first camera always has a newer image; the others get theirs back too.
        if len(order) < 12:
            cameras[image.camera].put(next(stamps), None, 1)

    for mailbox in cameras.values():
        mailbox.put(1, None, 1)
    worker.watch(list(cameras.values()), Watch(look))
    go.set()
    until(lambda: len(order) >= 12)
    assert order[:12] == ["a", "b", "c"] * 4


def test_images_do_not_starve_requests_nor_requests_images(watching, until):
    seen = []

    def look(image):
        seen.append(image.stamp_ns)
        mailbox.put(len(seen) + 1, None, 1)

    worker, mailbox = watching(Watch(look), 2)
    mailbox.put(1, None, 1)
    for _ in range(20):
        worker.call(lambda: None, 5.0)
    until(lambda: len(seen) > 20)
    worker.unwatch()


def test_a_flood_of_requests_lets_images_pass_and_the_newest_is_taken_after_them(watching, until):
    order = []
    worker, mailbox = watching(Watch(lambda image: order.append(f"image {image.stamp_ns}")))
    go = threading.Event()
    running = worker.post(lambda: go.wait(5.0))
    until(running.running)
    mailbox.put(1, None, 1)
    for number in range(5):
        worker.post(lambda n=number: (order.append(n), mailbox.put(n + 2, None, 1)))
    go.set()
    until(lambda: len(order) == 7)
    assert order == [0, 1, 2, "image 4", 3, 4, "image 6"], "the first four requests, one image, the others, one image"


def test_questions_in_one_piece_get_half_of_the_time_while_images_come_and_requests_do_not_wait(watching, until):
    order = []

    def look(image):
        order.append("image")
        time.sleep(0.005)
        mailbox.put(image.stamp_ns + 1, None, 1)

    def ask(name):
        order.append(name)
        time.sleep(0.1)

    worker, mailbox = watching(Watch(look))
    mailbox.put(1, None, 1)
    until(lambda: "image" in order)
    questions = [worker.post_question(lambda take_break, n=n: ask(n)) for n in range(3)]
    until(lambda: 0 in order)
    worker.call(lambda: order.append("request"), 5.0)
    until(lambda: all(question.done() for question in questions))
    worker.unwatch()
    assert order.index("request") < order.index(1)
    for earlier, later in ((0, 1), (1, 2)):
        assert order[order.index(earlier) : order.index(later)].count("image") >= 2


def test_questions_do_not_wait_for_images_that_nobody_sends(start):
    worker, order = start(), []
    for n in range(3):
        worker.ask(lambda take_break, n=n: order.append(n), 5.0)
    assert order == [0, 1, 2]


def writing(parts, order, name="word"):
    """A question whose answer is written in parts, with a break after each."""

    def question(take_break):
        for _ in range(parts):
            order.append(name)
            time.sleep(0.002)
            take_break()
        return name * parts

    return question


def test_images_and_requests_pass_while_an_answer_is_written_and_neither_waits_for_more_than_a_few_parts(
    watching, until
):
    order = []

    def look(image):
        order.append("image")
        time.sleep(0.012)
        mailbox.put(image.stamp_ns + 1, None, 1)

    worker, mailbox = watching(Watch(look))
    mailbox.put(1, None, 1)
    until(lambda: "image" in order)
    answer = worker.post_question(writing(30, order))
    until(lambda: "word" in order)
    worker.call(lambda: order.append("request"), 5.0)
    assert answer.result(5.0) == "word" * 30
    worker.unwatch()
    begin, end = order.index("word"), len(order) - order[::-1].index("word")
    between = "".join(name[0] for name in order[begin:end]).replace("r", "")
    runs = [len(run) for run in between.split("i") if run]
    assert len(runs) >= 5, "images pass all the time"
    assert "ii" not in between, "and an answer goes on after each of them"
    assert begin < order.index("request") < end


def test_an_answer_ends_early_when_nobody_waits_for_it_or_the_images_or_the_thread_end(watching, until):
    order = []
    worker, _ = watching(Watch())
    with pytest.raises(WorkerError) as caught:
        worker.ask(writing(10**6, order), 0.05)
    assert caught.value.code == "TIMEOUT"
    running, waiting = (worker.post_question(writing(10**6, order, name)) for name in ("running", "waiting"))
    until(lambda: "running" in order)
    worker.unwatch()
    stopped = worker.post_question(writing(10**6, order, "stopped"))
    until(lambda: "stopped" in order)
    assert worker.stop(5.0)
    for refused, reason in ((running, "deactivated"), (waiting, "deactivated"), (stopped, "shutting down")):
        with pytest.raises(WorkerError, match=reason) as caught:
            refused.result(5.0)
        assert caught.value.code == "NOT_ACTIVE"
    assert "waiting" not in order


@pytest.mark.parametrize("crashes", [False, True])
def test_a_model_that_hangs_or_ends_the_thread_beside_an_answer_is_told_to_who_asked(watching, until, crashes):
    go, order = threading.Event(), []
    worker, mailbox = watching(Watch(leave if crashes else lambda image: go.wait(5.0)))
    answer = worker.post_question(writing(10**6, order))
    until(lambda: order)
    mailbox.put(1, None, 1)
    until(lambda: worker.crash or (worker.work and worker.work.future is None))
    worker.abandon(WorkerError("it hangs", code="MODEL_TIMEOUT"))
    with pytest.raises(WorkerError) as caught:
        answer.result(5.0)
    assert caught.value.code == ("MODEL_CRASHED" if crashes else "MODEL_TIMEOUT")
    go.set()


def test_what_the_handler_asks_by_itself_waits_for_others_and_its_failure_is_reported(watching, until):
    order, own = [], []
    watch = Watch(question=lambda: own.pop() if own else None)
    _, mailbox = watching(watch)
    own.append(writing(2, order, "own"))
    mailbox.put(1, None, 1)
    until(lambda: order == ["own", "own"])

    def fail(take_break):
        raise RuntimeError("broken")

    own.append(fail)
    stamps = itertools.count(2)
    until(lambda: mailbox.put(next(stamps), None, 1) and watch.failures == ["broken"])


def test_a_paused_worker_answers_but_does_not_look(watching, until):
    seen = []
    worker, mailbox = watching(Watch(lambda image: seen.append(image.stamp_ns)))
    worker.pause(True)
    mailbox.put(1, None, 1)
    assert worker.call(lambda: len(seen), 5.0) == 0
    worker.pause(False)
    until(lambda: seen == [1])


def test_a_failure_is_reported_and_the_thread_goes_on(watching, until):
    seen = []

    def look(image):
        if image.stamp_ns == 1:
            raise RuntimeError("broken")
        seen.append(image.stamp_ns)

    watch = Watch(look)
    _, mailbox = watching(watch)
    mailbox.put(1, None, 1)
    until(lambda: watch.failures == ["broken"])
    mailbox.put(2, None, 1)
    until(lambda: seen == [2])


def leave(*_):
    raise SystemExit(3)


def test_a_model_that_ends_the_thread_is_told_to_whoever_waits_and_to_all_who_come(start, until):
    worker = start()
    running, waiting = worker.post(leave), worker.post(lambda: None)
    for future in (running, waiting):
        with pytest.raises(WorkerError, match="SystemExit: 3") as caught:
            future.result(5.0)
        assert caught.value.code == "MODEL_CRASHED"
    until(lambda: isinstance(worker.crash, SystemExit))
    with pytest.raises(WorkerError) as caught:
        worker.post(lambda: None)
    assert caught.value.code == "MODEL_CRASHED"


def test_a_model_that_ends_the_thread_at_an_image_is_told_too(watching, until):
    worker, mailbox = watching(Watch(leave))
    mailbox.put(1, None, 1)
    until(lambda: isinstance(worker.crash, SystemExit))
    assert worker.work is None


def test_who_waits_for_an_abandoned_thread_is_refused_at_once_and_its_late_answer_does_no_harm(start, until):
    worker, go = start(), threading.Event()
    running, waiting = worker.post(lambda: go.wait(5.0)), worker.post(lambda: None)
    until(running.running)
    worker.abandon(WorkerError("it hangs", code="MODEL_TIMEOUT"))
    for refused in (running.result, waiting.result, lambda timeout: worker.post(lambda: None)):
        with pytest.raises(WorkerError, match="it hangs") as caught:
            refused(0)
        assert caught.value.code == "MODEL_TIMEOUT"
    assert "go.wait" in worker.where()
    go.set()
    assert worker.stop(5.0)
    assert (worker.crash, worker.where()) == (None, "")


def test_the_worker_says_what_it_works_on_and_how_long_it_may(start, watching, until):
    go = threading.Event()
    worker, mailbox = watching(Watch(lambda image: go.wait(5.0)))
    assert worker.work is None
    mailbox.put(1, None, 1)
    until(lambda: worker.work)
    assert (worker.work.limit_s, worker.work.future) == (5.0, None)
    future = worker.post(lambda: worker.work, 77.0)
    go.set()
    assert (future.result(5.0).limit_s, future.result().future) == (77.0, future)
