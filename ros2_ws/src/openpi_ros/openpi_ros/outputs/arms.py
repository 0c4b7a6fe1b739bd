"""Commands to arms, one class per kind of controller. A gripper that goes with its arm is the last value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from openpi_ros.conversions import to_duration
from openpi_ros.outputs.channels import Channels
from openpi_ros.outputs.grippers import driver_position
from openpi_runtime.robots import Group, RobotSpec
from openpi_runtime.safety import Vector


class Output(Protocol):
    """Publishes one command for one group, in the order of the names it was made with."""

    def publish(self, command: Vector, velocity: Vector) -> None:
        """command: rad, grippers in runtime units. velocity: per second; 0 while the robot is to stand."""

    def stop(self) -> None:
        """Called in every tick without a command; whatever would make the robot move on has to end."""


class HoldsByItself:
    """What a controller of positions needs for a stop: nothing, it stays at the last one."""

    def stop(self) -> None:
        """The controller stays where it was told to be."""


class JointTrajectoryOutput(HoldsByItself):
    """trajectory_msgs/JointTrajectory with one point, to be reached in one control period from its arrival."""

    def __init__(self, channels: Channels, robot: RobotSpec, group: Group, names: list[str]) -> None:
        self._publisher = channels.publisher(JointTrajectory, group.controllers["joint_trajectory"]["topic"])
        self._point = JointTrajectoryPoint(time_from_start=to_duration(robot.period_ns))
        # Made once: that takes as long as sending it.
        self._message = JointTrajectory(joint_names=names, points=[self._point])

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes positions and velocities. The stamp is zero: it begins when it comes."""
        self._point.positions, self._point.velocities = command.tolist(), velocity.tolist()
        self._publisher.publish(self._message)


class ForwardOutput(HoldsByItself):
    """std_msgs/Float64MultiArray of positions, as forward_command_controller takes them."""

    def __init__(self, channels: Channels, _robot: RobotSpec, group: Group, _names: list[str]) -> None:
        self._publisher = channels.publisher(Float64MultiArray, group.controllers["forward"]["topic"])

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes positions."""
        self._publisher.publish(Float64MultiArray(data=command.tolist()))


class VelocityOutput:
    """std_msgs/Float64MultiArray of velocities. Such a controller goes on with the last one, so a stop is a message.

    Attributes:
        topic: its full name. size: how many values it takes.
    """

    def __init__(self, channels: Channels, _robot: RobotSpec, group: Group, names: list[str]) -> None:
        self._publisher = channels.publisher(Float64MultiArray, group.controllers["forward"]["topic"])
        self.topic, self.size = self._publisher.topic_name, len(names)
        self._standing = Float64MultiArray(data=[0.0] * len(names))
        self._moves = True  # nobody knows what was commanded before

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes velocities."""
        self._moves = bool(velocity.any())
        self._publisher.publish(Float64MultiArray(data=velocity.tolist()))

    def stop(self) -> None:
        """Publishes zeros, once: from then on others may command."""
        if self._moves:
            self._publisher.publish(self._standing)
            self._moves = False


class FrankaOutput(HoldsByItself):
    """sensor_msgs/JointState: where an impedance controller's springs are to be at rest, with the joints' names."""

    def __init__(self, channels: Channels, _robot: RobotSpec, group: Group, names: list[str]) -> None:
        self._publisher = channels.publisher(JointState, group.controllers["franka"]["topic"])
        self._names = names
        self._clock = channels.clock

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes positions and velocities, stamped now."""
        message = JointState(name=self._names, position=command.tolist(), velocity=velocity.tolist())
        message.header.stamp = self._clock.now().to_msg()
        self._publisher.publish(message)


class InterbotixOutput(HoldsByItself):
    """The Interbotix driver's two messages: the arm's joints as a group, the gripper's motor by itself.

    Raises:
        ImportError: interbotix_xs_msgs is not installed.
    """

    def __init__(self, channels: Channels, robot: RobotSpec, group: Group, _names: list[str]) -> None:
        messages = _interbotix_messages()
        topics = group.controllers["interbotix"]
        self._robot, self._group = robot, group
        self._joint_group, self._joint_single = messages.JointGroupCommand, messages.JointSingleCommand
        self._arm = channels.publisher(self._joint_group, topics["group_topic"])
        self._gripper = channels.publisher(self._joint_single, topics["single_topic"])

    def publish(self, command: Vector, velocity: Vector) -> None:
        """Publishes joint angles, and the gripper's as its motor's angle."""
        joints = len(self._group.joints)
        self._arm.publish(
            self._joint_group(name=self._group.controllers["interbotix"]["group"], cmd=command[:joints].tolist())
        )
        if (gripper := self._group.gripper) is not None:
            angle = driver_position(self._robot, gripper, float(command[joints]))
            self._gripper.publish(self._joint_single(name=gripper.command_joint, cmd=angle))


def _interbotix_messages() -> Any:
    try:
        from interbotix_xs_msgs import msg
    except ImportError as error:
        raise ImportError(
            "The controller 'interbotix' needs the package interbotix_xs_msgs: install and source the Interbotix "
            "workspace, or choose joint_trajectory or forward."
        ) from error
    return msg


def arm_output_class(controller: str, group: Group) -> type[Any]:
    """The class that commands a group through a kind of controller."""
    if is_velocity(controller, group):
        return VelocityOutput
    return {
        "joint_trajectory": JointTrajectoryOutput,
        "forward": ForwardOutput,
        "franka": FrankaOutput,
        "interbotix": InterbotixOutput,
    }[controller]


def command_topics(group: Group) -> Iterator[tuple[type[Any], str]]:
    """Type and topic of every command that this group's controllers may get, where the messages are installed."""
    kinds = {"joint_trajectory": JointTrajectory, "forward": Float64MultiArray, "franka": JointState}
    for controller, topics in group.controllers.items():
        if controller in kinds:
            yield kinds[controller], topics["topic"]
        else:
            with contextlib.suppress(ImportError):
                messages = _interbotix_messages()
                yield messages.JointGroupCommand, topics["group_topic"]
                yield messages.JointSingleCommand, topics["single_topic"]
    if group.gripper is not None and group.gripper.channel is not None:
        yield Float64MultiArray, group.gripper.channel.topic


def is_velocity(controller: str, group: Group) -> bool:
    """Whether the group's controller of that kind takes velocities."""
    return group.controllers[controller].get("interface") == "velocity"
