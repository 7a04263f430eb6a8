"""The script training/photo_data.py, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elysium_core.io.image import read_image

ROOT = Path(__file__).parents[4]


@pytest.fixture
def photo_data():
    def run(*arguments):
        command = [sys.executable, ROOT / "training" / "photo_data.py", *map(str, arguments)]
        # The sources beside the script, whatever is installed.
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)

    return run


def test_photos_are_checked_cut_and_shown(photo_data, annotated_folder, category_folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.jpg").write_bytes(b"x")
    checked = photo_data("check", annotated_folder, tmp_path / "more")
    assert checked.returncode == 0, checked.stderr
    assert "60 of 61 photos can be used, 60 objects" in checked.stdout
    assert "1 x picture unreadable" in checked.stdout
    cut = photo_data("cutouts", category_folder, "--out", tmp_path / "cut", "--most", "10")
    assert "of 10 objects" in cut.stdout
    shown = photo_data(
        "pairs", annotated_folder, "--cutouts", tmp_path / "cut", "--count", "4", "--out", tmp_path / "p.png"
    )
    assert "pairs a second" in shown.stdout
    assert read_image(tmp_path / "p.png").shape == (132, 6 * 260, 3)


def test_a_folder_without_photos_is_refused_in_one_sentence(photo_data, tmp_path):
    refused = photo_data("check", tmp_path / "none")
    assert refused.returncode == 2
    assert "no photo folder" in refused.stderr
    assert "Traceback" not in refused.stderr
