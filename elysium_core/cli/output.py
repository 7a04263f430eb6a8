"""Output of the verbs: results go to stdout, log and progress to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from elysium_core.geometry import Box

# A frame that was skipped is a gap in the numbers of the frames.
_SHOWN_BY_NO_LINE = ("VIDEO_CUT", "FRAMES_DAMAGED")


def emit(result: Mapping[str, Any]) -> None:
    """Write one JSON object as one line to stdout and flush it."""
    sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Write one line of text to stdout. Characters that the encoding of stdout lacks are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def box_fields(box: Box | None, width: int, height: int) -> dict[str, Any]:
    """Return ``box`` and ``box_px`` as the track lines write them."""
    return {
        "box": None if box is None else [round(v, 6) for v in box],
        "box_px": None if box is None else [round(v, 2) for v in box.to_px(width, height)],
    }


def warn(problems: Iterable[tuple[str, str]], json: bool) -> None:
    """Write each problem (code and sentence) to stderr, and with ``json`` what no other line shows to stdout."""
    for code, message in problems:
        sys.stderr.write(f"elysium: {message}\n")
        if json and code in _SHOWN_BY_NO_LINE:
            emit({"warning": {"code": code, "message": message}})


def configure_logging(verbose: bool) -> None:
    """Send the log of the ``elysium_core`` loggers to stderr: warnings, or everything if ``verbose``.

    Other libraries show errors only, or warnings too if ``verbose``: users cannot act on the rest.
    """
    level = logging.WARNING if verbose else logging.ERROR
    logging.basicConfig(stream=sys.stderr, level=level, format="elysium: %(levelname)s: %(message)s")
    logging.getLogger("elysium_core").setLevel(logging.INFO if verbose else logging.WARNING)


class Progress(AbstractContextManager["Progress"]):
    """A progress bar on stderr, shown only where stderr is a terminal.

    Args:
        title: Name of the task.
        total: Total number of steps, None if unknown.
    """

    def __init__(self, title: str, total: int | None) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                "{task.description}",
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                "left",
                "{task.fields[note]}",
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, note="")

    def advance(self, note: str = "") -> None:
        """Count one step.

        Args:
            note: Shown until the next step.
        """
        if self._bar is not None:
            self._bar.update(self._task, advance=1, note=note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
