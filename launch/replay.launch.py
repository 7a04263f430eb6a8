"""Plays a video or a bag and tracks in its images.

    ros2 launch elysium_ros replay.launch.py video:=street.mp4 expression:='the car' rviz:=true
    ros2 launch elysium_ros replay.launch.py bag:=recording/ image:=/camera/image_raw expression:='the car'

All arguments of track.launch.py work here too. With a bag, `use_sim_time` is set.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    "video": "video file, folder of images, or camera device to play as a camera",
    "rate": "frames per second of the video; as recorded if empty",
    "loop": "true: start the video over at its end",
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, start the source of the images, and include track.launch.py."""
    declarations = [
        DeclareLaunchArgument(
            name, default_value="", description=text, choices=["", "true", "false"] if name == "loop" else None
        )
        for name, text in ARGUMENTS.items()
    ]
    track = PythonLaunchDescriptionSource(str(Path(__file__).with_name("track.launch.py")))
    return LaunchDescription(
        [
            *declarations,
            OpaqueFunction(function=clock),
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


def source(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the video node, if a video is given."""
    given = context.launch_configurations
    if given["video"] and given.get("cameras"):
        raise RuntimeError(
            f"video:={given['video']} is one camera, so it does not go with cameras:={given['cameras']}; "
            "start a video_node for each with multi_camera.launch.py"
        )
    return [video(dict(given))] if given["video"] else []


def video(given: dict[str, str]) -> Node:
    """Return the video node on the tracker's topics; it waits until the tracker subscribes."""
    # The type is given because launch_ros reads untyped text as YAML: the camera "0" would become a number.
    parameters: dict[str, object] = {"source": ParameterValue(given["video"], value_type=str)}
    parameters |= {"wait_for_subscribers": 1, "loop": given["loop"] == "true"}
    # The tracker's "auto" prefers raw images if they are published.
    if given.get("image_transport") in ("raw", "compressed"):
        parameters["image_transport"] = given["image_transport"]
    if given["rate"]:
        parameters["rate"] = ParameterValue(given["rate"], value_type=float)
    return Node(
        package="elysium_ros",
        executable="video_node",
        namespace=given.get("namespace") or None,
        parameters=[parameters],
        remappings=[(topic, given[topic]) for topic in ("image", "camera_info") if given.get(topic)],
        output="screen",
    )
