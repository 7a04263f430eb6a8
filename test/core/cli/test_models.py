from __future__ import annotations

import subprocess
import sys

import pytest

from elysium_core.cli.options import load_model
from elysium_core.tracking.identity import IdentityModel


def test_identity_needs_no_weights():
    assert isinstance(load_model("identity"), IdentityModel)


CODE = """
import sys

import pytest
from elysium_core.cli.options import load_model
load_model("identity")
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
