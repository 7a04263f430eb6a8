from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from elysium_core.cli.options import load_model
from elysium_core.errors import ConfigError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import LoadOptions


def test_identity_needs_no_weights():
    assert isinstance(load_model(LoadOptions("identity")), IdentityModel)


CODE = """
import sys

import pytest
from elysium_core.cli.options import load_model
from elysium_core.types import LoadOptions
load_model(LoadOptions("identity"))
print("torch" in sys.modules)
"""


def test_identity_does_not_wait_for_torch():
    finished = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=100)
    assert finished.stdout == "False\n"


@pytest.mark.parametrize(
    "verb",
    [
        ("ground", "{image}", "-e", "mug"),
        ("describe", "{image}", "--box", "0.1,0.1,0.5,0.5"),
        ("ask", "{image}", "--question", "What is it?"),
        ("caption", "{image}"),
    ],
)
def test_every_verb_hands_the_quantisation_on(elysium, image, verb):
    outcome = elysium(*(word.format(image=image) for word in verb), "--quantize", "int3", "--device", "cpu")
    assert outcome.code == 2
    assert "quantization 'int3' is not one of none, int8, nf4, fp8" in outcome.err


def test_every_option_of_loading_is_one_of_the_command_line(elysium):
    shown = elysium("ground", "--help").out
    flags = [f"--{field.name.replace('_', '-')}"[:16] for field in fields(LoadOptions)]
    assert [flag for flag in flags if flag not in shown] == []


def test_options_are_handed_on_as_given(elysium, image, monkeypatch):
    asked = []
    monkeypatch.setattr("elysium_core.cli.ground.load_model", lambda load: asked.append(load) or IdentityModel())
    options = ("--device", "cpu", "--quantize", "int8", "--allow-pickle-weights", "--no-cuda-graphs")
    assert elysium("ground", image, "-e", "mug", "-m", "folder", *options).code == 0
    expected = LoadOptions("folder", "cpu", quantization="int8", allow_pickle_weights=True, cuda_graphs=False)
    assert asked == [expected]


def test_an_unknown_option_in_python_is_named():
    with pytest.raises(ConfigError, match="'devise' is not an option of loading a model; there are: model, device"):
        LoadOptions().with_options(devise="cpu")
