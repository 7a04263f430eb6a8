"""A stream that goes on: does memory grow, and how long does a frame take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from elysium_core.evaluation.engine_cost import Subject, script
from elysium_core.evaluation.engine_recording import IndexedVision, RecordingRuntime, indexed_frame, stamp_ns
from elysium_core.evaluation.memory import held_bytes
from elysium_core.frames import Frame
from elysium_core.tracking.stream import StreamTracker

CAMERA_PX = (640, 480)
"""Width and height of the pictures that a model with a vision encoder is shown."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SoakCost:
    """A long stream with one target.

    Attributes:
        window: ``anchor`` or ``growing``.
        frames: Frames seen.
        vision: Whether pictures of 640x480 px went through the vision encoder, or visual tokens were ready.
        ms: Time of ``step``: median, 95th and 99th percentile [ms], without the first tenth.
        frames_per_second: Of the same frames.
        passes_early: Forward passes a frame in the second tenth.
        passes_late: The same in the last tenth.
        memory_mib: Memory held after the first tenth [MiB]; None where the system does not tell.
        memory_growth: Its growth from there to the end, as a share.
        kv_early: Tokens there was memory for in the first tenth.
        kv_late: The same at the end.
    """

    window: str
    frames: int
    vision: bool
    ms: tuple[float, float, float]
    frames_per_second: float
    passes_early: float
    passes_late: float
    memory_mib: float | None
    memory_growth: float | None
    kv_early: int
    kv_late: int


def measure_soak(subject: Subject, window: str, frames: int, advance: Callable[[], object] = lambda: None) -> SoakCost:
    """Follow one target for long.

    Args:
        subject: Its scene is played there and back.
        window: Window of the stream.
        frames: Frames, >= 20.
        advance: Called after every frame.
    """
    runtime, make_frame = _player(subject)
    tracker = StreamTracker(runtime, subject.following(window, 1))
    tracker.add(box=subject.scene.boxes[0][0])
    seconds, passes = np.zeros(frames), np.zeros(frames, np.int64)
    settled = frames // 10
    memory = kv = 0
    for step in range(frames):
        frame = make_frame(step)
        started = time.perf_counter()
        tracker.step(frame)
        seconds[step] = time.perf_counter() - started
        passes[step] = tracker.stats.llm_passes
        if step == settled:
            memory, kv = held_bytes(subject.runtime.device) or 0, runtime.kv_tokens
        advance()
    end = held_bytes(subject.runtime.device) or 0
    asked, timed = np.diff(passes), seconds[settled:]
    p50, p95, p99 = (float(value) for value in np.percentile(1000 * timed, (50, 95, 99)))
    return SoakCost(
        window=window,
        frames=frames,
        vision=not subject.scripted,
        ms=(p50, p95, p99),
        frames_per_second=float(len(timed) / timed.sum()),
        passes_early=float(asked[settled : 2 * settled].mean()),
        passes_late=float(asked[-settled:].mean()),
        memory_mib=memory / _MIB if memory else None,
        memory_growth=end / memory - 1 if memory else None,
        kv_early=kv,
        kv_late=runtime.kv_tokens,
    )


def _player(subject: Subject) -> tuple[RecordingRuntime, Callable[[int], Frame]]:
    """A runtime for an endless stream, and what makes its frames."""
    base, scene, rate_hz = subject.runtime, subject.scene, subject.rate_hz
    spans = ([scene.place(step)] for step in itertools.count(1))
    if subject.scripted:
        runtime = RecordingRuntime(base, IndexedVision(subject.visual), script(subject, [0], spans))
        return runtime, lambda step: indexed_frame(scene.place(step), step, rate_hz)
    pictures = [cv2.resize(image, CAMERA_PX) for image in scene.images]

    def make_frame(step: int) -> Frame:
        return Frame(pictures[scene.place(step)], stamp_ns=stamp_ns(step, rate_hz), index=step)

    return RecordingRuntime(base, base.vision), make_frame
