"""A node that reads depth: positions in its messages, cubes for rviz, and what it says when depth is of no use."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import Marker, MarkerArray

from elysium_ros.convert.messages import image_message, made_up_camera_info
from elysium_ros.msg import Box2D

WIDTH, HEIGHT = 64, 48
PART = Box2D(x_min=24.0, y_min=18.0, x_max=40.0, y_max=30.0)


class DepthCamera:
    """Publishes an image and the depth image of the same moment: an object at 1.5 m in ``PART`` before a wall."""

    def __init__(self, tester):
        self.tester, self.camera = tester, tester.camera
        reliable = QoSProfile(depth=5)
        self.depths = tester.node.create_publisher(Image, "/depth/image", reliable)
        self.infos = tester.node.create_publisher(CameraInfo, "/depth/camera_info", reliable)
        tester.until(lambda: self.depths.get_subscription_count() and self.infos.get_subscription_count(), "depth")

    def see(self, *, width=WIDTH):
        """Send both and return what was published of the image."""
        header = self.camera.header()
        pixels = np.full((HEIGHT, width), 4000, np.uint16)
        pixels[18:30, 24:40] = 1500
        depth = Image(header=header, encoding="16UC1", width=width, height=HEIGHT, step=2 * width)
        depth.data = pixels.tobytes()
        self.infos.publish(made_up_camera_info(WIDTH, HEIGHT, 90.0, header))
        self.depths.publish(depth)
        self.camera.send(image_message(self.camera.picture, header))
        return self.tester.objects[""].of(header)


@pytest.fixture(scope="module")
def eyes(start_tracker):
    tester = start_tracker(depth__enabled=True, depth__sync_slop=0.0)
    tester.wait_active()
    return DepthCamera(tester)


def test_an_object_has_its_position_in_every_output(eyes):
    tester = eyes.tester
    tester.client.track("mug", box=PART)
    cubes = tester.inbox(MarkerArray, "markers")
    # The calibration may be discovered after the depth.
    found = tester.until(lambda: next((o for o in eyes.see().objects if o.has_position), None), "a position")
    assert (found.position.x, found.position.y, found.position.z) == pytest.approx((0.0, 0.0, 1.5))
    # 90 degrees: at 1.5 m the image is 3 m wide, and 16 of its 64 pixels are 0.75 m.
    assert (found.size.x, found.size.y, found.size.z) == pytest.approx((0.75, 0.5625, 0.0))
    tester.until(lambda: eyes.see() and any(m.type == Marker.CUBE for a in cubes.messages for m in a.markers), "a cube")
    cubes.close()


def test_depth_that_is_of_no_use_costs_the_positions_only_and_is_told(eyes):
    tester = eyes.tester
    tester.client.track("mug", box=PART)
    diagnostics = tester.inbox(DiagnosticArray, "/diagnostics")

    def told():
        item = eyes.see(width=HEIGHT).objects[-1]  # one that was replaced has its farewell before it
        assert not item.has_position
        assert item.box == PART
        return any("DEPTH_SIZE" in str(message.status) for message in diagnostics.messages)

    tester.until(told, "a diagnosis")
    diagnostics.close()
    assert tester.until(lambda: eyes.see().objects[0].has_position, "a position again")
