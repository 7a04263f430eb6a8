"""``python -m bench.following``: how well a given box is followed, and what states and scores are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from bench.altered_frames import ALTERATIONS, PAINTED_OUT, gone_from
from elysium_core.calibration import calibration_error
from elysium_core.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError
from elysium_core.evaluation.metrics import overlaps
from elysium_core.evaluation.protocols import DEFAULT_PROTOCOL, get_protocol
from elysium_core.evaluation.scoring import score_benchmark
from elysium_core.evaluation.track_recording import TrackingTask, track_recording
from elysium_core.settings import TrackingConfig
from elysium_core.types import Tracker, TrackState, TrackUpdate

if TYPE_CHECKING:
    from elysium_core.data.readers.labelled_recording import LabelledRecording
    from elysium_core.evaluation.results import TrackResult

_RIGHT_FROM, _ELSEWHERE = 0.5, 0.1
_DOUBT_WITHIN = 10


@dataclass(slots=True)
class WatchedTracker:
    """Passes everything on to a tracker, and keeps its updates.

    Attributes:
        tracker: The tracker.
        updates: What it said.
    """

    tracker: Tracker
    updates: list[TrackUpdate] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        """What is not watched is the tracker's."""
        return getattr(self.tracker, name)

    def step(self, frame: Any) -> list[TrackUpdate]:
        """Process one frame; keep what is said."""
        updates = self.tracker.step(frame)
        self.updates += updates
        return updates


@dataclass(slots=True)
class Followed:
    """One recording and what the tracker said about it.

    Attributes:
        result: Boxes and truth.
        updates: One for each frame.
        gone_from: First frame without the target, in a recording where it was painted out.
    """

    result: TrackResult
    updates: Sequence[TrackUpdate]
    gone_from: int | None = None

    def judged(self) -> Iterator[tuple[TrackUpdate, float]]:
        """Yield each update of the frames that show the target, but the first, with the IoU of its box (0 without)."""
        overlap = np.nan_to_num(overlaps(self.result.predicted_xywh_px, self.result.truth_xywh_px))
        for update in self.updates:
            index = update.frame_index
            if index > 0 and (self.gone_from is None or index < self.gone_from):
                yield update, float(overlap[index])


@dataclass(frozen=True, slots=True)
class FollowingFigures:
    """Figures of one alteration; shares are 0..1, None where nothing was counted.

    Attributes:
        auc: ``ope-lasot``, mean of the recordings; None where the target is painted out.
        tracked: Share of the frames with the target that are called TRACKED.
        elsewhere: Share of the TRACKED frames whose box has an IoU below .1.
        calibration_error: ECE of the scores against IoU >= .5.
        doubted: Share of the recordings, followed until the target was gone, whose state was another one than TRACKED
            within ten frames.
        on_something_else: Share of the later frames that are called TRACKED.
    """

    auc: float | None
    tracked: float | None
    elsewhere: float | None
    calibration_error: float | None
    doubted: float | None = None
    on_something_else: float | None = None


