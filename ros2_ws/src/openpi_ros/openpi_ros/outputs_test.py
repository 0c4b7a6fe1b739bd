import sys
import types
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from openpi_ros.outputs import RobotOutput
from openpi_runtime.robots import load_robot

COMMAND = np.arange(14) / 10.0
VELOCITY = np.arange(14) / 100.0


class FakeNode:
    """Collects what is published, by topic."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Any]] = {}

    def create_publisher(self, _kind: type, topic: str, _qos: Any) -> Any:
        messages = self.sent.setdefault(topic, [])
        return types.SimpleNamespace(publish=messages.append)


def publish(controller: str) -> dict[str, list[Any]]:
    node = FakeNode()
    RobotOutput(node, load_robot("aloha"), controller).publish(COMMAND, VELOCITY)  # type: ignore[arg-type]
    return node.sent


def test_joint_trajectory() -> None:
    sent = publish("joint_trajectory")
    assert set(sent) == {"follower_left/joint_trajectory", "follower_right/joint_trajectory"}
    (message,) = sent["follower_right/joint_trajectory"]
    (point,) = message.points
    assert message.joint_names == [
        "waist",
        "shoulder",
        "elbow",
        "forearm_roll",
        "wrist_angle",
        "wrist_rotate",
        "gripper",
    ]
    assert list(point.positions) == pytest.approx(COMMAND[7:])
    assert list(point.velocities) == pytest.approx(VELOCITY[7:])
    assert point.time_from_start.nanosec == 20_000_000


def test_forward() -> None:
    (message,) = publish("forward")["follower_left/commands"]
    assert list(message.data) == pytest.approx(COMMAND[:7])


def test_interbotix(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("interbotix_xs_msgs")
    package.msg = types.SimpleNamespace(  # type: ignore[attr-defined]
        JointGroupCommand=types.SimpleNamespace, JointSingleCommand=types.SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "interbotix_xs_msgs", package)
    sent = publish("interbotix")
    (arm,) = sent["follower_left/commands/joint_group"]
    (gripper,) = sent["follower_left/commands/joint_single"]
    assert (arm.name, arm.cmd) == ("arm", pytest.approx(COMMAND[:6]))
    # 0.6 open, of the motor's -0.6213 (closed) to 1.4910 (open)
    assert (gripper.name, gripper.cmd) == ("gripper", pytest.approx(-0.6213 + 0.6 * (1.4910 + 0.6213)))


def test_missing_interbotix_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "interbotix_xs_msgs", None)
    with pytest.raises(ImportError, match="needs the package interbotix_xs_msgs: install"):
        publish("interbotix")
