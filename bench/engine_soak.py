"""Long streams: growth of memory and passes, and time of a frame."""

from __future__ import annotations

import gc
import itertools
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from bench.engine_cost import Subject, script
from bench.engine_recording import IndexedVision, RecordingRuntime, indexed_frame, stamp_ns
from bench.memory import allocated_bytes, held_bytes
from elysium_core.device import synchronize
from elysium_core.families.elysium import as_elysium
from elysium_core.frames import Frame
from elysium_core.tracking.stream import StreamTracker

CAMERA_PX = (640, 480)
"""Width and height of the camera frames [px]."""

MIN_FRAMES = 20
"""Fewest frames of a run; fewer show no growth."""

LIMIT = 0.01
"""A smaller relative growth than this counts as none."""

_SPAN_FRAMES = 1000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Holdings:
    """Memory of a stream at one moment; None where the system does not count it.

    Attributes:
        kv_tokens: Largest capacity of the KV caches so far [tokens].
        memory_bytes: Memory of the process, or torch's on the GPU [bytes].
        allocated_bytes: The part of it that is in use [bytes].
        python_blocks: Number of small objects of Python.
    """

    kv_tokens: int
    memory_bytes: int | None
    allocated_bytes: int | None
    python_blocks: int


@dataclass(frozen=True, slots=True)
class SoakCost:
    """The cost of a long stream, in its second and in its last span.

    A *span* is about a thousand frames, or a tenth of a shorter run: so many that the scene and the swaps repeat
    exactly, so that two spans need the same work. The first span is for warming up.

    Attributes:
        window: ``anchor`` or ``growing``.
        frames: Frames seen.
        targets: Targets tracked at any moment.
        swaps: Number of times a target was removed and started again.
        vision: Frames of 640x480 px went through the vision encoder; otherwise visual tokens were precomputed.
        ms: Time of ``step``: median, 95th and 99th percentile [ms], without the first span.
        frames_per_second: Frame rate, without the first span.
        passes_early: Forward passes a frame in the second span.
        passes_late: The same in the last span.
        early: Memory after the first span.
        late: Memory at the end.
    """

    window: str
    frames: int
    targets: int
    swaps: int
    vision: bool
    ms: tuple[float, float, float]
    frames_per_second: float
    passes_early: float
    passes_late: float
    early: Holdings
    late: Holdings

    @property
    def growth(self) -> dict[str, float | None]:
        """Relative growth from early to late, by name; None where the system does not count it."""
        pairs = {
            "KV": (self.early.kv_tokens, self.late.kv_tokens),
            "memory": (self.early.memory_bytes, self.late.memory_bytes),
            "allocated": (self.early.allocated_bytes, self.late.allocated_bytes),
            "Python objects": (self.early.python_blocks, self.late.python_blocks),
            "passes": (self.passes_early, self.passes_late),
        }
        return {name: late / early - 1 if early and late is not None else None for name, (early, late) in pairs.items()}

    @property
    def grown(self) -> list[str]:
        """Names of everything that grew by :data:`LIMIT` or more."""
        return [name for name, share in self.growth.items() if share is not None and share >= LIMIT]

    @property
    def memory_mib(self) -> float | None:
        """Memory after the first span [MiB]."""
        return self.early.memory_bytes / _MIB if self.early.memory_bytes else None

    @property
    def memory_growth(self) -> float | None:
        """Relative growth of the memory."""
        return self.growth["memory"]

    @property
    def kv_early(self) -> int:
        """Capacity of the KV caches after the first span [tokens]."""
        return self.early.kv_tokens

    @property
    def kv_late(self) -> int:
        """Capacity of the KV caches at the end [tokens]."""
        return self.late.kv_tokens


