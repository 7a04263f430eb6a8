"""Plays a video or a bag and tracks in its images.

    ros2 launch elysium_ros replay.launch.py video:=street.mp4 expression:='the car' rviz:=true
    ros2 launch elysium_ros replay.launch.py bag:=recording/ image:=/camera/image_raw expression:='the car'

All arguments of track.launch.py work here too. With bag:=, `ros2 bag play` plays all topics and `use_sim_time` is set;
video:=recording/ plays the images of a bag alone, without `ros2 bag`.
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from elysium_ros.node.launch_arguments import positive, switch
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    "video": "video file, folder of images, bag, or camera device to play as a camera",
    "topic": "image topic of a bag that is given as video; not needed if it has only one",
    "rate": "frames per second of the video; as recorded if empty",
    "loop": "true: start the video over at its end",
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, start the source of the images, and include track.launch.py."""
    declarations = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    track = PythonLaunchDescriptionSource(str(Path(__file__).with_name("track.launch.py")))
    return LaunchDescription(
        [
            *declarations,
            OpaqueFunction(function=clock),
            # Before the tracker, so that a bad argument is an error before anything has started.
            OpaqueFunction(function=check),
            IncludeLaunchDescription(track),
            # After the tracker, so that its environment variables (fastdds) also apply to the sender of the images.
            OpaqueFunction(function=source),
        ]
    )


def clock(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the setting that takes the time from the bag, which track.launch.py plays."""
    given = context.launch_configurations
    with_bag = given.get("bag") and not given.get("use_sim_time")
    return [SetLaunchConfiguration("use_sim_time", "true")] if with_bag else []


def check(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Raise if the video cannot be played as it is wanted; return nothing."""
    given = dict(context.launch_configurations)
    if given["video"] and given.get("cameras"):
        raise RuntimeError(
            f"video:={given['video']} is one camera, so it does not go with cameras:={given['cameras']}; "
            "start a video_node for each with multi_camera.launch.py"
        )
    video_parameters(given)
    return []


def source(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the video node, if a video is given, and what happens when it ends."""
    given = dict(context.launch_configurations)
    if not given["video"]:
        return []
    node, is_wanted = video(given), switch("exit_at_end", given.get("exit_at_end", "")) == "true"

    def end(event: ProcessExited, _: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode:
            return [Shutdown(reason=f"the video node ended with exit code {event.returncode}")]
        return [Shutdown(reason="the video is over")] if is_wanted else []

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end)), node]


def video_parameters(given: dict[str, str]) -> dict[str, object]:
    """Return the parameters of the video node; a value that is none of its kind is an error."""
    # The type is given because launch_ros reads untyped text as YAML: the camera "0" would become a number.
    parameters: dict[str, object] = {"source": ParameterValue(given["video"], value_type=str)}
    parameters |= {"wait_for_subscribers": 1, "loop": switch("loop", given["loop"]) == "true"}
    parameters["exit_at_end"] = switch("exit_at_end", given.get("exit_at_end", "")) == "true"
    # The tracker's "auto" prefers raw images if they are published.
    if given.get("image_transport") in ("raw", "compressed"):
        parameters["image_transport"] = given["image_transport"]
    if given.get("topic"):
        parameters["topic"] = ParameterValue(given["topic"], value_type=str)
    if given["rate"]:
        parameters["rate"] = positive("rate", given["rate"])
    return parameters


def video(given: dict[str, str]) -> Node:
    """Return the video node on the tracker's topics; it waits until the tracker subscribes."""
    return Node(
        package="elysium_ros",
        executable="video_node",
        namespace=given.get("namespace") or None,
        parameters=[video_parameters(given)],
        remappings=[(topic, given[topic]) for topic in ("image", "camera_info") if given.get(topic)],
        output="screen",
    )
