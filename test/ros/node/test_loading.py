"""Which model the parameters name: every option reaches the core, and each one that changes asks for a new load."""

import subprocess
import sys
from dataclasses import dataclass, fields, make_dataclass
from importlib.util import find_spec

import pytest

from elysium_core.api import Elysium
from elysium_core.checkpoint.quantization import QUANTIZATIONS
from elysium_core.device import DTYPES
from elysium_core.errors import ModelFileError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import LoadOptions, ModelInfo
from elysium_core.vision.vision_choice import BACKENDS
from elysium_ros.node import load_parameters
from elysium_ros.node.load_parameters import LOAD_ARGUMENTS
from elysium_ros.node.parameters import SPECS, Settings
from elysium_ros.perception.inference import load_model

OTHER = {
    "model.path": "/a/model",
    "model.backend": "torch",
    "model.device": "cpu",
    "model.precision": "bfloat16",
    "model.quantization": "int8",
    "model.cuda_graphs": False,
    "model.fast_resize": True,
    "model.max_pixels": 65536,
    "model.allow_pickle_weights": True,
}
"""A value other than the default for each parameter that says which model is loaded, or how."""


def test_every_load_option_is_a_parameter_and_a_launch_argument():
    assert {name for name in SPECS if name.startswith("model.")} == {*OTHER, "model.warmup", "model.timeout"}
    assert len(fields(LoadOptions)) == len(OTHER)
    assert [spec.attribute for spec in LOAD_ARGUMENTS.values()] == [f"load.{f.name}" for f in fields(LoadOptions)]
    assert list(LOAD_ARGUMENTS)[:2] == ["model", "device"]
    assert all(spec.description for spec in LOAD_ARGUMENTS.values())


def test_a_new_load_option_needs_no_line_in_the_table(monkeypatch):
    class Documented(LoadOptions):
        """More options.

        Attributes:
            model: A name.
            shards: Files that are read at the same time;
                ``1`` reads one after the other.
        """

    new = make_dataclass("New", [("model", str, "nano"), ("shards", int, 4)], namespace={"__doc__": Documented.__doc__})
    monkeypatch.setattr(load_parameters, "LoadOptions", new)
    specs = {spec.name: spec for spec in load_parameters._specs()}
    assert list(specs) == ["model.path", "model.shards"]
    shards = specs["model.shards"]
    assert (shards.attribute, shards.default, shards.type_name) == ("load.shards", 4, "int")
    assert shards.description == "Files that are read at the same time; 1 reads one after the other."


@pytest.mark.parametrize(("name", "value"), OTHER.items())
def test_any_option_that_changes_asks_for_a_new_load(name, value):
    assert Settings.from_values({name: value}).load != Settings().load
    assert Settings.from_values({"model.warmup": 0, "clip.length": 4}).load == Settings().load


def test_choices_and_defaults_are_those_of_the_core():
    assert SPECS["model.quantization"].choices == QUANTIZATIONS
    assert SPECS["model.backend"].choices == BACKENDS
    assert SPECS["model.precision"].choices == ("auto", *DTYPES)
    assert Settings().load == LoadOptions()


@dataclass
class Loaded:
    """What a patched ``from_pretrained`` returns."""

    info: ModelInfo


@pytest.mark.parametrize("changed", [{}, OTHER], ids=["defaults", "all others"])
def test_every_option_reaches_the_core(changed, monkeypatch, tmp_path):
    asked = []

    def from_pretrained(options):
        asked.append(options)
        return Loaded(ModelInfo("patched", parameters=7_000_000_000))

    monkeypatch.setattr(Elysium, "from_pretrained", from_pretrained)
    options = Settings.from_values({**changed, "model.path": str(tmp_path)}).load
    assert load_model(options).info.name == "patched"
    assert asked == [options]


def test_identity_ignores_all_options():
    assert isinstance(load_model(Settings.from_values({**OTHER, "model.path": "identity"}).load), IdentityModel)


def test_identity_waits_neither_for_torch_nor_for_ros():
    code = (
        "import sys; from elysium_ros.perception.inference import load_model; "
        "from elysium_ros.node.parameters import Settings; "
        "load_model(Settings.from_values({'model.path': 'identity'}).load); "
        "print([name for name in ('torch', 'rclpy', 'sensor_msgs', 'elysium_ros.msg') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100)
    assert finished.stdout == "[]\n"


def test_a_folder_that_is_missing_is_named_with_the_parameter():
    with pytest.raises(ModelFileError, match=r"there is no model folder '/no/such/model'; set model.path to"):
        load_model(LoadOptions("/no/such/model"))


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_a_quantised_model_says_so_in_its_precision():
    model = load_model(LoadOptions("nano", device="cpu", quantization="int8"))
    assert model.info.precision == "float32, int8 language model"
    model.close()
