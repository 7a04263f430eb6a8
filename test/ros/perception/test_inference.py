"""The life of the inference thread: loaded, open, closed, freed."""

import itertools
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import LoadOptions, TrackingConfig
from elysium_ros.perception import inference as module
from elysium_ros.perception.answers import describe_target
from elysium_ros.perception.inference import Inference
from elysium_ros.perception.requests import WorkerError
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import InferenceSettings, StartRequest

A, B = LoadOptions("a"), LoadOptions("b")
SETTINGS = InferenceSettings(warm_up_passes=0, buffer_capacity=1)


@pytest.fixture
def load(inference, monkeypatch):
    """Have something else than the core load a model."""

    def load(options, load_model):
        monkeypatch.setattr(module, "load_model", load_model)
        return inference.load(options)

    return load


@pytest.fixture
def inference():
    life = SimpleNamespace(is_shutting_down=False, why_inactive=lambda: "the node is not active")
    inference = Inference(life)
    yield inference
    inference.stop()


class ClosableModel(IdentityModel):
    closed = False
    warmed_up = 0

    def __init__(self, options=None):
        self.options = options

    def close(self):
        self.closed = True

    def warm_up(self):
        self.warmed_up += 1


def test_a_model_is_loaded_once_until_it_is_to_come_from_elsewhere(inference, load, results):
    first, second = ClosableModel(), ClosableModel()
    assert load(A, lambda options: first)
    assert not load(A, lambda options: second)
    inference.open(InferenceSettings(warm_up_passes=2), results)
    assert first.warmed_up == 2
    inference.close()
    load(B, lambda options: second)
    assert first.closed
    inference.free()
    assert second.closed
    assert inference.state().model is None


def test_a_model_that_cannot_be_loaded_is_an_error_and_another_one_can(inference, load):
    with pytest.raises(ZeroDivisionError):
        load(A, lambda options: 1 / 0)
    load(A, ClosableModel)
    assert inference.state().model.name == "identity"


def test_calls_are_refused_before_opening_and_after_closing_and_targets_hear_of_the_end(inference, load, results):
    with pytest.raises(WorkerError, match="not active"):
        inference.call(lambda perception: None)
    load(A, ClosableModel)
    inference.open(SETTINGS, results)
    ends = []
    request = StartRequest("", "the red mug")
    inference.call(lambda perception: perception.start(request, lambda event: ends.append(event.end) is None))
    assert inference.state().active_ids == (1,)
    inference.close()
    assert ends == [EndReason.INACTIVE]
    assert inference.state().active_ids == ()
    for refused in (lambda: inference.call(lambda perception: None), lambda: inference.pause(True)):
        with pytest.raises(WorkerError, match="not active") as caught:
            refused()
        assert caught.value.code == "NOT_ACTIVE"


def test_a_late_target_is_stopped_again(inference, load, results, until):
    load(A, ClosableModel)
    inference.open(SETTINGS, results)
    go = threading.Event()

    def slow(perception):
        go.wait(5.0)
        return perception.start(StartRequest("", "the red mug"))

    with pytest.raises(WorkerError, match="no answer"):
        inference.call(slow, 0.05, lambda perception, target: perception.stop(target.id))
    go.set()
    until(lambda: inference.call(lambda perception: perception.active_ids) == [])
    assert inference.call(lambda perception: perception.start(StartRequest("", "next"))).id == 2


def test_an_image_is_followed_published_and_described_when_it_is_time(inference, load, results, until, picture):
    load(A, ClosableModel)
    [mailbox] = inference.open(SETTINGS, results)
    inference.call(lambda perception: perception.start(StartRequest("", "the red mug")))
    mailbox.put(1, picture(48, 64), 1)
    until(lambda: [job.image.stamp_ns for job in results.jobs] == [1])
    assert results.answers == []
    inference.configure(InferenceSettings(tracking=TrackingConfig(max_targets=1), describe_period_s=60.0))
    for stamp in (2, 3):
        mailbox.put(stamp, picture(48, 64), 1)
        until(lambda s=stamp: results.jobs[-1].image.stamp_ns == s)
    until(lambda: [answer.image.stamp_ns for answer in results.answers] == [2])
    with pytest.raises(Exception, match="already 1 targets"):
        inference.call(lambda perception: perception.start(StartRequest("", "more", add=True)))
    state = inference.state()
    assert (state.received, state.dropped, state.failures, state.paused) == (3, 0, 0, False)


class WritingModel(ClosableModel):
    """Writes one word after the other, each of which takes a while, with a break before each."""

    def interrupted_by(self, other):
        self.take_break = other
        return nullcontext()

    def describe(self, frames, box, frame_index=0, *, zoom=False):
        for _ in range(40):
            time.sleep(0.003)
            self.take_break()
        return "a red mug"


def test_a_target_is_followed_while_a_text_about_it_is_written_and_deactivation_ends_the_text(
    inference, load, results, until, picture
):
    load(A, WritingModel)
    [mailbox] = inference.open(replace(SETTINGS, buffer_capacity=4), results)
    mailbox.put(1, picture(48, 64), 1)
    target = inference.call(lambda perception: perception.start(StartRequest("", "the red mug")))
    answers, stamps = [], itertools.count(2)

    def describe(perception):
        return describe_target(perception.model, perception.stream(""), target)

    def ask():
        try:
            answers.append(inference.ask(describe).text)
        except WorkerError as error:
            answers.append(error.code)

    def send():
        stamp = next(stamps)
        mailbox.put(stamp, picture(48, 64), 1)
        until(lambda: results.jobs and results.jobs[-1].image.stamp_ns == stamp)

    send()
    threading.Thread(target=ask).start()
    until(lambda: inference.state().busy_s)
    begun = len(results.jobs)
    until(lambda: send() or answers)
    assert answers == ["a red mug"]
    assert len(results.jobs) - begun > 10, "results came all the time"
    assert [view.id for view in results.jobs[-1].views] == [target.id]
    threading.Thread(target=ask).start()
    until(lambda: inference.state().busy_s)
    inference.close()
    assert until(lambda: answers[1:]) == ["NOT_ACTIVE"]


def test_what_fails_without_a_caller_is_reported(inference, load, results, until):
    load(A, ClosableModel)
    inference.open(SETTINGS, results)
    inference.post(lambda perception: 1 / 0)
    until(lambda: results.reports == ["division by zero"])
