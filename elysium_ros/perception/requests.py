"""Requests to the inference thread and questions: how one is run, answered, refused. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from elysium_core.errors import ElysiumError
from elysium_ros.perception.types import Incoming

Result = TypeVar("Result")

TakeBreak = Callable[[], None]
"""Lets requests and images pass while a question is answered; raises ``WorkerError`` if the question is to end."""

Question = Callable[[TakeBreak], Result]
"""Something that takes long and changes nothing; it is given what it calls as often as it can."""


class ImageHandler(Protocol):
    """Processes images. Its methods run in the inference thread."""

    def look_at(self, image: Incoming) -> None:
        """Process one image."""
        ...

    def next_question(self) -> Question[object] | None:
        """Return what it wants to ask by itself when nobody else asks; None for nothing."""
        ...

    def report(self, error: Exception) -> object:
        """Take note of what :meth:`look_at`, or a question of its own, raised."""
        ...


class WorkerError(ElysiumError):
    """The inference thread could not answer."""

    code = "NOT_ACTIVE"


@dataclass(frozen=True, slots=True)
class Work:
    """What the thread is doing.

    Attributes:
        since_s: When it began, on the steady clock [s].
        limit_s: How long it may take [s].
        future: The request; None for an image.
    """

    since_s: float
    limit_s: float
    future: Future[Any] | None = None


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        future: Takes the answer.
        function: Gives it.
        limit_s: How long it, or one part of a question, may take before the model counts as hung [s]; None for the
            worker's limit.
        refusal: Why a question that is being answered is not to go on; None if it is.
    """

    future: Future[Any]
    function: Callable[[], Any]
    limit_s: float | None
    refusal: WorkerError | None = None

    def end(self, refusal: WorkerError) -> None:
        """End a question at its next break."""
        self.refusal = self.refusal or refusal


def answer(future: Future[Any], function: Callable[[], Any]) -> None:
    """Run a request and settle its future.

    Raises:
        BaseException: What is no ``Exception``: the thread that runs the model cannot go on.
    """
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
        settle(future, error=error)
    except BaseException as error:
        settle(future, error=crash_reason(error))
        raise
    else:
        settle(future, result=result)


def settle(future: Future[Any], *, result: object = None, error: Exception | None = None) -> None:
    """Give a request its result or its error, unless it has one: one that is given up is refused while it runs."""
    with suppress(InvalidStateError):
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def crash_reason(error: BaseException) -> WorkerError:
    """Return what callers are told when the model has ended the inference thread."""
    return WorkerError(
        f"the model ended the inference thread with {type(error).__name__}: {error}", code="MODEL_CRASHED"
    )
