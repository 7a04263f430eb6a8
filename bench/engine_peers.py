"""Our engine against transformers' ``generate``: the same weights, prompts and frames, in one run.

Visual tokens are computed beforehand for all. transformers is given ready embeddings:
tokenizer, drafts and parsing are on our account alone.

Times that may be compared: taken in turns in one run, and refused where the machine was not quiet.
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
from elysium_core.families.elysium import as_elysium
from elysium_core.frames import ClipWindow
from elysium_core.tracking.clip import SINGLE_CLIP_FRAMES, ClipTracker
from elysium_core.types import TrackerStats

MIN_FRAMES = SINGLE_CLIP_FRAMES + 1
"""Shorter recordings are one clip by the paper's protocol, not several."""

CLIP, HF_LIVE, HF_CLIPS = "clip", "hf live", "hf clips"


def stream_name(window: str) -> str:
    """Name of our stream with a window."""
    return f"stream, {window}"


def same_prompts_name(name: str) -> str:
    """Name of transformers answering the very prompts of one of our streams."""
    return f"hf, prompts of {name}"


@dataclass(frozen=True, slots=True)
class PeerCost:
    """One way of answering the same frames.

    Attributes:
        name: ``stream, ...`` and ``clip`` are ours. ``hf live`` is the published way for every new frame: the
            growing clip anew, its whole answer from the first word on. ``hf clips`` is the published evaluation:
            the answer of every clip, when the clip is complete. ``hf, prompts of ...`` writes the newest box
            alone, behind exactly what our stream was asked.
        passes: Forward passes a frame.
        tokens: Tokens fed a frame.
        seconds: Median time of the whole run [s]; None if it was not timed.
        identical: Answers of ours that transformers gives, too; None where prompts differ, or answers are scripted.
        answers: Answers compared.
    """

    name: str
    passes: float
    tokens: float
    seconds: float | None = None
    identical: int | None = None
    answers: int = 0


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """Our ways against transformers'.

    Attributes:
        clip_length: Frames of a clip, and of a growing window, at most.
        frames: Frames of the recording.
        peers: Every way, measured.
        ratios: Baseline and ours -> how many times faster ours is; empty if nothing was timed.
    """

    clip_length: int
    frames: int
    peers: tuple[PeerCost, ...]
    ratios: Mapping[tuple[str, str], Ratio] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same in JSON's own types."""
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
    """Answer the same frames in several ways, compare the answers, and time them in turns.

    Args:
        subject: Of at least :data:`MIN_FRAMES` frames; only its first target is followed.
        windows: Windows of our streams.
        turns: Timed turns, after one that counts and compares; 0 = no times.
        clip_length: Frames of a clip, and of a growing window, at most; None = as the checkpoint recommends, for one
            that was trained on shorter clips than the published 8 does not keep to its form in those.
        clock: See :data:`bench.engine_peers.CLOCKS`.
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
    """Our ways, run once; what they were asked is kept.

    Attributes:
        costs: What each has cost.
        asked: Questions and answers of each, by name; those of a growing stream are always there.
        runs: Each again, nothing kept.
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
    """transformers' ways of answering what we were asked.

    Attributes:
        timed: Those that are timed; the others only show that the answers are the same.
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
        """Run each once, and compare the answers."""
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
    """What transformers writes behind a prompt of ours."""
    return hf.generate(asked.prompt, asked.max_new_tokens, asked.answer.token_ids if forced else None)


def _generate_anew(hf: HfDecoder, asked: Asked, forced: bool) -> list[int]:
    """What transformers writes when it is given no part of the answer."""
    longest = asked.max_new_tokens + len(asked.given_ids)
    return hf.generate(asked.bare_prompt, longest, asked.whole_answer if forced else None)


def _clip_runtime(subject: Subject, **keeps: bool) -> RecordingRuntime:
    spans = ClipWindow(subject.clips_of, 1).spans(len(subject.scene.images))
    clips = (range(start, stop) for start, stop in spans)
    return RecordingRuntime(subject.runtime, IndexedVision(subject.visual), script(subject, [0], clips), **keeps)


def _run_clips(subject: Subject, runtime: RecordingRuntime) -> TrackerStats:
    """Follow the first target by the paper's protocol."""
    tracker = ClipTracker(runtime, replace(subject.following("growing", 1), mode="clip"))
    tracker.add(box=subject.scene.boxes[0][0])
    for step in range(len(subject.scene.images)):
        tracker.step(indexed_frame(step, step, subject.rate_hz))
    tracker.flush()
    return tracker.stats


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""What may be told as time: what passes, or what this process has computed, which others on the machine change less."""

MAX_SPREAD = 0.30
"""Largest spread of a baseline's times, (upper quartile - lower quartile) / median, at which a ratio is told."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster something is than a baseline.

    Attributes:
        quartiles: Of baseline over ours, turn by turn: lower, median, upper; empty if refused.
        spread: The baseline's own spread.
        refused: Why no ratio is told; empty if it is.
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
    """Seconds of each run in each turn: A, B, C, A, B, C, ...

    A change of the machine's load meets all of them. Nothing is warmed up here.

    Args:
        runs: What to time, by name.
        turns: How often.
        device: What has to be waited for.
        clock: One of :data:`CLOCKS`.
    """
    now = CLOCKS[clock]
    times = {name: np.empty(turns) for name in runs}
    for turn in range(turns):
        for name, run in runs.items():
            started = now()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name][turn] = now() - started
    return times


def compare(baseline: Seconds, ours: Seconds) -> Ratio:
    """The ratio of two series of :func:`time_in_turns`, refused if the baseline's own times spread too much."""
    low, middle, high = np.percentile(baseline, (25, 50, 75))
    spread = float((high - low) / middle)
    if spread > MAX_SPREAD:
        reason = f"the baseline's own times spread by {spread:.0%}, over {MAX_SPREAD:.0%}: run on a quiet machine"
        return Ratio((), spread, reason)
    return Ratio(tuple(float(value) for value in np.percentile(baseline / ours, (25, 50, 75))), spread)
