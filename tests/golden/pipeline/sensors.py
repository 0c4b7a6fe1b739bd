"""A golden observation as the messages that a robot's drivers would have sent."""

import math
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from rclpy.node import Node
from sensor_msgs.msg import Image

from openpi_ros import qos
from openpi_ros.conversions import image_message, joint_state_message, to_time
from openpi_ros.robot_state import state_topics
from openpi_runtime.robots import POSE_AXES, Group, RobotSpec


class Sensors:
    """Publishes one observation of a policy (as `RobotSpec.observation` lays it out) again and again."""

    def __init__(self, node: Node, robot: RobotSpec, observation: dict[str, Any], period_s: float = 0.05) -> None:
        self._node, self._robot = node, robot
        self._state = _state(robot, observation)
        self._pictures = {camera: _at(observation, key) for camera, key in robot.observation.images.items()}
        self._publishers = {
            **{topic: node.create_publisher(kind, topic, qos.SENSOR) for topic, kind in state_topics(robot).items()},
            **{camera.topic: node.create_publisher(Image, camera.topic, qos.SENSOR) for camera in robot.cameras},
        }
        node.create_timer(period_s, self._publish)

    def _publish(self) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        for group in self._robot.groups:
            joints = joint_state_message(self._joints(group), now_ns)
            self._publishers[group.joint_states].publish(joints)
            if group.pose:
                self._publishers[group.pose].publish(_pose([self._state[group.name, a] for a in POSE_AXES], now_ns))
        for camera in self._robot.cameras:
            picture = image_message(self._pictures[camera.name], now_ns, camera.frame)
            self._publishers[camera.topic].publish(picture)

    def _joints(self, group: Group) -> dict[str, float]:
        named = {joint: value for (owner, joint), value in self._state.items() if owner == group.name}
        gripper = group.gripper
        if gripper is not None and gripper.name in named:
            opening = self._robot.gripper_convention.fraction(named.pop(gripper.name))
            named[gripper.state_joint] = gripper.calibration.position.at(opening)
        return {joint: value for joint, value in named.items() if not (group.pose and joint in POSE_AXES)}


def _state(robot: RobotSpec, observation: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Group and joint -> value."""
    values = {}
    for key, columns in robot.observation.state:
        for index, value in zip(columns, np.atleast_1d(_at(observation, key)), strict=True):
            values[robot.state[index].group, robot.state[index].joint] = float(value)
    return values


def _at(observation: dict[str, Any], key: tuple[str, ...]) -> Any:
    for name in key:
        observation = observation[name]
    return observation


def _pose(coordinates: list[float], now_ns: int) -> PoseStamped:
    x, y, z, *turn = coordinates
    angle = math.hypot(*turn)
    qx, qy, qz = (math.sin(angle / 2) / angle * np.array(turn)).tolist()
    orientation = Quaternion(x=qx, y=qy, z=qz, w=math.cos(angle / 2))
    message = PoseStamped(pose=Pose(position=Point(x=x, y=y, z=z), orientation=orientation))
    message.header.stamp = to_time(now_ns)
    return message
