from __future__ import annotations

import subprocess
import sys

from elysium_core.cli.models import load_model
from elysium_core.tracking.identity import IdentityModel


def test_identity_needs_no_weights():
    assert isinstance(load_model("identity"), IdentityModel)


CODE = """
import sys
from elysium_core.cli.models import load_model
load_model("identity")
print("torch" in sys.modules)
"""


def test_identity_does_not_wait_for_torch():
    finished = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True, timeout=100)
    assert finished.stdout == "False\n"