def measure_soak(
    subject: Subject,
    window: str,
    frames: int,
    advance: Callable[[], object] = lambda: None,
    *,
    targets: int = 1,
    swap_every: int = 0,
) -> SoakCost:
    """Track targets for a long time.

    Args:
        subject: The model and its scene, which is played forwards and backwards.
        window: Window of the stream.
        frames: Number of frames, >= :data:`MIN_FRAMES`.
        advance: Called after every frame.
        targets: Targets at any moment, at most those of the scene.
        swap_every: After this many frames the oldest target is removed and started again; 0 = never.

    Raises:
        ValueError: Targets are swapped, and answers are scripted: a script has a fixed order of targets.
    """
    if swap_every and subject.scripted:
        raise ValueError(f"swap_every = {swap_every} needs the answers of a model; with scripted answers it must be 0")
    run = _Run(subject, window, targets)
    seconds, passes = np.zeros(frames), np.zeros(frames, np.int64)
    span = _span(frames, 2 * (len(subject.scene.images) - 1), swap_every)
    swaps = 0
    early = None
    for step in range(frames):
        seconds[step] = run.step(step)
        passes[step] = run.tracker.stats.llm_passes
        if swap_every and step % swap_every == swap_every - 1:
            run.swap_oldest(step)
            swaps += 1
        if step == span:
            early = run.holdings()
        advance()
    asked, timed = np.diff(passes), seconds[span:]
    p50, p95, p99 = (float(value) for value in np.percentile(1000 * timed, (50, 95, 99)))
    late = run.holdings()
    return SoakCost(
        window=window,
        frames=frames,
        targets=targets,
        swaps=swaps,
        vision=not subject.scripted,
        ms=(p50, p95, p99),
        frames_per_second=float(len(timed) / timed.sum()),
        passes_early=float(asked[span : 2 * span].mean()),
        passes_late=float(asked[-span:].mean()),
        early=early or late,
        late=late,
    )


def _span(frames: int, round_frames: int, swap_every: int) -> int:
    """Return the length of a span [frames]; see :class:`SoakCost`."""
    longest = min(_SPAN_FRAMES, frames // 10)
    whole = math.lcm(round_frames, swap_every or 1)
    return longest - longest % whole or longest


class _Run:
    """A stream of any length."""

    def __init__(self, subject: Subject, window: str, targets: int) -> None:
        self._scene, self._device = subject.scene, subject.runtime.device
        # In the order in which the targets were added.
        self._tracks = list(subject.scene.boxes[:targets])
        self._runtime, self._make_frame = self._player(subject)
        self.tracker = StreamTracker(self._runtime, subject.following(window, targets))
        for track in self._tracks:
            self.tracker.add(box=track[0])

    def step(self, step: int) -> float:
        """Track the next frame; return the time it took [s]."""
        frame = self._make_frame(step)
        started = time.perf_counter()
        self.tracker.step(frame)
        return time.perf_counter() - started

    def swap_oldest(self, step: int) -> None:
        """Remove the oldest target, and add it again at its present place."""
        oldest = self._tracks.pop(0)
        self.tracker.remove(self.tracker.target_ids[0])
        self.tracker.add(box=oldest[self._scene.place(step)])
        self._tracks.append(oldest)

    def holdings(self) -> Holdings:
        """Return the memory after collecting garbage."""
        gc.collect()
        synchronize(self._device)
        return Holdings(
            kv_tokens=self._runtime.kv_tokens,
            memory_bytes=held_bytes(self._device),
            allocated_bytes=allocated_bytes(self._device),
            python_blocks=sys.getallocatedblocks(),
        )

    def _player(self, subject: Subject) -> tuple[RecordingRuntime, Callable[[int], Frame]]:
        """Return a runtime for the stream, and a function that makes its frames."""
        base, scene, rate_hz = subject.runtime, subject.scene, subject.rate_hz
        if subject.scripted:
            spans = ([scene.place(step)] for step in itertools.count(1))
            answers = script(subject, range(len(self._tracks)), spans)
            runtime = RecordingRuntime(base, IndexedVision(subject.visual), answers)
            return runtime, lambda step: indexed_frame(scene.place(step), step, rate_hz)
        pictures = [cv2.resize(image, CAMERA_PX) for image in scene.images]

        def make_frame(step: int) -> Frame:
            return Frame(pictures[scene.place(step)], stamp_ns=stamp_ns(step, rate_hz), index=step)

        return RecordingRuntime(base, as_elysium(base.family).vision), make_frame
