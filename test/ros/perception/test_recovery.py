"""A model that hangs, or that ends its thread: it is given up, and another one goes on."""

import threading
from types import SimpleNamespace

import pytest

from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.types import LoadOptions, ModelInfo
from elysium_ros.perception import inference as module
from elysium_ros.perception.faults import FaultFinder, RestartBudget
from elysium_ros.perception.inference import Inference
from elysium_ros.perception.requests import Work, WorkerError
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import InferenceSettings, StartRequest

SETTINGS = InferenceSettings(warm_up_passes=0, model_timeout_s=0.05)


class FaultyModel(IdentityModel):
    """Does what the test says at every frame; then goes on as usual."""

    def __init__(self, fault=lambda: None, device="cpu"):
        self.fault, self.device = fault, device
        self.closed = False

    @property
    def info(self):
        return ModelInfo("faulty", "none", self.device, "none", 100, 2)

    def tracker(self, mode="stream", config=None):
        tracker, model = IdentityTracker(config), self

        class Faulty(IdentityTracker):
            def step(self, frame):
                model.fault()
                return super().step(frame)

        tracker.__class__ = Faulty
        return tracker

    def close(self):
        self.closed = True


@pytest.fixture
def life():
    life = SimpleNamespace(is_shutting_down=False, why_inactive=lambda: "the node is not active", given_up=[])
    life.give_up = life.given_up.append
    return life


