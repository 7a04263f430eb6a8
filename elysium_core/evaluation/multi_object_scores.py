"""HOTA, IDF1 and MOTA of tracks of many objects, computed by the package ``trackeval``.

``trackeval`` is optional, and only its metrics are used. Before scoring, as in MOT17's protocol, found boxes that match
a true box which does not count are taken away: they are neither right nor wrong.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError, pip_line

TRACKEVAL = "trackeval==1.3.0"
"""The tested version."""
_MATCH_IOU = 0.5

Boxes = Sequence[Sequence[float]]
"""Lines of frame, id, x1, y1, x2, y2 [px], frames from 0."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """The tracks of one name in one recording.

    Attributes:
        frames: Number of frames.
        truth: True boxes that count.
        ignored: True boxes that are neither wanted nor wrong.
        found: The tracker's boxes.
    """

    frames: int
    truth: Boxes
    ignored: Boxes
    found: Boxes


@dataclass(frozen=True, slots=True)
class CrowdFigures:
    """Scores 0..1 (MOTA may be negative), and counts.

    Attributes:
        hota: HOTA, mean over its 19 thresholds.
        detection: DetA, its part for finding.
        association: AssA, its part for keeping identities.
        idf1: IDF1 at IoU .5.
        mota: MOTA at IoU .5.
        recall: Share of true boxes that were found, at IoU .5.
        precision: Share of found boxes that are true, at IoU .5.
        switches: Changes of identity.
        objects: True objects.
        tracks: Found tracks.
    """

    hota: float
    detection: float
    association: float
    idf1: float
    mota: float
    recall: float
    precision: float
    switches: int
    objects: int
    tracks: int


def score_tracks(recordings: Mapping[str, Tracks]) -> CrowdFigures:
    """Score tracks; counts of all recordings are added up before shares are taken, as ``trackeval`` combines them.

    Args:
        recordings: Tracks by any key; one entry for each name in each recording.

    Raises:
        BackendError: ``trackeval`` is not installed (``PACKAGE_MISSING``).
    """
    metrics = _metrics()
    data = {key: _as_data(tracks) for key, tracks in recordings.items()}
    combined = {}
    for name, metric in metrics.items():
        each = {key: metric.eval_sequence(entry) for key, entry in data.items()}
        combined[name] = metric.combine_sequences(each)
    hota, clear, identity = combined["HOTA"], combined["CLEAR"], combined["Identity"]
    return CrowdFigures(
        hota=float(np.mean(hota["HOTA"])),
        detection=float(np.mean(hota["DetA"])),
        association=float(np.mean(hota["AssA"])),
        idf1=float(identity["IDF1"]),
        mota=float(clear["MOTA"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        switches=int(clear["IDSW"]),
        objects=sum(entry["num_gt_ids"] for entry in data.values()),
        tracks=sum(entry["num_tracker_ids"] for entry in data.values()),
    )


def _metrics() -> dict[str, Any]:
    try:
        # It reports on stdout what it does without, and prints the settings of each metric.
        with contextlib.redirect_stdout(io.StringIO()):
            from trackeval import metrics

            quiet = {"PRINT_CONFIG": False}
            return {"HOTA": metrics.HOTA(), "CLEAR": metrics.CLEAR(quiet), "Identity": metrics.Identity(quiet)}
    except ImportError as error:
        raise BackendError(
            f"HOTA, IDF1 and MOTA need trackeval, which is not installed ({error}): {pip_line('--no-deps', TRACKEVAL)} "
            "scipy (without its other dependencies, as one of them replaces the headless OpenCV)",
            code="PACKAGE_MISSING",
        ) from error


def _as_data(tracks: Tracks) -> dict[str, Any]:
    """One recording in the form that the metrics take: ids from 0, and similarities of the boxes of each frame."""
    truth, found = _by_frame(tracks.truth, tracks.frames), _by_frame(tracks.found, tracks.frames)
    ignored = _by_frame(tracks.ignored, tracks.frames)
    found = [_without_ignored(*each) for each in zip(truth, ignored, found, strict=True)]
    true_ids, found_ids = _numbers(truth), _numbers(found)
    return {
        "num_timesteps": tracks.frames,
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(found_ids),
        "num_gt_dets": sum(len(lines) for lines in truth),
        "num_tracker_dets": sum(len(lines) for lines in found),
        "gt_ids": [_ids(lines, true_ids) for lines in truth],
        "tracker_ids": [_ids(lines, found_ids) for lines in found],
        "similarity_scores": [overlaps_of_all(a[:, 2:], b[:, 2:]) for a, b in zip(truth, found, strict=True)],
    }


def _without_ignored(
    truth: NDArray[np.float64], ignored: NDArray[np.float64], found: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The found boxes that do not match a box which does not count better than any that counts."""
    if not len(ignored) or not len(found):
        return found
    from scipy.optimize import linear_sum_assignment

    similarity = overlaps_of_all(np.concatenate([truth, ignored])[:, 2:], found[:, 2:])
    similarity[similarity < _MATCH_IOU] = 0
    rows, columns = linear_sum_assignment(-similarity)
    gone = columns[(similarity[rows, columns] > 0) & (rows >= len(truth))]
    return np.delete(found, gone, axis=0)


def overlaps_of_all(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU (N, M) of boxes (N, 4) with boxes (M, 4), x1 y1 x2 y2."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (first[:, 2:] - first[:, :2]).prod(axis=-1)[:, None] + (second[:, 2:] - second[:, :2]).prod(axis=-1)[None]
    return np.asarray(common / np.maximum(areas - common, 1e-9))


def _by_frame(lines: Boxes, frames: int) -> list[NDArray[np.float64]]:
    every = np.array(lines, np.float64).reshape(-1, 6)
    return [every[every[:, 0] == frame] for frame in range(frames)]


def _numbers(frames: Sequence[NDArray[np.float64]]) -> dict[int, int]:
    ids = sorted({int(value) for lines in frames for value in lines[:, 1]})
    return {value: number for number, value in enumerate(ids)}


def _ids(lines: NDArray[np.float64], numbers: Mapping[int, int]) -> NDArray[np.int64]:
    return np.array([numbers[int(value)] for value in lines[:, 1]], np.int64)
