"""The parameter table: what it accepts, what it refuses and why, and that the pages written from it are up to date."""

import math
from dataclasses import fields

import pytest
import rclpy
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter

from elysium_core.errors import ConfigError
from elysium_core.types import TrackingConfig
from elysium_ros.node.parameter_docs import main as docs_main
from elysium_ros.node.parameter_docs import render_file
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.node.parameter_spec import Change
from elysium_ros.node.parameters import SPECS, Settings
from elysium_ros.perception.types import InferenceSettings

NUMBERS = [spec for spec in SPECS.values() if spec.limits is not None]
CHOICES = [spec for spec in SPECS.values() if spec.choices]


def by_name(spec):
    return spec.name


def test_the_defaults_are_valid_and_those_of_the_core():
    settings = Settings.from_values({})
    assert settings == Settings()
    assert settings.tracking_config() == TrackingConfig()


def test_the_clip_length_is_that_of_the_model_unless_it_is_set():
    assert Settings().tracking_config().clip_length is None
    assert Settings.from_values({"clip.length": 2}).tracking_config().clip_length == 2


def test_the_inference_thread_gets_its_settings():
    settings = Settings.from_values({"cameras": ["a", "b"], "buffer.capacity": 3, "model.warmup": 0})
    expected = InferenceSettings(cameras=("a", "b"), buffer_capacity=3, warm_up_passes=0)
    assert settings.inference_settings() == expected
    assert Settings.from_values({"describe.period": 2.0}).inference_settings().describe_period_s == 2.0


def test_every_setting_of_tracking_can_be_set():
    config = TrackingConfig(
        window="growing", clip_length=4, max_targets=2, score_threshold=0.5, lost_after_s=1.0,
        remove_after_s=3.0, reground_period_s=1.0, max_new_tokens=99, draft_tokens=7, zoom=True,
    )  # fmt: skip
    different = [f.name for f in fields(TrackingConfig) if getattr(config, f.name) != getattr(TrackingConfig(), f.name)]
    assert {"mode", *different} == {f.name for f in fields(TrackingConfig)}, "a live node has one mode"
    settings = Settings.from_values(
        {
            "tracking.window": "growing", "clip.length": 4, "tracking.max_objects": 2,
            "tracking.score_threshold": 0.5, "tracking.lost_after": 1.0, "tracking.remove_after": 3.0,
            "tracking.reground_period": 1.0, "generation.max_new_tokens": 99, "generation.draft_tokens": 7,
            "tracking.zoom": True,
        }
    )  # fmt: skip
    assert settings.tracking_config() == config


@pytest.mark.parametrize("spec", NUMBERS, ids=by_name)
def test_a_number_may_be_at_its_limits_and_not_beyond(spec):
    number = type(spec.default)
    low, high = (number(limit) for limit in spec.limits)
    assert spec.coerce(low) == low
    assert spec.coerce(high) == high
    for value in (low - 1, high + 1, math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigError, match=spec.name):
            spec.coerce(value)


@pytest.mark.parametrize("spec", CHOICES, ids=by_name)
def test_a_choice_is_one_of_the_list(spec):
    for choice in spec.choices:
        assert spec.coerce(choice) == choice
    with pytest.raises(ConfigError, match=f"{spec.name} = 'nonsense' is not one of"):
        spec.coerce("nonsense")


@pytest.mark.parametrize("spec", SPECS.values(), ids=by_name)
def test_a_value_of_another_type_is_refused(spec):
    wrong = {bool: "true", int: 1.5, float: "1.0", str: 3, tuple: [1, 2]}[type(spec.default)]
    for value in (wrong, None):
        with pytest.raises(ConfigError, match=f"{spec.name} must be "):
            spec.coerce(value)