@pytest.fixture
def going():
    """Lets what hangs go on at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def opened(life, monkeypatch, results):
    """Open the inference with models that are loaded one after the other; return it and the mailbox."""
    made = []

    def opened(*models):
        waiting = list(models)
        monkeypatch.setattr(module, "load_model", lambda options: waiting.pop(0))
        inference = Inference(life)
        made.append(inference)
        inference.load(LoadOptions("a"))
        [mailbox] = inference.open(SETTINGS, results)
        return inference, mailbox

    yield opened
    for inference in made:
        inference.stop(0.0)


def follow(inference, expression="", place=None):
    ends = []
    request = StartRequest("", expression, place, add=True)
    target = inference.call(lambda perception: perception.start(request, lambda event: ends.append(event.end) is None))
    return target.id, ends


def leave():
    raise SystemExit(3)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_fault_is_found_and_another_model_goes_on_with_what_has_words(
    opened, results, until, picture, going, at, crashes
):
    first = FaultyModel()
    inference, mailbox = opened(first, FaultyModel())
    mailbox.put(1, picture(48, 64), 1)
    until(lambda: results.jobs)
    worded, worded_ends = follow(inference, "the red mug")
    boxed, boxed_ends = follow(inference, place=at(1, 1, 9, 9))
    assert inference.check() is None
    first.fault = leave if crashes else lambda: going.wait(20.0)
    mailbox.put(2, picture(48, 64), 1)
    fault = until(inference.check)
    assert fault.reason.code == ("MODEL_CRASHED" if crashes else "MODEL_TIMEOUT")
    assert ("leave" if crashes else "going.wait") in fault.detail
    until(lambda: inference.is_open)
    assert inference.state().restarting == ""
    assert boxed_ends[-1:] == [EndReason.MODEL_FAILED]
    mailbox.put(3, picture(48, 64), 1)
    until(lambda: results.jobs[-1].image.stamp_ns == 3)
    assert [(view.id, view.update.state.value) for view in results.jobs[-1].views] == [
        (boxed, "REMOVED"),
        (worded, "TRACKED"),
    ]
    assert EndReason.MODEL_FAILED not in worded_ends


def test_what_a_model_does_after_it_was_given_up_has_no_effect(opened, results, until, picture, going):
    back = threading.Event()

    def hang():
        going.wait(20.0)
        back.set()

    first = FaultyModel(hang)
    inference, mailbox = opened(first, FaultyModel())
    target_id, _ = follow(inference, "the red mug")
    mailbox.put(1, picture(48, 64), 1)
    until(inference.check)
    until(lambda: inference.is_open)
    going.set()
    assert back.wait(5.0)
    mailbox.put(2, picture(48, 64), 1)
    until(lambda: results.jobs)
    assert [job.image.stamp_ns for job in results.jobs] == [2]
    assert mailbox.record.health().answered == 1
    assert inference.state().active_ids == (target_id,)


def test_callers_hear_that_the_model_is_being_loaded_again(opened, monkeypatch, until, picture, going):
    inference, mailbox = opened(FaultyModel(lambda: going.wait(20.0)))
    loading = threading.Event()
    monkeypatch.setattr(module, "load_model", lambda options: loading.wait(20.0) and FaultyModel())
    mailbox.put(1, picture(48, 64), 1)
    until(inference.check)
    with pytest.raises(WorkerError, match="loaded again") as caught:
        inference.call(lambda perception: None)
    assert caught.value.code == "MODEL_TIMEOUT"
    assert inference.state().restarting.startswith("MODEL_TIMEOUT: ")
    loading.set()
    until(lambda: inference.is_open)
    assert inference.call(lambda perception: perception.active_ids) == []


@pytest.mark.parametrize("when", ["hanging", "loading again"])
def test_a_hanging_node_can_be_deactivated_and_activated(opened, results, until, picture, going, when, monkeypatch):
    inference, mailbox = opened(FaultyModel(lambda: going.wait(20.0)))
    _, ends = follow(inference, "the red mug")
    monkeypatch.setattr(module, "load_model", lambda options: going.wait(20.0) and FaultyModel())
    mailbox.put(1, picture(48, 64), 1)
    until(lambda: inference.state().busy_s)
    if when == "loading again":
        until(inference.check)
    closing = threading.Thread(target=inference.close)
    closing.start()
    until(lambda: inference.check() or not closing.is_alive())
    closing.join(5.0)
    assert not closing.is_alive()
    assert not inference.is_open
    assert inference.state().restarting == ""
    inference.free()
    monkeypatch.setattr(module, "load_model", lambda options: FaultyModel())
    assert inference.load(LoadOptions("a"))
    inference.open(SETTINGS, results)
    assert inference.call(lambda perception: perception.active_ids) == []
    assert ends == [EndReason.INACTIVE], "who waits for the target hears of it"


def test_on_a_gpu_and_when_loading_fails_the_process_ends(opened, life, until, picture, going, monkeypatch):
    inference, mailbox = opened(FaultyModel(lambda: going.wait(20.0), device="cuda:0"))
    mailbox.put(1, picture(48, 64), 1)
    until(inference.check)
    assert [reason.partition(":")[0] for reason in life.given_up] == ["MODEL_TIMEOUT"]
    inference, mailbox = opened(FaultyModel(leave))
    mailbox.put(1, picture(48, 64), 1)
    until(inference.check)
    until(lambda: len(life.given_up) == 2)
    assert "cannot be loaded again" in life.given_up[1]


def test_a_model_that_hangs_while_it_is_loaded_is_an_error_of_the_transition(life, monkeypatch, going, until):
    monkeypatch.setattr(module, "load_model", lambda options: going.wait(20.0))
    monkeypatch.setattr(module, "_LOAD_LIMIT_S", 0.05)
    inference, errors = Inference(life), []

    def load():
        try:
            inference.load(LoadOptions("a"))
        except WorkerError as error:
            errors.append(error.code)

    thread = threading.Thread(target=load)
    thread.start()
    until(inference.check)
    thread.join(5.0)
    assert errors == ["MODEL_TIMEOUT"]
    monkeypatch.setattr(module, "load_model", lambda options: FaultyModel())
    assert inference.load(LoadOptions("a"))
    inference.stop()


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_few_restarts_in_a_row_are_allowed_and_never_on_a_gpu():
    clock = Clock()
    budget = RestartBudget(clock)
    assert [budget.allows(on_gpu=False) for _ in range(4)] == [True, True, True, False]
    clock.now_s = 61.0
    assert budget.allows(on_gpu=False)
    assert budget.failures == 5
    assert not RestartBudget().allows(on_gpu=True)


def test_only_time_in_which_the_process_ran_is_held_against_the_model():
    clock = Clock()
    finder, worker = FaultFinder(clock), SimpleNamespace(crash=None, work=None, where=lambda: "there")
    clock.now_s = 100.0
    assert finder.look(worker) is None
    for work in (Work(100.0, 5.0), Work(200.0, 5.0)):
        worker.work = work
        clock.now_s = work.since_s + 60.0
        assert finder.look(worker) is None, "the process was stopped for a minute"
        for _ in range(43):
            clock.now_s += 0.1
            assert finder.look(worker) is None
    for _ in range(3):
        clock.now_s += 0.1
        fault = finder.look(worker)
    assert (fault.reason.code, fault.detail) == ("MODEL_TIMEOUT", "there")
