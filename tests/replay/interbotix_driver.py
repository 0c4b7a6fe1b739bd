"""The Interbotix drivers of two follower arms, and three cameras, played.

`interbotix_driver.py CLOSED_M OPEN_M CLOSED_RAD OPEN_RAD CLOSED_M ...`: the left gripper's calibration, then the right
one's, in the field's numbers. Each begins a quarter open. Commands are printed as lines of JSON, and obeyed at once.
"""

import json
import sys
from typing import Any

import rclpy
from interbotix_xs_msgs.msg import JointGroupCommand, JointSingleCommand
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

JOINTS = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
START = {"left": [0.1, -0.9, 1.1, 0.2, -0.3, 0.4], "right": [-0.1, -0.8, 1.0, -0.2, -0.5, 0.6]}
OPENING = 0.25


class Arm:
    """One follower arm's driver."""

    def __init__(self, node: Any, side: str, calibration: list[float]) -> None:
        self._node, self._side = node, side
        self._closed_m, self._open_m, self._closed_rad, self._open_rad = calibration
        self._joints = list(START[side])
        self._motor = self._closed_rad + OPENING * (self._open_rad - self._closed_rad)
        self._states = node.create_publisher(JointState, f"follower_{side}/joint_states", 10)
        node.create_subscription(JointGroupCommand, f"follower_{side}/commands/joint_group", self._on_group, 10)
        node.create_subscription(JointSingleCommand, f"follower_{side}/commands/joint_single", self._on_single, 10)
        node.create_timer(0.02, self._publish)

    def _publish(self) -> None:
        share = (self._motor - self._closed_rad) / (self._open_rad - self._closed_rad)
        finger = self._closed_m + share * (self._open_m - self._closed_m)
        message = JointState(name=[*JOINTS, "gripper", "left_finger", "right_finger"])
        message.position = [*self._joints, self._motor, finger, -finger]
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._states.publish(message)

    def _on_group(self, message: JointGroupCommand) -> None:
        self._joints = list(message.cmd)
        self._print(message.name, self._joints)

    def _on_single(self, message: JointSingleCommand) -> None:
        self._motor = message.cmd
        self._print(message.name, message.cmd)

    def _print(self, name: str, cmd: Any) -> None:
        print(json.dumps({"side": self._side, "name": name, "cmd": cmd}), flush=True)


def main() -> None:
    """Plays until it is killed."""
    rclpy.init()
    node = rclpy.create_node("interbotix_driver")
    numbers = [float(word) for word in sys.argv[1:]]
    arms = [Arm(node, "left", numbers[:4]), Arm(node, "right", numbers[4:])]
    names = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    cameras = [node.create_publisher(Image, f"{name}/image_raw", qos_profile_sensor_data) for name in names]

    def show() -> None:
        image = Image(height=48, width=64, encoding="bgr8", step=192, data=bytes(48 * 192))
        image.header.stamp = node.get_clock().now().to_msg()
        for camera in cameras:
            camera.publish(image)

    node.create_timer(0.1, show)
    print(f"{len(arms)} arms", flush=True)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
