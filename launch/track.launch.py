"""Starts the tracker node, and on request its web page, rviz, the Foxglove bridge and a bag.

    ros2 launch elysium_ros track.launch.py image:=/camera/color/image_raw expression:='the person' rviz:=true

An empty argument is not passed on: the value of `params_file` applies, or else the node's default.
"""

import os
from pathlib import Path
from typing import List  # noqa: UP035 - launch_ros compares with the names of typing

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from elysium_core.errors import ConfigError
from elysium_ros.node.launch_arguments import count, port, positive, switches
from elysium_ros.node.load_parameters import LOAD_ALIASES, LOAD_ARGUMENTS
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    "image": "image topic; compressed images are looked for below it; not used with cameras",
    "camera_info": "calibration topic, for markers; remapping image does not move it; not used with cameras",
    "use_depth": "true: read depth images too, registered to the images, for positions in space",
    "depth_image": "depth topic, 16UC1 [mm] or 32FC1 [m]; not used with cameras",
    "depth_info": "calibration topic of the depth images; not used with cameras",
    "image_transport": "raw, compressed or auto",
    "namespace": "namespace of the node",
    "name": "name of the node and prefix of its topics and services",
    "params_file": "YAML file with parameters; arguments given here override it",
    # One argument for each node parameter about loading the model.
    **{name: spec.description for name, spec in LOAD_ARGUMENTS.items()},
    **{alias: f"another name of {name}" for alias, name in LOAD_ALIASES.items()},
    "zoom": "true: zoom into parts of the image at full resolution, for small objects; slower",
    "clip_mode": "paper: answer clips of 8 images, each once, as the paper does, instead of each image",
    "expression": "what to track from the start, such as 'the person' or 'the bottle on the left'",
    "describe_period": "time between two descriptions of each target [s]; 0: none unless asked for",
    "cameras": "names of several cameras, separated by commas; NAME reads NAME/image",
    "use_sim_time": "true: take the time from /clock",
    "allow_model_change": "true: accept another model at run time, from anyone who reaches the node",
    "autostart": "false: leave configuring and activating to a lifecycle manager",
    "rviz": "true: open rviz",
    "rviz_config": "configuration of rviz; that of the package if empty",
    "fixed_frame": "fixed frame of rviz; the camera's optical frame shows the markers",
    "foxglove": "true: start foxglove_bridge",
    "clicks": "true: follow what is clicked in rviz or rqt_image_view",
    "viewer": "true: serve a web page to watch and control the node; the log has its address",
    "viewer_host": "address that the page is served on; 0.0.0.0 = all networks, then with a token",
    "viewer_port": "port of the page",
    "fastdds": "false: do not send images through shared memory (config/fastdds.xml) in the processes started here",
    "bag": "bag to play with --clock once the node is active",
    "exit_at_end": "true: end everything started here when the bag, or the video of replay.launch.py, is over",
    "respawn": "true: start the node again when it ends",
    "log_level": "debug, info, warn, error or fatal",
}
SWITCHES = (
    *(name for name, spec in LOAD_ARGUMENTS.items() if spec.type_name == "bool"),
    *(
        "use_depth",
        "zoom",
        "use_sim_time",
        "allow_model_change",
        "autostart",
        "rviz",
        "foxglove",
        "clicks",
        "viewer",
        "fastdds",
        "exit_at_end",
        "respawn",
    ),
)

# Loading a large model from a slow disk takes minutes.
ACTIVE_TIMEOUT_S = "1800"

# Variables of Fast DDS 2 (Humble, Jazzy) and of Fast DDS 3.
FASTDDS_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

