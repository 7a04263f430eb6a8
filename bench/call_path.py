"""The calls that the camera thread and the inference thread of a node in this process make for one image."""

from __future__ import annotations

import os
import statistics
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from elysium_ros.node import executors
from elysium_ros.perception.worker import INFERENCE_THREAD

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = (f"{_ROOT / 'elysium_core'}{os.sep}", f"{_ROOT / 'elysium_ros'}{os.sep}")
# The executor calls these for every entity whenever it waits; they do not belong to an image.
_WAITING = executors.__file__
_THREADS = (executors.CAMERA_THREAD, INFERENCE_THREAD)


@dataclass(frozen=True, slots=True)
class Step:
    """One function on the path.

    Attributes:
        thread: Name of the thread of its first call.
        file: Path below the repository.
        function: Qualified name.
        calls: How often it was called for this image; each resumption of a generator counts.
    """

    thread: str
    file: str
    function: str
    calls: int


@dataclass(frozen=True, slots=True)
class ImagePath:
    """The path of one image.

    Attributes:
        steps: The functions, in the order of their first calls.
    """

    steps: tuple[Step, ...]

    @property
    def files(self) -> int:
        """Number of files on the path."""
        return len({step.file for step in self.steps})

    @property
    def functions(self) -> int:
        """Number of functions on the path."""
        return len(self.steps)

    @property
    def calls(self) -> int:
        """Number of calls on the path."""
        return sum(step.calls for step in self.steps)

    def within(self, package: str) -> ImagePath:
        """Return the part of the path inside one package."""
        return ImagePath(tuple(step for step in self.steps if step.file.startswith(f"{package}/")))

    def totals(self) -> dict[str, int]:
        """Return the three numbers."""
        return {"files": self.files, "functions": self.functions, "calls": self.calls}


class Tracer:
    """Records the calls in the two threads that process an image, between :meth:`begin` and :meth:`end`.

    Make it before those threads start: Python before 3.12 can only hook threads that start later.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[str, str, str]] = []
        self._recording = False
        threading.setprofile(self._on_event)

    def close(self) -> None:
        """Hook no more threads."""
        threading.setprofile(None)

    @property
    def count(self) -> int:
        """Calls recorded since :meth:`begin`."""
        return len(self._calls)

    def begin(self) -> None:
        """Forget what was recorded and record from now on."""
        self._calls = []
        self._recording = True

    def end(self) -> ImagePath:
        """Stop recording; return the path."""
        self._recording = False
        calls = self._calls
        counts = Counter((file, function) for _, file, function in calls)
        first = {(file, function): thread for thread, file, function in reversed(calls)}
        return ImagePath(
            tuple(
                Step(first[key], str(Path(key[0]).relative_to(_ROOT)), key[1], counts[key])
                for key in dict.fromkeys((file, function) for _, file, function in calls)
            )
        )

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self._recording or event != "call":
            return
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGES) or code.co_filename == _WAITING:
            return
        thread = threading.current_thread().name
        if thread in _THREADS:
            self._calls.append((thread, code.co_filename, code.co_qualname))


def median_path(paths: Sequence[ImagePath]) -> ImagePath:
    """Return the path with the median number of calls, one that has really occurred."""
    middle = statistics.median_low([path.calls for path in paths])
    return next(path for path in paths if path.calls == middle)


def lines(path: ImagePath) -> Iterator[str]:
    """Yield the path as text for people, one function a line, a heading for each change of the file."""
    file = ""
    for step in path.steps:
        if step.file != file:
            file = step.file
            yield f"{file}  [{step.thread}]"
        yield f"    {step.calls:4d}  {step.function}"
    for name, part in (("elysium_ros", path.within("elysium_ros")), ("elysium_core", path.within("elysium_core"))):
        yield f"{name}: {part.files} files, {part.functions} functions, {part.calls} calls"
    yield f"together: {path.files} files, {path.functions} functions, {path.calls} calls"
