"""Result files of a tracking run: one JSON file per recording, written atomically.

A result file holds the ground truth and the answers. A run can therefore be scored
again by any protocol without the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import DataError
from elysium_core.evaluation.metrics import Floats, FrameSize
from elysium_core.io.files import atomic_path

RESULT_FOLDER = "recordings"
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class TrackResult:
    """Answers and ground truth for one target in one recording of N frames.

    Attributes:
        name: Name of the recording, unique in its benchmark.
        predicted_xywh_px: Shape (N, 4) [px], 0-based; a NaN row is a frame without a box.
        truth_xywh_px: Shape (N, 4) [px], 0-based; a NaN row is a frame without a true box.
        absent: Shape (N,); frames where the data set marks the target as absent.
        frame_size: Width and height of the first frame [px].
        first_box_given: Whether the tracker got the first true box (SOT) or only words (RSOT).
        pixel_origin: 1 if the data set counts pixels from 1 (MATLAB), else 0.
        first_box_only: Whether the truth is only the first box (test servers), so nothing can be scored.
        expression: The words that were followed, if any: those that the tracker got, or, if it got the first box, its
            own words for what is in it.
        failures: Frames without a box, by reason.
        parse_failures: Answers of the model without a usable box, by reason.
        seconds: Wall time of the tracker, without reading frames [s].
        frame_sizes: Shape (N, 2) [px], if not all frames have ``frame_size``; None if they have.

    Raises:
        DataError: The arrays differ in length.
    """

    name: str
    predicted_xywh_px: Floats
    truth_xywh_px: Floats
    absent: NDArray[np.bool_]
    frame_size: tuple[int, int]
    first_box_given: bool = True
    pixel_origin: int = 0
    first_box_only: bool = False
    expression: str = ""
    failures: dict[str, int] = field(default_factory=dict)
    parse_failures: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    frame_sizes: Floats | None = None

    def __post_init__(self) -> None:
        frames = len(self.truth_xywh_px)
        shapes = (self.predicted_xywh_px.shape, self.truth_xywh_px.shape, self.absent.shape)
        if frames == 0 or shapes != ((frames, 4), (frames, 4), (frames,)):
            raise DataError(
                f"result {self.name!r} has arrays of shape {shapes} for predictions, truth and absence; "
                "they need one row for each frame"
            )

    @property
    def frame_count(self) -> int:
        """Number of frames N."""
        return len(self.truth_xywh_px)

    @property
    def sizes(self) -> FrameSize:
        """Width and height of the frames [px]."""
        return self.frame_size if self.frame_sizes is None else self.frame_sizes

    @property
    def unanswered(self) -> int:
        """Number of frames without a box."""
        return int(np.isnan(self.predicted_xywh_px).any(axis=1).sum())

    @property
    def has_truth(self) -> NDArray[np.bool_]:
        """Shape (N,); frames that have a true box."""
        return np.asarray(np.isfinite(self.truth_xywh_px).all(axis=1))

    def with_predictions(self, predicted_xywh_px: Floats) -> TrackResult:
        """Return a copy with the predictions of another tracker (a baseline)."""
        return replace(self, predicted_xywh_px=predicted_xywh_px, failures={}, parse_failures={}, seconds=0.0)

    def as_json(self) -> dict[str, Any]:
        """Return the content of the result file; boxes are rounded to 1/1000 px, missing ones are null."""
        return {
            "name": self.name,
            "expression": self.expression,
            "frame_size": list(self.frame_size),
            **({} if self.frame_sizes is None else {"frame_sizes": self.frame_sizes.astype(int).tolist()}),
            "frames": self.frame_count,
            "first_box_given": self.first_box_given,
            "first_box_only": self.first_box_only,
            "pixel_origin": self.pixel_origin,
            "failures": self.failures,
            "parse_failures": self.parse_failures,
            "seconds": round(self.seconds, 3),
            "predicted_xywh_px": _rows_to_json(self.predicted_xywh_px),
            "truth_xywh_px": _rows_to_json(self.truth_xywh_px),
            "absent": [int(flag) for flag in self.absent],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrackResult:
        """Make a result from the output of :meth:`as_json`.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or of another kind.
        """
        width, height = value["frame_size"]
        return cls(
            name=str(value["name"]),
            predicted_xywh_px=_rows_from_json(value["predicted_xywh_px"]),
            truth_xywh_px=_rows_from_json(value["truth_xywh_px"]),
            absent=np.asarray(value["absent"], dtype=bool),
            frame_size=(int(width), int(height)),
            frame_sizes=_sizes_from_json(value.get("frame_sizes"), len(value["absent"])),
            first_box_given=bool(value["first_box_given"]),
            pixel_origin=int(value["pixel_origin"]),
            first_box_only=bool(value["first_box_only"]),
            expression=str(value["expression"]),
            failures=_counts(value["failures"]),
            parse_failures=_counts(value["parse_failures"]),
            seconds=float(value["seconds"]),
        )


def file_name(name: str, ending: str) -> str:
    """Return a valid and unique file name for a recording with any name."""
    quoted = quote(os.fsencode(name), safe=" ()+,=@")
    if len(quoted) + len(ending) > _LONGEST_NAME:
        # A letter of other scripts becomes nine characters; the hash keeps names with one beginning apart.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        quoted = f"{quoted[: _LONGEST_NAME - len(ending) - len(digest) - 1]}-{digest}"
    return quoted + ending


def result_path(run_folder: Path, name: str) -> Path:
    """Return the path of the result file of a recording."""
    return run_folder / RESULT_FOLDER / file_name(name, ".json")


def write_result(run_folder: Path, result: TrackResult) -> None:
    """Write one result file atomically."""
    write_json(result_path(run_folder, result.name), result.as_json(), indent=None)


def read_result(path: Path) -> TrackResult:
    """Read one result file.

    Raises:
        DataError: The file cannot be read as a result.
    """
    try:
        return TrackResult.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"result file {str(path)!r} cannot be read ({error!r}); delete it and run again") from error


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file atomically, with a line feed at its end; NaN raises ValueError."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent) + "\n", encoding="utf-8"
        )


def _counts(value: dict[str, int]) -> dict[str, int]:
    return {str(reason): int(count) for reason, count in value.items()}


def same_rows(written: Floats, boxes: Floats) -> bool:
    """Return whether boxes (N, 4) read from a result file equal ``boxes`` after rounding as in the file."""
    return np.array_equal(written, _rows_from_json(_rows_to_json(boxes)), equal_nan=True)


def _sizes_from_json(rows: list[list[int]] | None, frames: int) -> Floats | None:
    return None if rows is None else np.asarray(rows, dtype=np.float64).reshape(frames, 2)


def _rows_to_json(boxes: Floats) -> list[list[float] | None]:
    return [[round(float(v), 3) for v in box] if np.isfinite(box).all() else None for box in boxes]


def _rows_from_json(rows: Iterable[list[float] | None]) -> Floats:
    missing = [float("nan")] * 4
    return np.asarray([missing if row is None else row for row in rows], dtype=np.float64).reshape(-1, 4)
