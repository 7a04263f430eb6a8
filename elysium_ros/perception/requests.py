"""Requests to the inference thread: how one is run, answered, refused. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from elysium_core.errors import ElysiumError


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


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        future: Takes the answer.
        function: Gives it.
        limit_s: How long it may take before the model counts as hung [s]; None for the worker's limit.
    """

    future: Future[Any]
    function: Callable[[], Any]
    limit_s: float | None


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
