from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from elysium_core.cli.output import Progress, box_fields, emit
from elysium_core.geometry import Box


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_progress_bar_is_shown_on_a_terminal_and_nowhere_else(monkeypatch, capsys):
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("track", 2) as progress:
            progress.advance("1 TRACKED")
            progress.advance()
        assert ("track" in stream.getvalue()) is shown
    assert capsys.readouterr().out == ""


LOGS = """
import logging, sys
from elysium_core.cli.output import configure_logging
configure_logging(len(sys.argv) > 1)
logging.getLogger("elysium_core.network").warning("ours")
logging.getLogger("elysium_core.network").info("ours, in detail")
logging.getLogger("somebody.else").warning("theirs")
logging.getLogger("somebody.else").error("their error")
"""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], ["WARNING: ours", "ERROR: their error"]),
        (["--verbose"], ["WARNING: ours", "INFO: ours, in detail", "WARNING: theirs", "ERROR: their error"]),
    ],
)
def test_what_other_libraries_warn_of_is_shown_on_request(arguments, shown):
    command = [sys.executable, "-c", LOGS, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    assert done.stderr.splitlines() == [f"elysium: {line}" for line in shown]


def test_results_are_one_line_each_and_strict_json(capsys):
    emit({"text": "two\nlines", "box": None})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "two\nlines", "box": None}
    with pytest.raises(ValueError, match="Out of range float"):
        emit({"score": float("nan")})


def test_boxes_are_written_as_in_track_lines():
    assert box_fields(None, 640, 480) == {"box": None, "box_px": None}
    assert box_fields(Box(0, 0, 1 / 3, 1), 640, 480) == {"box": [0, 0, 0.333333, 1], "box_px": [0, 0, 213.33, 480]}
