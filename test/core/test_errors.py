from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from elysium_core import errors
from elysium_core.errors import PACKAGES, BackendError, missing_package, packages_needed, pip_line

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


def test_a_missing_package_is_one_sentence_where_a_model_is_loaded(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    picture = "from PIL import Image; Image.new('RGB', (8, 8)).save('a.png')"
    command = "import sys; sys.argv[1:] = ['ground', 'a.png', '-e', 'x']; main()"
    code = f"{picture}\nfrom elysium_core.cli.app import main; {command}"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install torch" in done.stderr


def test_only_missing_packages_are_turned_into_a_sentence():
    with pytest.raises(BackendError) as told, packages_needed():
        raise ModuleNotFoundError(name="torch")
    assert told.value.code == "PACKAGE_MISSING"
    with pytest.raises(ImportError), packages_needed():
        raise ImportError("libcudart")
