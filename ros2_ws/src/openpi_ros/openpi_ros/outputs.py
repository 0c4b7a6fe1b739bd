"""Commands as the controllers take them. One class per kind of controller, chosen by name."""

from __future__ import annotations

from typing import Any, Protocol

from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from openpi_ros import qos
from openpi_ros.conversions import to_duration
from openpi_runtime.robots import Group, RobotSpec
from openpi_runtime.safety import Vector


class Output(Protocol):
    """Publishes one command for one group: values in the order of `Group.command_joints`."""

    def publish(self, command: Vector, velocity: Vector) -> None:
        """command: rad, grippers in runtime units. velocity: of the command, per second."""


class JointTrajectoryOutput:
    """trajectory_msgs/JointTrajectory with one point, to be reached in one control period from its arrival."""

    def __init__(self, node: Node, robot: RobotSpec, group: Group) -> None:
        topic = group.controllers["joint_trajectory"]["topic"]
        self._publisher = node.create_publisher(JointTrajectory, topic, qos.COMMAND)
        self._names = list(group.command_joints)
        self._period = to_duration(robot.period_ns)

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes positions and velocities. The stamp is zero: it begins when it comes."""
        point = JointTrajectoryPoint(
            positions=command.tolist(), velocities=velocity.tolist(), time_from_start=self._period
        )
        self._publisher.publish(JointTrajectory(joint_names=self._names, points=[point]))


class ForwardOutput:
    """std_msgs/Float64MultiArray of positions."""

    def __init__(self, node: Node, _robot: RobotSpec, group: Group) -> None:
        self._publisher = node.create_publisher(Float64MultiArray, group.controllers["forward"]["topic"], qos.COMMAND)

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes positions."""
        self._publisher.publish(Float64MultiArray(data=command.tolist()))


class InterbotixOutput:
    """The Interbotix driver's two messages: the arm's joints as a group, the gripper's motor by itself.

    Raises:
        ImportError: interbotix_xs_msgs is not installed.
    """

    def __init__(self, node: Node, robot: RobotSpec, group: Group) -> None:
        messages = _interbotix_messages()
        topics = group.controllers["interbotix"]
        self._robot, self._group = robot, group
        self._joint_group, self._joint_single = messages.JointGroupCommand, messages.JointSingleCommand
        self._arm = node.create_publisher(self._joint_group, topics["group_topic"], qos.COMMAND)
        self._gripper = node.create_publisher(self._joint_single, topics["single_topic"], qos.COMMAND)

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes joint angles, and the gripper's as its motor's angle."""
        joints = len(self._group.joints)
        self._arm.publish(
            self._joint_group(name=self._group.controllers["interbotix"]["group"], cmd=command[:joints].tolist())
        )
        if (gripper := self._group.gripper) is not None:
            opening = self._robot.gripper_convention.fraction(float(command[joints]))
            angle = gripper.calibration.joint.at(opening)
            self._gripper.publish(self._joint_single(name=gripper.command_joint, cmd=angle))


_OUTPUTS: dict[str, type[Any]] = {
    "joint_trajectory": JointTrajectoryOutput,
    "forward": ForwardOutput,
    "interbotix": InterbotixOutput,
}


class RobotOutput:
    """All groups of a robot through one kind of controller.

    Raises:
        ValueError: the robot has no such controller.
        ImportError: the controller's messages are not installed.
    """

    def __init__(self, node: Node, robot: RobotSpec, controller: str) -> None:
        for group in robot.groups:
            if controller not in group.controllers:
                known = ", ".join(group.controllers) or "none"
                raise ValueError(f"Group {group.name!r} of {robot.name} has no controller {controller!r}, but {known}.")
        self._outputs: list[tuple[list[int], Output]] = [
            (robot.group_columns(group), _OUTPUTS[controller](node, robot, group)) for group in robot.groups
        ]

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes one command for the whole robot: [dim] in the order of the action columns."""
        for columns, output in self._outputs:
            output.publish(command[columns], velocity[columns])


def _interbotix_messages() -> Any:
    try:
        from interbotix_xs_msgs import msg
    except ImportError as error:
        raise ImportError(
            "The controller 'interbotix' needs the package interbotix_xs_msgs: install and source the Interbotix "
            "workspace, or choose joint_trajectory or forward."
        ) from error
    return msg
