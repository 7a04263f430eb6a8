from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from elysium_core import errors
from elysium_core.errors import PACKAGES, missing_package, pip_line

ROOT = Path(__file__).resolve().parents[2]


def test_the_packages_are_those_of_the_set_up():
    text = (ROOT / "setup.py").read_text()
    listed = re.search(r"install_requires=\[(.*?)\]", text, re.S)[1]
    assert sorted(PACKAGES.values()) == sorted(re.findall(r'"([A-Za-z-]+)', listed))


def test_the_line_is_for_the_python_that_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert pip_line("a", "b") == f"{tmp_path}/.venv/bin/python -m pip install a b"
    monkeypatch.chdir(tmp_path)
    assert pip_line("a") == ".venv/bin/python -m pip install a"


def test_a_python_that_the_system_manages_gets_the_options_it_needs(monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(errors.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "--break-system-packages a" in pip_line("a")


def test_all_missing_packages_are_installed_by_one_line(monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("torch", "av", "cv2") else object())
    sentence = missing_package(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert "'opencv-python-headless'" in sentence
    assert sentence.endswith("pip install av opencv-python-headless torch")
    assert missing_package(ModuleNotFoundError(name="a_package.part")).endswith(
        "pip install a_package av opencv-python-headless torch"
    )


@pytest.mark.parametrize("module", ["elysium_core.io.gone", "elysium_ros.msg"])
def test_a_part_of_elysium_is_not_installed_by_pip(module):
    with pytest.raises(ModuleNotFoundError):
        missing_package(ModuleNotFoundError(name=module))


@pytest.mark.parametrize("folder", ["elysium_core", "elysium_ros", "bench", "docs", "."])
def test_nothing_says_to_install_what_is_on_no_index(folder):
    pattern = "*" if folder == "." else "**/*"
    for path in (ROOT / folder).glob(pattern):
        if path.suffix in (".py", ".md"):
            assert not re.search(r"pip install (?:-\S+ )*'?elysium", path.read_text(encoding="utf-8")), path
