"""Tracks in the images of several cameras with one node and one model.

    ros2 launch elysium_ros multi_camera.launch.py cameras:=front,rear images:=/front/image_raw,/rear/image_raw

Objects, annotated images and markers come out per camera: /elysium/front/objects and so on. All arguments of
track.launch.py except `image`, `camera_info`, `depth_image` and `depth_info` work here too.
"""

from itertools import zip_longest
from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import SetRemap

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    "images": "image topics in the order of cameras, separated by commas; NAME/image if empty",
    "camera_infos": "calibration topics in the order of cameras, for markers; NAME/camera_info if empty",
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, connect the cameras' topics, and include track.launch.py."""
    names = DeclareLaunchArgument("cameras", description="names of the cameras, separated by commas")
    declarations = [DeclareLaunchArgument(name, default_value="", description=text) for name, text in ARGUMENTS.items()]
    track = PythonLaunchDescriptionSource(str(Path(__file__).with_name("track.launch.py")))
    return LaunchDescription([names, *declarations, OpaqueFunction(function=connect), IncludeLaunchDescription(track)])


def connect(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return one remapping for each topic that is given."""
    given = context.launch_configurations
    cameras = [name for name in split(given["cameras"]) if name]
    pairs = [("image", split(given["images"])), ("camera_info", split(given["camera_infos"]))]
    return [
        SetRemap(src=f"{camera}/{topic}", dst=target)
        for topic, targets in pairs
        for camera, target in zip_longest(cameras, targets[: len(cameras)], fillvalue="")
        if target
    ]


def split(text: str) -> list[str]:
    """Split "/front/image, /rear/image"; an empty entry keeps its default topic, an empty text gives an empty list."""
    return [part.strip() for part in text.split(",")] if text.strip() else []