def command(
    data: Annotated[Path, typer.Option("--data", help="Recordings in the layout of folder (docs/evaluation.md).")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model.")] = DEFAULT_MODEL,
    alteration: Annotated[
        list[str] | None, typer.Option("--only", help=f"Repeatable: {', '.join(ALTERATIONS)}. All if not given.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Follow the first box of each recording, as it is, in other light and colour, and with the target painted out."""
    from elysium_core.api import Elysium
    from elysium_core.data.readers.annotation_files import usable
    from elysium_core.data.readers.catalog import get_tracking_benchmark

    if unknown := set(alteration or ()) - set(ALTERATIONS):
        raise ConfigError(f"--only {min(unknown)!r} is not one of {', '.join(ALTERATIONS)}")
    found = get_tracking_benchmark("folder").read(data, "", _left_out)
    recordings = list(usable(found, TrackingTask().checked, _left_out))
    loaded = Elysium.from_pretrained(model, device=device)
    # As in elysium eval: one target that is never removed.
    config = TrackingConfig(max_targets=1, remove_after_s=0.0).resolved(loaded.info.clip_length)
    for name in alteration or ALTERATIONS:
        followed = follow_all(recordings, name, lambda: loaded.tracker(config=config))
        figures = figures_of(followed)
        if json:
            emit({"alteration": name, "recordings": len(followed), **asdict(figures)})
        else:
            say(f"{name:16s} {sentence(figures)}")


def follow_all(
    recordings: Sequence[LabelledRecording], alteration: str, new_tracker: Callable[[], Tracker]
) -> list[Followed]:
    """Follow the first box of each recording.

    Args:
        recordings: The recordings.
        alteration: A name of :data:`bench.altered_frames.ALTERATIONS`.
        new_tracker: Makes a tracker.
    """
    followed = []
    with Progress(alteration, len(recordings)) as progress:
        for recording in recordings:
            watched = WatchedTracker(new_tracker())
            altered = ALTERATIONS[alteration](recording)
            result = track_recording(altered, watched, TrackingTask())
            gone = gone_from(recording) if alteration == PAINTED_OUT else None
            followed.append(Followed(result, watched.updates, gone))
            progress.advance()
    return followed


def figures_of(followed: Sequence[Followed]) -> FollowingFigures:
    """Sum up runs of one alteration.

    Raises:
        ConfigError: There is none.
    """
    if not followed:
        raise ConfigError("--data holds no recording with true boxes; its layout is in docs/evaluation.md")
    judged = [pair for run in followed for pair in run.judged()]
    tracked = [overlap for update, overlap in judged if update.state is TrackState.TRACKED]
    scored = [(update.score, overlap >= _RIGHT_FROM) for update, overlap in judged if update.box is not None]
    scores = score_benchmark([run.result for run in followed], get_protocol(DEFAULT_PROTOCOL))
    is_gone = followed[0].gone_from is not None
    doubted, later = _after_it_is_gone(followed)
    return FollowingFigures(
        auc=None if is_gone or scores is None else scores.auc,
        tracked=len(tracked) / len(judged) if judged else None,
        elsewhere=_share(overlap < _ELSEWHERE for overlap in tracked),
        calibration_error=calibration_error([s for s, _ in scored], [r for _, r in scored]) if scored else None,
        doubted=_share(doubted),
        on_something_else=_share(later),
    )


def _after_it_is_gone(followed: Sequence[Followed]) -> tuple[list[bool], list[bool]]:
    """Whether each run doubted in time, and whether each later frame was called TRACKED."""
    doubted, later = [], []
    for run in followed:
        if run.gone_from is None:
            continue
        is_tracked = {update.frame_index: update.state is TrackState.TRACKED for update in run.updates}
        if not is_tracked.get(run.gone_from - 1):
            continue
        end = run.gone_from + _DOUBT_WITHIN
        doubted.append(any(not is_tracked.get(index, False) for index in range(run.gone_from, end)))
        later += [is_tracked.get(index, False) for index in range(end, run.result.frame_count)]
    return doubted, later


def sentence(figures: FollowingFigures) -> str:
    """One line about one alteration."""
    parts = [
        ("AUC {:.1f}", None if figures.auc is None else 100 * figures.auc),
        ("TRACKED {:.0%}", figures.tracked),
        ("of these elsewhere {:.1%}", figures.elsewhere),
        ("ECE {:.3f}", figures.calibration_error),
        ("gone: doubted within 10 frames {:.0%}", figures.doubted),
        ("later TRACKED {:.0%}", figures.on_something_else),
    ]
    return ", ".join(text.format(value) for text, value in parts if value is not None)


def _left_out(error: Exception) -> None:
    say(f"left out: {error}")


def _share(values: Iterable[bool]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


if __name__ == "__main__":
    from bench.app import run

    run("following")
