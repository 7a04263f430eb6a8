"""The launch files: what they declare, use and document agrees; and, where launch_ros is installed, what they start."""

from __future__ import annotations

import ast
import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from elysium_core.errors import ConfigError
from elysium_ros.client.foxglove import foxglove_layout
from elysium_ros.client.node_process import PROFILE_VARIABLES
from elysium_ros.node.launch_arguments import count, port, positive, switch, switches
from elysium_ros.node.load_parameters import LOAD_ALIASES, LOAD_ARGUMENTS
from elysium_ros.node.parameters import SPECS
from elysium_ros.srv import StopTracking, Track
from elysium_ros.video.player import VIDEO_SPECS
from elysium_ros.viewer.viewer_node import VIEWER_SPECS

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = ("track", "replay", "multi_camera")


def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOT / "launch" / f"{name}.launch.py").read_text("utf-8"))


def constants_of(name: str) -> dict[str, object]:
    """The tables at the top of a launch file, evaluated without importing it (launch may be missing)."""
    values: dict[str, object] = {"LOAD_ARGUMENTS": LOAD_ARGUMENTS, "LOAD_ALIASES": LOAD_ALIASES}
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign):
            expression = compile(ast.Expression(node.value), name, "eval")
            values[node.targets[0].id] = eval(expression, values)
    return values


def looked_up(name: str) -> set[str]:
    """The arguments that a launch file reads: given["x"], given.get("x") and the loop over two topics."""
    source = (ROOT / "launch" / f"{name}.launch.py").read_text("utf-8")
    found = set(re.findall(r'given(?:\[|\.get\()"(\w+)"', source))
    return found | ({"image", "camera_info"} if 'for topic in ("image", "camera_info")' in source else set())


def declared(name: str) -> list[str]:
    return list(constants_of(name)["ARGUMENTS"])


