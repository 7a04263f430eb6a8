from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

import elysium_core
from elysium_core.viewer.access import TOKEN_VARIABLE


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--host", "robot"], "VIEWER_HOST", "'robot'"),
        (["--expression", "<image>"], "EXPR_RESERVED", "<image>"),
        (["--port", "70000"], "USAGE", "--port"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_served(elysium, video, arguments, code, named):
    outcome = elysium("view", video, "--model", "identity", "--json", *arguments)
    assert outcome.code == 2
    assert json.loads(outcome.out)["error"]["code"] == code
    assert named in outcome.out


def test_a_weak_token_is_refused(elysium, video, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "weak")
    outcome = elysium("view", video, "--model", "identity", "--host", "0.0.0.0", "--json")
    assert json.loads(outcome.out)["error"]["code"] == "VIEWER_TOKEN"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_page_is_served_until_a_signal(video, number):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra `viewer`)")
    code = "from elysium_core.cli.app import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])}
    command = [sys.executable, "-c", code, "view", str(video), "--model", "identity", "--port", "0", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        address = json.loads(process.stdout.readline())["address"]
        assert address.startswith("http://localhost:")
        with urlopen(address, timeout=60) as answer:
            assert b"viewer.js" in answer.read()
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