# Launch argument -> node parameter.
PARAMETERS = {
    "use_depth": "depth.enabled",
    "image_transport": "image_transport",
    **{name: spec.name for name, spec in LOAD_ARGUMENTS.items()},
    **{alias: LOAD_ARGUMENTS[name].name for alias, name in LOAD_ALIASES.items()},
    "zoom": "tracking.zoom",
    "clip_mode": "clip.mode",
    "expression": "tracking.initial_expression",
    "describe_period": "describe.period",
    "use_sim_time": "use_sim_time",
    "allow_model_change": "allow_model_change",
    "autostart": "autostart",
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the processes that they select."""
    declarations = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    return LaunchDescription([*declarations, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the processes that the arguments ask for; a bad argument is an error before any of them has started."""
    given = switches({name: context.launch_configurations[name] for name in ARGUMENTS}, SWITCHES)
    actions: list[LaunchDescriptionEntity] = [] if given["fastdds"] == "false" else fastdds()
    actions.append(tracker(given))
    if given["rviz"] == "true":
        actions.append(if_installed("rviz2", rviz(given)))
    if given["foxglove"] == "true":
        actions.append(if_installed("foxglove_bridge", Node(package="foxglove_bridge", executable="foxglove_bridge")))
    if given["clicks"] == "true":
        actions.append(clicks(given))
    if given["viewer"] == "true":
        actions.append(viewer(given))
    if given["bag"]:
        actions += bag_once_active(given)
    return actions


def bag_once_active(given: dict[str, str]) -> list[LaunchDescriptionEntity]:
    """Return the action that plays the bag once the tracker is active, because loading a model takes a while."""
    node = "/".join([given["namespace"].strip("/"), given["name"] or "elysium"]).lstrip("/")
    client = ["ros2", "run", "elysium_ros", "client", "lifecycle", "--node", node]
    waiter = ExecuteProcess(cmd=[*client, "--until", "active", "--timeout", ACTIVE_TIMEOUT_S], output="screen")
    # Wait a little longer, so that player and tracker discover each other.
    bag = ExecuteProcess(cmd=["ros2", "bag", "play", given["bag"], "--clock", "--delay", "1"], output="screen")
    refusal = LogInfo(msg="the tracker did not become active, so the bag is not played; see the log of the tracker")

    def play(event: ProcessExited, _: LaunchContext) -> LaunchDescriptionEntity:
        return bag if event.returncode == 0 else refusal

    actions: list[LaunchDescriptionEntity] = [
        RegisterEventHandler(OnProcessExit(target_action=waiter, on_exit=play)),
        waiter,
    ]
    if given["exit_at_end"] == "true":
        end = Shutdown(reason="the bag is over")
        actions.insert(0, RegisterEventHandler(OnProcessExit(target_action=bag, on_exit=[end])))
    return actions


def fastdds() -> list[LaunchDescriptionEntity]:
    """Return actions that set the packaged Fast DDS profile for later processes, unless the user has set one."""
    if any(name in os.environ for name in FASTDDS_VARIABLES):
        return [LogInfo(msg="a file of Fast DDS profiles is set already, so config/fastdds.xml is not used")]
    profile = Path(get_package_share_directory("elysium_ros")) / "config" / "fastdds.xml"
    return [SetEnvironmentVariable(name, str(profile)) for name in FASTDDS_VARIABLES]


def tracker(given: dict[str, str]) -> Node:
    """Return the tracker node."""
    parameters: list[object] = [given["params_file"]] if given["params_file"] else []
    parameters.append(explicit_parameters(given))
    return Node(
        package="elysium_ros",
        executable="tracker_node",
        name=given["name"] or None,
        namespace=given["namespace"] or None,
        parameters=parameters,
        remappings=remappings(given),
        ros_arguments=["--log-level", given["log_level"]] if given["log_level"] else None,
        respawn=given["respawn"] == "true",
        respawn_delay=2.0,
        output="screen",
    )


def remappings(given: dict[str, str]) -> list[tuple[str, str]]:
    """Return the remappings of the input topics that are given."""
    pairs = [(topic, given[topic]) for topic in ("image", "camera_info")]
    pairs += [("depth/image", given["depth_image"]), ("depth/camera_info", given["depth_info"])]
    return [(topic, target) for topic, target in pairs if target]


def explicit_parameters(given: dict[str, str]) -> dict[str, object]:
    """Return the parameters whose arguments are not empty."""
    refuse_two_values(given)
    values: dict[str, object] = {
        parameter: _value(name, given[name]) for name, parameter in PARAMETERS.items() if given[name]
    }
    if given["cameras"]:
        values["cameras"] = ParameterValue(camera_names(given["cameras"]), value_type=List[str])  # noqa: UP006
    return values


def refuse_two_values(given: dict[str, str]) -> None:
    """Raise if an argument has another value under its other name."""
    for alias, name in LOAD_ALIASES.items():
        if given[alias] and given[name] and given[alias] != given[name]:
            raise ConfigError(f"{name}:={given[name]} and {alias}:={given[alias]} are the same argument; give one")


def _value(name: str, text: str) -> object:
    if name in SWITCHES:
        return text == "true"
    if name == "describe_period":
        return positive(name, text, or_zero=True)
    if name == "max_pixels":
        return count(name, text)
    # Without a type launch_ros reads a value as YAML: the expression "no" would become false.
    return ParameterValue(text, value_type=str)


def camera_names(text: str) -> list[str]:
    """Split "front, rear"; empty names are dropped."""
    return [name.strip() for name in text.split(",") if name.strip()]


def rviz(given: dict[str, str]) -> Node:
    """Return rviz, with its displays remapped to the topics of this node."""
    default_config = Path(get_package_share_directory("elysium_ros")) / "rviz" / "track.rviz"
    arguments = ["-d", given["rviz_config"] or str(default_config)]
    if given["fixed_frame"]:
        arguments += ["-f", given["fixed_frame"]]
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"] or None,
        arguments=arguments,
        remappings=rviz_remappings(given["namespace"], given["name"], given["cameras"]),
        parameters=[{"use_sim_time": given["use_sim_time"] == "true"}],
    )