ANY_VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.dictionaries(st.sampled_from([*SPECS, "unknown"]), ANY_VALUE))
def test_any_values_give_settings_or_one_config_error(values):
    try:
        settings = Settings.from_values(values)
    except ConfigError as error:
        assert str(error)
    else:
        assert settings.tracking_config()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"cameras": []}, "cameras is empty"),
        ({"cameras": ["front", "front"]}, "twice"),
        ({"cameras": ["1st"]}, "'1st' is not a valid topic name part"),
        ({"cameras": ["a/b"]}, "'a/b' is not a valid"),
        ({"model.path": " "}, "model.path is empty"),
        ({"model.device": "gpu"}, "model.device = 'gpu'"),
        ({"model.quantization": "int3"}, "model.quantization = 'int3' is not one of none, int8, nf4, fp8"),
        ({"model.cuda_graphs": "false"}, "model.cuda_graphs must be bool, not 'false'"),
        ({"model.fast_resize": True, "model.backend": "onnx"}, "model.fast_resize cannot be had with .* onnx; use"),
        ({"generation.max_new_tokens": 159}, "needs at least 160"),
        ({"clip.length": 1}, "clip.length = 1 is not 0 or in 2..32 frames"),
        ({"tracking.initial_expression": "the <image>"}, "tracking.initial_expression: .*<image>"),
        ({"frame_timeout": 0.0, "publish.jpeg_quality": 0}, "frame_timeout.*publish.jpeg_quality"),
        ({"model.pth": "x"}, "there is no parameter 'model.pth'"),
    ],
)
def test_what_cannot_be_together_is_refused_with_the_reason(values, reason):
    with pytest.raises(ConfigError, match=reason):
        Settings.from_values(values)


def test_the_reference_page_and_the_default_file_are_those_of_the_table():
    assert docs_main(["--check"]) == 0, "run python -m elysium_ros.node.parameter_docs"


def test_the_default_file_is_read_back_as_the_defaults():
    values = yaml.safe_load(render_file())["/**"]["ros__parameters"]
    assert Settings.from_values(values) == Settings()


def test_a_stale_page_is_found_and_rewritten(tmp_path):
    for folder in ("docs", "config"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "parameters.md").write_text("old")
    assert docs_main(["--check", "--root", str(tmp_path)]) == 1
    assert docs_main(["--root", str(tmp_path)]) == 0
    assert docs_main(["--check", "--root", str(tmp_path)]) == 0
    assert all(f"`{name}`" in (tmp_path / "docs" / "parameters.md").read_text() for name in SPECS)


@pytest.fixture(scope="module")
def context():
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


class Harness:
    """A node with the table on it, whether it is active, and what it heard of changes."""

    def __init__(self, context, overrides=()):
        self.active = False
        self.changes = []
        given = [Parameter(name, value=value) for name, value in dict(overrides).items()]
        self.node = Node("parameters", context=context, parameter_overrides=given)
        self.server = ParameterServer(self.node, lambda: self.active, lambda _, names: self.changes.append(names))

    def set(self, **values):
        names = {name.replace("__", "."): value for name, value in values.items()}
        return self.node.set_parameters_atomically([Parameter(name, value=value) for name, value in names.items()])


@pytest.fixture
def make(context):
    made = []

    def make(**overrides):
        made.append(Harness(context, overrides))
        return made[-1]

    yield make
    for harness in made:
        harness.node.destroy_node()


def test_every_parameter_is_declared_with_its_description_and_range(make):
    node = make().node
    for spec in SPECS.values():
        descriptor = node.describe_parameter(spec.name)
        assert descriptor.description == spec.description
        assert descriptor.read_only == (spec.change is Change.READ_ONLY)
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == ([spec.limits] if spec.limits else [])


OTHER = {"model.dtype": "float16", "model.vision_backend": "onnx", "model.quantize": "int8"}


def test_options_have_their_names_of_python_too_at_the_start(make):
    load = make(**OTHER).server.settings.load
    assert (load.dtype, load.vision_backend, load.quantization) == ("float16", "onnx", "int8")
    with pytest.raises(ConfigError) as caught:
        make(**{"model.dtype": "float16", "model.precision": "bfloat16", "model.quantize": "many"}).server.check()
    assert all(part in str(caught.value) for part in ("'float16'", "'bfloat16'", "model.dtype", "'many'"))
    make(**{"model.dtype": "float16", "model.precision": "float16"}).server.check()


