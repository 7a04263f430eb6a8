"""Clicks of rviz and rqt_image_view: where they are in the image, and what becomes of them."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import rclpy
from geometry_msgs.msg import Point, PointStamped
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from elysium_core.errors import BoxError
from elysium_ros.client.click_node import ClickNode
from elysium_ros.client.clicks import ClickError, Clicks
from elysium_ros.convert.messages import header_at, made_up_camera_info
from elysium_ros.msg import TrackedObjectArray

FRAME = "camera_optical_frame"
SEEN = TrackedObjectArray(header=header_at(5_000_000_000, FRAME), image_width=640, image_height=480)


@pytest.fixture
def clicks() -> Clicks:
    made = Clicks()
    made.see(SEEN)
    # 90 degrees, of images of twice the size: at 2 m the image spans -2..2 m.
    made.calibrate(made_up_camera_info(1280, 960, 90.0, Header()))
    return made


def in_space(x: float, y: float, z: float, frame: str = FRAME) -> PointStamped:
    return PointStamped(header=Header(frame_id=frame), point=Point(x=x, y=y, z=z))


def middle(box) -> tuple[float, float]:
    return (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2


def test_a_click_in_the_image_is_a_square_around_it_in_the_newest_image(clicks):
    box, stamp = clicks.in_image(Point(x=320.0, y=120.0))
    assert middle(box) == pytest.approx((320, 120))
    assert box.x_max - box.x_min == pytest.approx(box.y_max - box.y_min) == pytest.approx(96)
    assert stamp.sec == 5


def test_a_point_in_space_is_where_the_camera_sees_it(clicks):
    box, _ = clicks.in_space(in_space(1.0, -0.5, 2.0))
    assert middle(box) == pytest.approx((480, 160))
    box, _ = clicks.in_space(in_space(1.0, -0.5, 2.0, f"/{FRAME}"))
    assert middle(box) == pytest.approx((480, 160))


@pytest.mark.parametrize(
    ("point", "code", "named"),
    [
        (in_space(0.0, 0.0, 1.0, "map"), "CLICK_FRAME", "map"),
        (in_space(0.0, 0.0, 0.0), "CLICK_BEHIND", "0"),
        (in_space(0.0, 0.0, -1.0), "CLICK_BEHIND", "-1"),
        (in_space(0.0, 0.0, float("nan")), "CLICK_BEHIND", "nan"),
        (in_space(9.0, 0.0, 1.0), "BOX_INVALID", ""),
    ],
)
def test_a_point_that_the_camera_cannot_see_is_one_sentence(clicks, point, code, named):
    with pytest.raises((ClickError, BoxError)) as caught:
        clicks.in_space(point)
    assert caught.value.code == code
    assert named in str(caught.value)


def test_before_the_first_image_and_without_a_calibration_the_click_says_what_is_missing(clicks):
    with pytest.raises(ClickError) as caught:
        Clicks().in_image(Point())
    assert caught.value.code == "CLICK_NO_IMAGE"
    clicks.calibrate(CameraInfo(width=640, height=480))
    with pytest.raises(ClickError) as caught:
        clicks.in_space(in_space(0.0, 0.0, 1.0))
    assert caught.value.code == "CLICK_NO_CALIBRATION"


class Called:
    """Stands for the tracker: keeps what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.refusal = ""

    def track(self, **request):
        self.asked.append(request)
        return SimpleNamespace(id=len(self.asked), success=not self.refusal, message=self.refusal)


@pytest.fixture
def running():
    """A click node, a node that clicks, and the tracker that is called."""
    context = Context()
    rclpy.init(args=[], context=context)
    called = Called()
    node = ClickNode(lambda tracker: called, context=context, enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield node, called
    executor.shutdown(timeout_sec=2.0)
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    thread.join(5.0)


def test_a_click_of_either_program_becomes_a_target_beside_the_others(running, until):
    node, called = running
    senders = {
        name: node.create_publisher(kind, name, 1)
        for kind, name in (
            (PointStamped, "/clicked_point"),
            (Point, "/image_mouse_left"),
            (Point, "/elysium/annotated/image_mouse_left"),
            (TrackedObjectArray, "/elysium/objects"),
            (CameraInfo, "/camera_info"),
        )
    }
    until(lambda: all(sender.get_subscription_count() for sender in senders.values()), "the node listens")
    senders["/image_mouse_left"].publish(Point(x=10.0, y=10.0))
    outcome = until(node.follow, "the click is refused")
    assert "CLICK" not in outcome
    assert "not looked at an image" in outcome
    senders["/elysium/objects"].publish(SEEN)
    senders["/camera_info"].publish(made_up_camera_info(640, 480, 90.0, Header()))
    until(lambda: node._clicks._image and node._clicks._info, "the tracker and the camera are seen")
    for name, click in (
        ("/image_mouse_left", Point(x=320.0, y=240.0)),
        ("/elysium/annotated/image_mouse_left", Point(x=320.0, y=240.0)),
        ("/clicked_point", in_space(0.0, 0.0, 2.0)),
    ):
        senders[name].publish(click)
        assert until(node.follow, "the click is followed").startswith("target")
        assert middle(called.asked[-1]["box"]) == pytest.approx((320, 240))
        assert called.asked[-1]["add"]
    called.refusal = "NOT_ACTIVE: the node is inactive"
    senders["/image_mouse_left"].publish(Point(x=320.0, y=240.0))
    assert "NOT_ACTIVE" in until(node.follow, "the tracker refuses")