def rviz_remappings(namespace: str, name: str, cameras: str) -> list[tuple[str, str]]:
    """Return remappings from the topics of the packaged rviz configuration to the node's (of the first camera)."""
    node = "/".join(["", *namespace.strip("/").split("/"), name or "elysium"]).replace("//", "/")
    node += f"/{camera_names(cameras)[0]}" if cameras else ""
    topics = ("annotated/image", "markers")
    return [(f"/elysium/{topic}", f"{node}/{topic}") for topic in topics if node != "/elysium"]


def viewer(given: dict[str, str]) -> Node:
    """Return the viewer, which reads the same image topics as the tracker."""
    parameters: dict[str, object] = {"tracker": ParameterValue(given["name"] or "elysium", value_type=str)}
    if given["viewer_host"]:
        parameters["host"] = ParameterValue(given["viewer_host"], value_type=str)
    if given["viewer_port"]:
        parameters["port"] = port("viewer_port", given["viewer_port"])
    if given["cameras"]:
        parameters["cameras"] = ParameterValue(camera_names(given["cameras"]), value_type=List[str])  # noqa: UP006
    return Node(
        package="elysium_ros",
        executable="viewer_node",
        namespace=given["namespace"] or None,
        parameters=[parameters],
        remappings=[("image", given["image"])] if given["image"] else None,
        respawn=given["respawn"] == "true",
        respawn_delay=2.0,
        output="screen",
    )


def clicks(given: dict[str, str]) -> Node:
    """Return the node that turns clicks into targets of the tracker; of several cameras, those in the first one."""
    parameters: dict[str, object] = {"tracker": ParameterValue(given["name"] or "elysium", value_type=str)}
    remapped = [("camera_info", given["camera_info"])] if given["camera_info"] else []
    if given["cameras"]:
        parameters["camera"] = ParameterValue(camera_names(given["cameras"])[0], value_type=str)
    elif given["image"]:
        remapped.append(("image_mouse_left", f"{given['image']}_mouse_left"))
    return Node(
        package="elysium_ros",
        executable="click_node",
        namespace=given["namespace"] or None,
        parameters=[parameters],
        remappings=remapped or None,
        output="screen",
    )


def if_installed(package: str, node: Node) -> LaunchDescriptionEntity:
    """Return ``node``, or a log message if its package is missing; tracking works without it."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return LogInfo(msg=f"{package} is not installed, so it is not started; tracking works without it")
    return node
