"""The files that ``elysium track`` writes: which there are by their endings, and whether they may be written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError
from elysium_core.io.bag_recording import BagRecording
from elysium_core.io.bag_writer import BagWriter, check_bag_name
from elysium_core.io.files import is_same_file, is_stream
from elysium_core.io.frame_writer import FrameWriter
from elysium_core.io.recording import Recording
from elysium_core.io.render import open_writer
from elysium_core.io.track_table import TABLE_SUFFIXES, TrackTable, check_table
from elysium_core.io.tracks import TrackWriter

_BAG = ".mcap"
# Of other programs, or of whole folders: a file of lines with such a name would be a surprise.
_OTHER_BAGS = (".db3", ".bag")


@dataclass(frozen=True, slots=True)
class TrackOutputs:
    """Where the results of a run go.

    Attributes:
        lines: Writer of the track lines, or of a table of them, None to write none.
        drawing: Writer of the annotated frames, None to write none.
        bag: Writer of a bag with messages about each frame, None to write none.
    """

    lines: TrackWriter | TrackTable | None = None
    drawing: FrameWriter | None = None
    bag: BagWriter | None = None


def check_outputs(recording: Recording, out: Path | None, render: Path | None, resume: bool) -> None:
    """Refuse outputs that would destroy the video or each other, or cannot be continued.

    Raises:
        ConfigError: They are refused; the message names the file and the remedy.
        DataError: The bag to write exists already (``BAG_EXISTS``).
        BackendError: A package that writes the output is not installed (``PACKAGE_MISSING``).
    """
    for path in (out, render):
        if path is not None and is_same_file(path, recording.files):
            raise ConfigError(f"{str(path)!r} is the video itself; write to another file")
    if out is None:
        return
    if render is not None and os.path.realpath(out) == os.path.realpath(render):
        raise ConfigError(f"{str(out)!r} is given as --out and as --render; write to two files")
    if out.suffix.lower() in _OTHER_BAGS:
        raise ConfigError(f"{str(out)!r} is no bag that is written here; end it in {_BAG}")
    if resume and is_whole(out):
        raise ConfigError(
            f"--resume cannot be used with {str(out)!r}, which is written in one piece; use a .jsonl file"
        )
    if resume and is_stream(out):
        raise ConfigError(f"--resume cannot be used with {str(out)!r}, which keeps nothing of the earlier run")
    if out.suffix.lower() == _BAG:
        check_bag_name(out)
    if out.suffix.lower() in TABLE_SUFFIXES:
        check_table(out)


def is_whole(out: Path) -> bool:
    """Return whether an output is complete or not there, so that no run can continue it."""
    return out.suffix.lower() in (_BAG, *TABLE_SUFFIXES)


def open_outputs(
    stack: ExitStack,
    out: Path | None,
    render: Path | None,
    recording: Recording,
    done_lines: Sequence[str],
    run_note: Mapping[str, Any],
) -> TrackOutputs:
    """Open the outputs of a run; ``stack`` closes them.

    Args:
        stack: What closes them.
        out: Track lines, a table or a bag, by its ending; None for none.
        render: See :func:`~elysium_core.io.render.open_writer`.
        recording: The source.
        done_lines: Lines of the run that is continued.
        run_note: What is tracked and how.
    """
    lines: TrackWriter | TrackTable | None = None
    bag: BagWriter | None = None
    if out is not None and out.suffix.lower() == _BAG:
        calibration = recording.camera_info() if isinstance(recording, BagRecording) else None
        bag = stack.enter_context(BagWriter(out, calibration))
    elif out is not None and out.suffix.lower() in TABLE_SUFFIXES:
        lines = stack.enter_context(TrackTable(out))
    elif out is not None:
        lines = stack.enter_context(TrackWriter(out, done_lines, run_note))
    drawing = stack.enter_context(open_writer(render, recording.fps)) if render else None
    return TrackOutputs(lines, drawing, bag)
