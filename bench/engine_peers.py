"""Comparison of our engine with transformers' ``generate``: same weights, prompts and frames.

Visual tokens are computed beforehand. transformers gets embeddings, so that only our side pays for
tokenizer, drafts and parsing. All sides are timed in turns within one run, and no ratio is given if
the machine was not idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.engine_cost import Subject, run_stream, script, stream_runtime
from bench.engine_recording import Asked, IndexedVision, RecordingRuntime, indexed_frame
from bench.hf_decoder import HfDecoder
from elysium_core.device import synchronize
from elysium_core.families.elysium import as_elysium
from elysium_core.frames import ClipWindow
from elysium_core.tracking.clip import SINGLE_CLIP_FRAMES, ClipTracker
from elysium_core.types import TrackerStats

MIN_FRAMES = SINGLE_CLIP_FRAMES + 1
"""Fewest frames of a scene: shorter recordings are a single clip by the paper's protocol."""

CLIP, HF_LIVE, HF_CLIPS = "clip", "hf live", "hf clips"


def stream_name(window: str) -> str:
    """Return the name of our stream with a window."""
    return f"stream, {window}"


def same_prompts_name(name: str) -> str:
    """Return the name of transformers with the prompts of one of our streams."""
    return f"hf, prompts of {name}"


@dataclass(frozen=True, slots=True)
class PeerCost:
    """The cost of one way to answer the same frames.

    Attributes:
        name: ``stream, ...`` and ``clip`` are ours. ``hf live`` is the published way, for every new frame: the
            whole clip so far is encoded again and the whole answer generated. ``hf clips`` is the published
            evaluation: one answer for every complete clip. ``hf, prompts of ...`` gets the prompts of our stream
            and generates the newest box only.
        passes: Forward passes a frame.
        tokens: Input tokens a frame.
        seconds: Median time of the whole run [s]; None if it was not timed.
        identical: Number of our answers that transformers gives, too; None if prompts differ or answers are scripted.
        answers: Number of answers compared.
    """

    name: str
    passes: float
    tokens: float
    seconds: float | None = None
    identical: int | None = None
    answers: int = 0


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """The costs of all ways, and the ratios of their times.

    Attributes:
        clip_length: Frames of a clip, and of a growing window, at most.
        frames: Frames of the scene.
        peers: The cost of every way.
        ratios: Speed-up by (baseline, ours); empty if nothing was timed.
    """

    clip_length: int
    frames: int
    peers: tuple[PeerCost, ...]
    ratios: Mapping[tuple[str, str], Ratio] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "clip_length": self.clip_length,
            "frames": self.frames,
            "peers": [asdict(peer) for peer in self.peers],
            "ratios": [
                {"baseline": baseline, "ours": ours, **asdict(ratio)} for (baseline, ours), ratio in self.ratios.items()
            ],
        }


def measure_peers(
    subject: Subject, windows: Sequence[str], turns: int, clip_length: int | None = None, clock: str = "wall"
) -> PeerComparison:
    """Answer the same frames in several ways, compare the answers, and time the ways in turns.

    Args:
        subject: A subject of at least :data:`MIN_FRAMES` frames; only its first target is tracked.
        windows: Windows of our streams.
        turns: Timed runs of each way; 0 = no times.
        clip_length: Most frames of a clip and of a growing window; None = the model's own. A model that was
            trained on shorter clips does not answer longer ones in its format.
        clock: A key of :data:`CLOCKS`.
    """
    subject = replace(subject, clip_length=clip_length or subject.clips_of)
    ours = _Ours(subject, windows)
    theirs = _Theirs(subject, ours)
    peers = [*ours.costs, *theirs.costs()]
    runs = ours.runs | theirs.timed
    times = time_in_turns(runs, turns, subject.runtime.device, clock) if turns else {}
    pairs = [(baseline, name) for name in ours.runs for baseline in theirs.timed if times]
    ratios = {(baseline, name): compare(times[baseline], times[name]) for baseline, name in pairs}
    return PeerComparison(
        subject.clips_of, len(subject.scene.images), tuple(_with_time(p, times) for p in peers), ratios
    )


def _with_time(peer: PeerCost, times: Mapping[str, Seconds]) -> PeerCost:
    return replace(peer, seconds=float(np.median(times[peer.name]))) if peer.name in times else peer


class _Ours:
    """Our ways to answer, run once.

    Attributes:
        costs: The cost of each.
        asked: Questions and answers of each, by name; those of a growing stream are always included.
        runs: Functions that run each again, by name.
    """

    def __init__(self, subject: Subject, windows: Sequence[str]) -> None:
        frames = len(subject.scene.images)
        self.costs: list[PeerCost] = []
        self.asked: dict[str, list[Asked]] = {}
        self.runs: dict[str, Callable[[], object]] = {}
        for window in dict.fromkeys([*windows, "growing"]):
            name, runtime = stream_name(window), stream_runtime(subject, [0], keeps_prompts=True)
            run = run_stream(subject, runtime, window, [0])
            self.asked[name] = runtime.asked
            if window in windows:
                self.costs.append(PeerCost(name, sum(run.passes) / frames, sum(run.tokens) / frames))
                self.runs[name] = partial(_follow, subject, window)
        runtime = _clip_runtime(subject, keeps_prompts=True)
        stats = _run_clips(subject, runtime)
        self.asked[CLIP] = runtime.asked
        self.costs.append(PeerCost(CLIP, stats.llm_passes / frames, stats.llm_tokens / frames))
        self.runs[CLIP] = lambda: _run_clips(subject, _clip_runtime(subject))


