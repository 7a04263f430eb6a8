"""Which model the parameters name: every option reaches the core, and each one that changes asks for a new load."""

import inspect
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec

import pytest

from elysium_core.api import Elysium
from elysium_core.checkpoint.quantization import QUANTIZATIONS
from elysium_core.device import DTYPES
from elysium_core.errors import ModelFileError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import ModelInfo
from elysium_core.vision.vision_choice import BACKENDS
from elysium_ros.node.loading import ModelChoice, load_model
from elysium_ros.node.parameters import SPECS, Settings

OTHER = {
    "model.path": "/a/model",
    "model.backend": "torch",
    "model.device": "cpu",
    "model.precision": "bfloat16",
    "model.quantization": "int8",
    "model.cuda_graphs": False,
    "model.fast_resize": True,
    "model.allow_pickle_weights": True,
}
"""A value other than the default for each parameter that says which model is loaded, or how."""


def test_all_parameters_of_the_model_are_tried_here():
    assert {name for name in SPECS if name.startswith("model.")} == {*OTHER, "model.warmup"}
    assert len(fields(ModelChoice)) == len(OTHER)


@pytest.mark.parametrize(("name", "value"), OTHER.items())
def test_any_option_that_changes_asks_for_a_new_load(name, value):
    usual = ModelChoice.from_settings(Settings())
    assert ModelChoice.from_settings(Settings.from_values({name: value})) != usual
    assert ModelChoice.from_settings(Settings.from_values({"model.warmup": 0, "clip.length": 4})) == usual


def test_choices_and_defaults_are_those_of_the_core():
    assert SPECS["model.quantization"].choices == QUANTIZATIONS
    assert SPECS["model.backend"].choices == BACKENDS
    assert SPECS["model.precision"].choices == ("auto", *DTYPES)
    usual = ModelChoice.from_settings(Settings())
    assert usual == ModelChoice(usual.path), "a choice made by hand has the same defaults"
    defaults = {name: p.default for name, p in inspect.signature(Elysium.from_pretrained).parameters.items()}
    assert handed_on(usual) == defaults


def handed_on(choice):
    """What the core is asked for, by the names of its own arguments."""
    return {
        "model": choice.path,
        "device": choice.device,
        "dtype": choice.precision,
        "vision_backend": choice.backend,
        "quantization": choice.quantization,
        "cuda_graphs": choice.cuda_graphs,
        "fast_resize": choice.fast_resize,
        "allow_pickle_weights": choice.allow_pickle_weights,
    }


@dataclass
class Loaded:
    """What a patched ``from_pretrained`` returns."""

    info: ModelInfo


@pytest.mark.parametrize("changed", [{}, OTHER], ids=["defaults", "all others"])
def test_every_option_reaches_the_core(changed, monkeypatch, tmp_path):
    asked = []

    def from_pretrained(model, **options):
        asked.append({"model": model, **options})
        return Loaded(ModelInfo("patched", parameters=7_000_000_000))

    monkeypatch.setattr(Elysium, "from_pretrained", from_pretrained)
    values = {**changed, "model.path": str(tmp_path)}
    choice = ModelChoice.from_settings(Settings.from_values(values))
    assert load_model(choice).info.name == "patched"
    assert asked == [handed_on(choice)]


def test_identity_ignores_all_options():
    choice = ModelChoice.from_settings(Settings.from_values({**OTHER, "model.path": "identity"}))
    assert isinstance(load_model(choice), IdentityModel)


def test_identity_does_not_wait_for_torch():
    code = (
        "import sys; from elysium_ros.node.loading import ModelChoice, load_model; "
        "load_model(ModelChoice('identity', quantization='int8')); print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100)
    assert finished.stdout == "False\n"


def test_a_folder_that_is_missing_is_named_with_the_parameter():
    with pytest.raises(ModelFileError, match=r"there is no model folder '/no/such/model'; set model.path to"):
        load_model(ModelChoice("/no/such/model"))


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_a_quantised_model_says_so_in_its_precision():
    model = load_model(ModelChoice("nano", device="cpu", quantization="int8"))
    assert model.info.precision == "float32, int8 language model"
    model.close()
