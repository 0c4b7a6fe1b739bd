import types
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_ros.visuals import Visuals
from openpi_runtime.robots import load_robot


class FakeNode:
    """Collects the topics."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.subscribed: list[str] = []

    def create_publisher(self, _kind: type, topic: str, _qos: Any) -> Any:
        self.published.append(topic)
        return types.SimpleNamespace(publish=lambda _message: None)

    def create_subscription(self, _kind: type, topic: str, _callback: Any, _qos: Any) -> None:
        self.subscribed.append(topic)


@pytest.mark.parametrize(
    ("robot", "published", "subscribed"),
    [
        ("droid", False, []),  # the driver itself publishes where RViz looks
        ("aloha", True, ["follower_left/joint_states", "follower_right/joint_states"]),
    ],
)
def test_joint_states_are_passed_on_where_no_driver_publishes_them(robot, published, subscribed) -> None:
    node = FakeNode()
    Visuals(node, load_robot(robot), "world")  # type: ignore[arg-type]
    assert ("joint_states" in node.published) == published
    assert node.subscribed == subscribed