def documented(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading of docs/launch.md, by the name in the first column."""
    page = (ROOT / "docs" / "launch.md").read_text("utf-8")
    section = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_every_argument_of_track_is_used_and_nothing_else() -> None:
    assert {*constants_of("track")["PARAMETERS"]} | looked_up("track") == set(declared("track"))


@pytest.mark.parametrize("name", ["replay", "multi_camera"])
def test_every_argument_of_the_others_is_used(name: str) -> None:
    assert set(declared(name)) <= looked_up(name)
    assert looked_up(name) <= {*declared(name), *declared("track")}


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_every_argument_is_documented(name: str) -> None:
    own = ["cameras", *declared(name)] if name == "multi_camera" else declared(name)
    assert list(documented(f"{name}.launch.py")) == own


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_launch_files_hold_no_defaults(name: str) -> None:
    calls = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    defaults = [k.value.value for call in calls for k in call.keywords if k.arg == "default_value"]
    assert defaults
    assert set(defaults) == {""}


def test_arguments_set_parameters_that_exist() -> None:
    tables = constants_of("track")
    parameters = {name: parameter for name, parameter in tables["PARAMETERS"].items() if name != "use_sim_time"}
    kinds = {name: type(SPECS[parameter].default) for name, parameter in parameters.items()}
    assert set(kinds.values()) == {str, bool, float, int}
    assert {name for name, kind in kinds.items() if kind is bool} == set(tables["SWITCHES"]) & set(parameters)


def test_fast_dds_is_told_as_the_demo_tells_it() -> None:
    assert constants_of("track")["FASTDDS_VARIABLES"] == PROFILE_VARIABLES


@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_started_executables_are_installed(name: str) -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8")
    source = (ROOT / "launch" / f"{name}.launch.py").read_text("utf-8")
    executables = re.findall(r'package="elysium_ros",\s+executable="(\w+)"', source)
    assert executables or name == "multi_camera"
    assert all(f'"{executable}=elysium_ros.' in cmake for executable in executables)


def test_the_parameters_of_the_video_node_are_documented() -> None:
    rows = documented("Parameters of video_node")
    assert list(rows) == list(VIDEO_SPECS)
    for name, spec in VIDEO_SPECS.items():
        assert rows[name][:2] == [spec.type_name, f"`{yaml.safe_dump(spec.default).splitlines()[0]}`"]


def test_the_parameters_of_the_viewer_are_documented() -> None:
    page = (ROOT / "docs" / "viewer.md").read_text("utf-8").split("## Parameters of viewer_node\n", 1)[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == list(VIEWER_SPECS)
    for row, spec in zip(rows, VIEWER_SPECS.values(), strict=True):
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        assert row[1:] == [spec.type_name, f"`{json.dumps(default)}`", spec.description]


def test_rviz_shows_topics_that_the_node_has() -> None:
    config = yaml.safe_load((ROOT / "rviz" / "track.rviz").read_text("utf-8"))
    displays = config["Visualization Manager"]["Displays"]
    shown = {d["Topic"]["Value"]: d["Class"] for d in displays if "Topic" in d}
    assert shown == {
        "/elysium/annotated/image": "rviz_default_plugins/Image",
        "/elysium/markers": "rviz_default_plugins/MarkerArray",
    }


def test_the_foxglove_layout_shows_each_of_its_panels_once_with_a_topic_of_the_node() -> None:
    layout = json.loads((ROOT / "config" / "foxglove_layout.json").read_text("utf-8"))
    pending, shown = [layout["layout"]], []
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            shown.append(part)
        else:
            assert part["direction"] in ("row", "column")
            pending += [part["first"], part["second"]]
    panels = layout["configById"]
    assert sorted(shown) == sorted(panels)
    named = set(re.findall(r'"(/elysium/[\w/]+)', json.dumps(panels)))
    topics = {"/elysium/annotated/image", "/elysium/image_markers", "/elysium/objects", "/elysium/status"}
    assert named == topics | {"/elysium/track", "/elysium/stop"}
    for name, service in (("track", Track), ("stop", StopTracking)):
        request = json.loads(panels[f"CallService!{name}"]["requestPayload"])
        assert set(request) <= set(service.Request.get_fields_and_field_types())


def test_the_layout_can_be_had_for_a_node_of_any_name_and_camera() -> None:
    text = (ROOT / "config" / "foxglove_layout.json").read_text("utf-8")
    layout = json.loads(foxglove_layout(text, "/robot/eyes", "front"))
    named = set(re.findall(r'"(/[\w/]+)', json.dumps(layout)))
    own = {"annotated/image", "image_markers", "objects"}
    assert named == {f"/robot/eyes/front/{name}" for name in own} | {
        f"/robot/eyes/{n}" for n in ("status", "track", "stop")
    }
    assert json.loads(layout["configById"]["CallService!track"]["requestPayload"])["camera"] == "front"
    assert json.loads(foxglove_layout(text, "/elysium")) == json.loads(text)


def test_a_switch_may_be_spelled_as_people_spell_it() -> None:
    assert {switch("rviz", text) for text in ("true", "True", "TRUE", "1", "yes", " on ")} == {"true"}
    assert {switch("rviz", text) for text in ("false", "False", "0", "no", "Off")} == {"false"}
    assert switches({"rviz": "Yes", "zoom": "", "image": "yes"}, ["rviz", "zoom"]) == {
        "rviz": "true",
        "zoom": "",
        "image": "yes",
    }
    with pytest.raises(ConfigError, match="rviz:=maybe"):
        switch("rviz", "maybe")


def test_a_rate_may_be_a_whole_number() -> None:
    assert [positive("rate", text) for text in ("15", "29.97", "1e2")] == [15.0, 29.97, 100.0]
    for text in ("0", "-1", "fast", "nan", "inf"):
        with pytest.raises(ConfigError, match=f"rate:={text}"):
            positive("rate", text)
    assert positive("describe_period", "0", or_zero=True) == 0
    with pytest.raises(ConfigError, match="describe_period:=-1 is not 0 or a number above 0"):
        positive("describe_period", "-1", or_zero=True)


def test_a_count_is_a_whole_number() -> None:
    assert [count("max_pixels", text) for text in ("0", " 307200 ")] == [0, 307200]
    for text in ("-1", "3e5", "many", "9" * 10, "²"):
        with pytest.raises(ConfigError) as caught:
            count("max_pixels", text)
        assert f"max_pixels:={text}" in str(caught.value)


def test_a_port_is_a_whole_number_in_its_range() -> None:
    assert [port("viewer_port", text) for text in ("0", "8420", "65535")] == [0, 8420, 65535]
    for text in ("-1", "65536", "84.5", "http", "", "9" * 5000):
        with pytest.raises(ConfigError) as caught:
            port("viewer_port", text)
        assert f"viewer_port:={text}" in str(caught.value)


@pytest.mark.parametrize("name", ["track", "replay"])
def test_the_values_of_switches_are_not_left_to_launch(name: str) -> None:
    calls = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    assert "choices" not in {keyword.arg for call in calls for keyword in call.keywords}


def test_a_replay_checks_its_arguments_before_anything_starts() -> None:
    source = ast.unparse(tree_of("replay"))
    order = [source.index(part) for part in ("function=check", "IncludeLaunchDescription(track)", "function=source")]
    assert order == sorted(order)


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"{name}_launch", ROOT / "launch" / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(**given: str) -> dict[str, str]:
    return {**dict.fromkeys(declared("track"), ""), **given}


@pytest.mark.ros_install
def test_empty_arguments_are_not_passed_on() -> None:
    assert load("track").explicit_parameters(arguments()) == {}


@pytest.mark.ros_install
def test_arguments_keep_their_type() -> None:
    from launch import LaunchContext

    given = arguments(
        expression="no", model="1", autostart="false", cameras="front, rear", fast_resize="true", precision="float16",
        describe_period="20", max_pixels="90000",
    )  # fmt: skip
    values = load("track").explicit_parameters(given)
    evaluated = {k: v if isinstance(v, bool | int | float) else v.evaluate(LaunchContext()) for k, v in values.items()}
    assert evaluated == {
        "tracking.initial_expression": "no",
        "model.path": "1",
        "autostart": False,
        "model.fast_resize": True,
        "model.precision": "float16",
        "model.max_pixels": 90000,
        "describe.period": 20.0,
        "cameras": ["front", "rear"],
    }


@pytest.mark.ros_install
def test_arguments_are_taken_by_their_other_names_and_not_twice() -> None:
    from launch import LaunchContext

    values = load("track").explicit_parameters(arguments(dtype="float16", vision_backend="onnx", quantize="int8"))
    assert {name: value.evaluate(LaunchContext()) for name, value in values.items()} == {
        "model.precision": "float16",
        "model.backend": "onnx",
        "model.quantization": "int8",
    }
    load("track").explicit_parameters(arguments(dtype="float16", precision="float16"))
    with pytest.raises(ConfigError, match="dtype:=float16"):
        load("track").explicit_parameters(arguments(dtype="float16", precision="float32"))


@pytest.mark.ros_install
def test_fast_dds_is_told_unless_the_user_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.actions import SetEnvironmentVariable

    from launch import LaunchContext

    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    actions = load("track").fastdds()
    context = LaunchContext()
    for action in actions:
        assert isinstance(action, SetEnvironmentVariable)
        action.execute(context)
    assert all(Path(context.environment[name]).is_file() for name in PROFILE_VARIABLES)
    monkeypatch.setenv(PROFILE_VARIABLES[1], "mine.xml")
    assert not any(isinstance(action, SetEnvironmentVariable) for action in load("track").fastdds())


@pytest.mark.ros_install
@pytest.mark.parametrize(
    ("namespace", "name", "cameras", "topic"),
    [
        ("", "", "", None),
        ("robot1", "", "", "/robot1/elysium/annotated/image"),
        ("/robot1", "eyes", "", "/robot1/eyes/annotated/image"),
        ("", "", "front,rear", "/elysium/front/annotated/image"),
    ],
)
def test_rviz_follows_the_name_of_the_node(namespace: str, name: str, cameras: str, topic: str | None) -> None:
    remappings = dict(load("track").rviz_remappings(namespace, name, cameras))
    assert remappings.get("/elysium/annotated/image") == topic


@pytest.mark.ros_install
def test_clicks_in_the_image_of_the_camera_reach_the_click_node() -> None:
    from launch import LaunchContext

    node = load("track").clicks(arguments(image="/camera/color/image_raw", camera_info="/camera/color/camera_info"))
    context = LaunchContext()
    pairs = [[context.perform_substitution(part[0]) for part in pair] for pair in node._Node__remappings]
    assert dict(pairs) == {
        "camera_info": "/camera/color/camera_info",
        "image_mouse_left": "/camera/color/image_raw_mouse_left",
    }


@pytest.mark.ros_install
@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_all_arguments_are_shown(name: str) -> None:
    from launch import LaunchDescription

    description: LaunchDescription = load(name).generate_launch_description()
    shown = {argument.name for argument in description.get_launch_arguments()}
    assert shown >= {*declared(name), *declared("track")}


@pytest.mark.ros_install
def test_a_bag_waits_for_the_node_and_is_not_played_without_it() -> None:
    from launch.actions import ExecuteProcess, LogInfo
    from launch.events.process import ProcessExited

    from launch import LaunchContext

    registration, waiter = load("track").bag_once_active(arguments(bag="recording", namespace="/robot1"))
    context = LaunchContext()

    def after(returncode: int) -> object:
        event = ProcessExited(action=waiter, name="", cmd=[], cwd=None, env=None, pid=1, returncode=returncode)
        assert registration.event_handler.matches(event)
        return registration.event_handler.handle(event, context)

    bag = after(0)
    assert isinstance(bag, ExecuteProcess)
    words = [context.perform_substitution(part) for word in bag.cmd for part in word]
    assert words[:5] == ["ros2", "bag", "play", "recording", "--clock"]
    assert isinstance(after(3), LogInfo)


@pytest.mark.ros_install
def test_an_empty_place_keeps_its_camera_s_own_topic() -> None:
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(cameras="front,rear,", images=",/rear/image_raw", camera_infos="")
    [remap] = load("multi_camera").connect(context)
    source, target = ("".join(map(context.perform_substitution, part)) for part in (remap.src, remap.dst))
    assert (source, target) == ("rear/image", "/rear/image_raw")
    assert load("track").camera_names("front, rear,") == ["front", "rear"]


@pytest.mark.ros_install
@pytest.mark.parametrize(("given", "sent"), [("", None), ("auto", None), ("compressed", "compressed")])
def test_a_video_is_sent_as_the_tracker_listens(given: str, sent: str | None) -> None:
    node = load("replay").video({"video": "a.mp4", "rate": "", "loop": "", "image_transport": given})
    [parameters] = node._Node__parameters
    names = {"".join(part.text for part in name): value for name, value in parameters.items()}
    assert ("image_transport" in names) == (sent is not None)


@pytest.mark.ros_install
@pytest.mark.parametrize(("returncode", "wanted", "ends"), [(0, "", False), (0, "True", True), (2, "", True)])
def test_a_video_that_ended_ends_the_launch_if_it_failed_or_that_is_wanted(
    returncode: int, wanted: str, ends: bool
) -> None:
    from launch.actions import Shutdown
    from launch.events.process import ProcessExited

    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(video="a.mp4", rate="15", loop="", exit_at_end=wanted)
    registration, node = load("replay").source(context)
    event = ProcessExited(action=node, name="", cmd=[], cwd=None, env=None, pid=1, returncode=returncode)
    assert registration.event_handler.matches(event)
    actions = registration.event_handler.handle(event, context) or []
    assert [type(action) for action in actions] == ([Shutdown] if ends else [])


@pytest.mark.ros_install
def test_a_video_is_one_camera() -> None:
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(video="a.mp4", cameras="front")
    with pytest.raises(RuntimeError, match="does not go with cameras:=front"):
        load("replay").check(context)
