from __future__ import annotations

import pytest

from elysium_core.cli import doctor
from elysium_core.cli.doctor import Check


def test_this_installation_is_usable(elysium):
    outcome = elysium("doctor", "--json")
    (report,) = outcome.lines
    assert outcome.code == 0
    assert report["usable"] is True
    names = [check["name"] for check in report["checks"]]
    assert {"python", "torch", "cuda", "transformers", "onnxruntime", "tensorrt", "ROS messages", "java"} <= set(names)
    assert len(names) == len(set(names))
    assert all(check["ok"] or check["remedy"] for check in report["checks"])


def test_what_is_missing_and_needed_is_marked_and_gives_code_1(elysium, monkeypatch):
    checks = [Check("a", True, "1.0"), Check("b", False, "not installed", "install b", required=True)]
    monkeypatch.setattr(doctor, "GROUPS", (lambda: iter(checks),))
    outcome = elysium("doctor")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["ok", "a", "1.0"]
    assert lines[1].split(maxsplit=2) == ["MISSING", "b", "not installed; install b"]
    assert "cannot be used yet" in lines[2]


def test_a_package_that_is_not_there_is_found_missing():
    check = doctor._package("a-package-that-nobody-has", "install it", required=True)
    assert (check.ok, check.found, check.remedy) == (False, "not installed", "install it")


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module", "json.no_such", "rclpy..x", ""])
def test_what_cannot_be_imported_is_not_importable(module):
    assert doctor._is_importable(module) is False
