"""A robot's topics without the robot: for benchmarks, and for tests that need to break something."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from openpi_ros import qos
from openpi_ros.conversions import image_message, joint_state_message
from openpi_runtime.grippers import Gripper
from openpi_runtime.robots import Group, RobotSpec
from openpi_runtime.safety import Vector


@dataclasses.dataclass(frozen=True)
class Received:
    """A command as it came: time.monotonic(), the group, its values in the order of the group's command joints."""

    at_s: float
    group: str
    values: Vector


class MockRobot:
    """Joint states that are where the last command was, cameras of noise, and a record of every command.

    Attributes:
        position: [dim] where the joints are, in the order of the action columns and in runtime units.
        received: every command, in the order of arrival.
        silent: groups whose joint states are not published. missing: joints left out of them.
        blind: cameras that publish nothing. frozen: cameras whose stamp stands.
    """

    def __init__(self, node: Node, robot: RobotSpec, start: Vector, image_size: tuple[int, int] | None = None) -> None:
        """image_size: height and width of the cameras' images; None: no cameras."""
        self._node = node
        self._robot = robot
        self.position = np.array(start, dtype=np.float64)
        self.received: list[Received] = []
        self.silent: set[str] = set()
        self.missing: set[str] = set()
        self.blind: set[str] = set()
        self.frozen: dict[str, int] = {}
        self._joints = [(g, node.create_publisher(JointState, g.joint_states, qos.SENSOR)) for g in robot.groups]
        cameras = [camera for camera in robot.cameras if camera.required and image_size is not None]
        self._cameras = [(c, node.create_publisher(Image, c.topic, qos.SENSOR)) for c in cameras]
        shape = (*(image_size or (1, 1)), 3)
        self._picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
        for group in robot.groups:
            self._obey(group)

    def publish_joints(self, stamp_ns: int) -> None:
        """Publishes every group's joint states, with the names the real drivers use."""
        for group, publisher in self._joints:
            if group.name not in self.silent:
                publisher.publish(joint_state_message(self._reading(group), stamp_ns))

    def publish_images(self, stamp_ns: int) -> None:
        """Publishes an image of every required camera."""
        for camera, publisher in self._cameras:
            if camera.name not in self.blind:
                stamp = self.frozen.get(camera.name, stamp_ns)
                publisher.publish(image_message(self._picture, stamp, camera.frame))

    def _reading(self, group: Group) -> dict[str, float]:
        values = self.position[self._robot.group_columns(group)]
        readings = {name: float(value) for name, value in zip(group.joints, values, strict=False)}
        if group.gripper is not None:
            opening = self._robot.gripper_convention.fraction(float(values[-1]))
            readings[group.gripper.command_joint] = group.gripper.calibration.joint.at(opening)
            readings[group.gripper.state_joint] = group.gripper.calibration.position.at(opening)
        return {name: value for name, value in readings.items() if name not in self.missing}

    def _obey(self, group: Group) -> None:
        columns = self._robot.group_columns(group)

        def take(values: Vector) -> None:
            self.received.append(Received(time.monotonic(), group.name, values))
            if values.ndim == 1 and len(values) <= len(columns):  # the gripper may be commanded apart
                self.position[columns[: len(values)]] = values

        def on_trajectory(message: JointTrajectory) -> None:
            take(np.array(message.points[-1].positions))

        def on_forward(message: Float64MultiArray) -> None:
            take(np.array(message.data))

        if "joint_trajectory" in group.controllers:
            topic = group.controllers["joint_trajectory"]["topic"]
            self._node.create_subscription(JointTrajectory, topic, on_trajectory, qos.COMMAND)
        if "forward" in group.controllers:
            topic = group.controllers["forward"]["topic"]
            self._node.create_subscription(Float64MultiArray, topic, on_forward, qos.COMMAND)
        if group.gripper is not None and group.gripper.channel is not None:
            self._obey_gripper(group.gripper, group.gripper.channel.topic, columns[-1])

    def _obey_gripper(self, gripper: Gripper, topic: str, column: int) -> None:
        def on_command(message: Float64MultiArray) -> None:
            opening = gripper.calibration.joint.fraction(message.data[0])
            self.position[column] = self._robot.gripper_convention.at(opening)

        self._node.create_subscription(Float64MultiArray, topic, on_command, qos.COMMAND)