def test_the_services_take_both_names(make):
    harness = make()
    services = {service.srv_type: service.callback for service in harness.node.services}
    for kind, results in ((SetParameters, "results"), (SetParametersAtomically, "result")):
        for value in ("float16", "bfloat16"):
            message = Parameter("model.dtype", value=value).to_parameter_msg()
            reply = services[kind](kind.Request(parameters=[message]), kind.Response())
            outcome = getattr(reply, results)
            assert (outcome[0] if results == "results" else outcome).successful
            assert harness.server.settings.load.dtype == value
    got = services[GetParameters](
        GetParameters.Request(names=["model.dtype", "model.precision", "model.quantize"]), GetParameters.Response()
    )
    assert [value.string_value for value in got.values] == ["bfloat16", "bfloat16", "none"]


def test_a_good_value_is_taken_and_told(make):
    harness = make()
    assert harness.set(tracking__score_threshold=0.7).successful
    assert harness.server.settings.score_threshold == 0.7
    assert harness.changes == [{"tracking.score_threshold"}]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tracking__score_threshold": math.nan}, "tracking.score_threshold"),
        ({"tracking__score_threshold": 7.0}, "tracking.score_threshold"),
        ({"tracking__score_threshold": "high"}, "type"),
        ({"model__backend": "magic"}, "model.backend = 'magic' is not one of auto, torch"),
        ({"generation__max_new_tokens": 100}, "generation.max_new_tokens = 100 is too short for clip.length = 0"),
        ({"cameras": ["front"]}, "read-only"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason_and_nothing_changes(make, values, reason):
    harness = make()
    before = harness.server.settings
    result = harness.set(**values)
    assert not result.successful
    assert reason in result.reason
    assert harness.server.settings == before
    assert harness.changes == []
    assert harness.set(frame_timeout=1.0).successful


def test_two_values_that_only_fit_together_are_set_at_once(make):
    harness = make()
    assert harness.set(clip__length=4, generation__max_new_tokens=100).successful
    assert harness.server.settings.clip_length == 4
    assert harness.set(clip__length=32, generation__max_new_tokens=160).successful, "it is meant for 8 frames"


def test_a_parameter_that_is_fixed_while_active_says_so(make):
    harness = make(allow_model_change=True)
    harness.active = True
    result = harness.set(model__path="identity")
    assert not result.successful
    assert result.reason == "model.path can only be set while the node is not active; deactivate it first"
    options = {"model__quantization": "int8", "model__cuda_graphs": False, "model__allow_pickle_weights": True}
    for name, value in options.items():
        assert "while the node is not active" in harness.set(**{name: value}).reason
    assert harness.set(model__path="real").successful, "the value it has already"
    harness.active = False
    assert harness.set(model__path="identity").successful


def test_which_model_is_loaded_and_how_is_not_changed_over_the_network_unless_that_was_allowed(make):
    harness = make()
    for change in ({"model__path": "identity"}, {"model__allow_pickle_weights": True}):
        result = harness.set(**change)
        assert (result.successful, "allow_model_change" in result.reason) == (False, True)
    assert not harness.set(allow_model_change=True).successful
    assert harness.set(model__device="cpu").successful
    assert harness.server.settings.load.model == "real"


def test_a_whole_number_in_a_file_is_taken_for_a_real_one(make):
    harness = make(frame_timeout=3)
    harness.server.check()
    assert harness.server.settings.frame_timeout_s == 3.0
    assert isinstance(harness.node.get_parameter("frame_timeout").value, float)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"frame_timeout": math.nan}, "frame_timeout = nan"),
        ({"frame_timeout": "soon"}, "frame_timeout must be double, not 'soon'"),
        ({"clip.length": 99}, "clip.length = 99 is not in 0..32 frames"),
        ({"generation.max_new_tokens": 100}, "generation.max_new_tokens = 100 is too short"),
        ({"modle.path": "x"}, "there is no parameter 'modle.path'; did you mean 'model.path'?"),
    ],
)
def test_a_bad_value_in_a_file_is_kept_as_a_problem_until_it_is_set_right(make, overrides, reason):
    harness = make(**overrides)
    with pytest.raises(ConfigError) as caught:
        harness.server.check()
    assert reason in str(caught.value)
    if "modle.path" not in overrides:
        assert harness.set(frame_timeout=1.0, clip__length=4).successful
        harness.server.check()


def test_standard_parameters_are_left_alone(make):
    harness = make(**{"qos_overrides./image.subscription.reliability": "reliable", "use_sim_time": True})
    harness.server.check()