def _follow(subject: Subject, window: str) -> object:
    return run_stream(subject, stream_runtime(subject, [0]), window, [0])


class _Theirs:
    """The ways of transformers to answer the same questions.

    Attributes:
        timed: Functions that run those that are timed; the others only show that the answers are the same.
    """

    def __init__(self, subject: Subject, ours: _Ours) -> None:
        self._frames = len(subject.scene.images)
        self._hf = hf = HfDecoder(as_elysium(subject.runtime.family).network.llm, subject.runtime.tokenizer.eos_id)
        self._forced = forced = subject.scripted
        growing = ours.asked[stream_name("growing")]
        self.timed: dict[str, Callable[[], list[list[int]]]] = {
            HF_LIVE: lambda: [_generate_anew(hf, asked, forced) for asked in growing],
            HF_CLIPS: lambda: [_generate(hf, asked, forced) for asked in ours.asked[CLIP]],
        }
        self._judged = {HF_CLIPS: ours.asked[CLIP]}
        self._judged |= {same_prompts_name(name): ours.asked[name] for name in ours.runs if name != CLIP}

    def costs(self) -> list[PeerCost]:
        """Run each way once, and compare the answers."""
        alike = {name: partial(self._answer_all, asked) for name, asked in self._judged.items()}
        return [self._cost(name, run) for name, run in (alike | self.timed).items()]

    def _answer_all(self, asked: Sequence[Asked]) -> list[list[int]]:
        return [_generate(self._hf, one, self._forced) for one in asked]

    def _cost(self, name: str, run: Callable[[], list[list[int]]]) -> PeerCost:
        self._hf.passes = self._hf.tokens = 0
        answers = run()
        cost = PeerCost(name, self._hf.passes / self._frames, self._hf.tokens / self._frames, answers=len(answers))
        if self._forced or name not in self._judged:
            return cost
        own = [asked.answer.token_ids for asked in self._judged[name]]
        return replace(cost, identical=sum(mine == other for mine, other in zip(own, answers, strict=True)))


def _generate(hf: HfDecoder, asked: Asked, forced: bool) -> list[int]:
    """Return what transformers generates after a prompt of ours."""
    return hf.generate(asked.prompt, asked.max_new_tokens, asked.answer.token_ids if forced else None)


def _generate_anew(hf: HfDecoder, asked: Asked, forced: bool) -> list[int]:
    """Return what transformers generates if the prompt contains no part of the answer."""
    longest = asked.max_new_tokens + len(asked.given_ids)
    return hf.generate(asked.bare_prompt, longest, asked.whole_answer if forced else None)


def _clip_runtime(subject: Subject, **keeps: bool) -> RecordingRuntime:
    spans = ClipWindow(subject.clips_of, 1).spans(len(subject.scene.images))
    clips = (range(start, stop) for start, stop in spans)
    return RecordingRuntime(subject.runtime, IndexedVision(subject.visual), script(subject, [0], clips), **keeps)


def _run_clips(subject: Subject, runtime: RecordingRuntime) -> TrackerStats:
    """Track the first target by the paper's protocol."""
    tracker = ClipTracker(runtime, replace(subject.following("growing", 1), mode="clip"))
    tracker.add(box=subject.scene.boxes[0][0])
    for step in range(len(subject.scene.images)):
        tracker.step(indexed_frame(step, step, subject.rate_hz))
    tracker.flush()
    return tracker.stats


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""Clocks by name: wall time, or processor time, which depends less on other programs."""

MAX_SPREAD = 0.30
"""Largest spread of a baseline's times, (upper quartile - lower quartile) / median, for which a ratio is given."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The speed-up over a baseline.

    Attributes:
        quartiles: Lower quartile, median and upper quartile of baseline time over our time; empty if refused.
        spread: Spread of the baseline's times.
        refused: Why no ratio is given; empty if one is.
    """

    quartiles: tuple[float, ...]
    spread: float
    refused: str = ""


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    turns: int,
    device: torch.device,
    clock: str = "wall",
) -> dict[str, Seconds]:
    """Time several functions in turns, A, B, C, A, B, C, ..., so that a change of the machine's load affects all.

    Nothing is warmed up.

    Args:
        runs: The functions, by name.
        turns: Number of runs of each.
        device: The device whose work is waited for.
        clock: A key of :data:`CLOCKS`.

    Returns:
        The times of each function [s], each of shape (turns,).
    """
    now = CLOCKS[clock]
    times = {name: np.empty(turns) for name in runs}
    for turn in range(turns):
        for name, run in runs.items():
            started = now()
            run()
            synchronize(device)
            times[name][turn] = now() - started
    return times


def compare(baseline: Seconds, ours: Seconds) -> Ratio:
    """Return the ratio of two series of :func:`time_in_turns`; it is refused if the baseline's times vary too much."""
    low, middle, high = np.percentile(baseline, (25, 50, 75))
    spread = float((high - low) / middle)
    if spread > MAX_SPREAD:
        reason = f"the baseline's times vary by {spread:.0%}, over {MAX_SPREAD:.0%}; run on an idle machine"
        return Ratio((), spread, reason)
    return Ratio(tuple(float(value) for value in np.percentile(baseline / ours, (25, 50, 75))), spread)
