"""A robot's commands on the topics and actions of its controllers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from rclpy.node import Node

from openpi_ros.outputs.arms import Output, VelocityOutput, arm_output_class, command_topics, is_velocity
from openpi_ros.outputs.channels import Channels
from openpi_ros.outputs.grippers import make_gripper_output
from openpi_ros.outputs.guard import VelocityGuard
from openpi_runtime.grippers import GripperChannel
from openpi_runtime.robots import Group, RobotSpec
from openpi_runtime.safety import Limits, Vector
from openpi_runtime.servo import VelocityServo

__all__ = ["RobotOutput", "command_topics"]

_Placed = tuple[list[int], Output]  # action columns, and what takes them


class RobotOutput:
    """All groups of a robot through one kind of controller, each gripper with its arm or on a channel of its own.

    Attributes:
        names: the topics and actions commands go to.

    Raises:
        ValueError: the robot has no such controller, or it cannot take these columns.
        ImportError: the controller's messages are not installed.
    """

    def __init__(
        self,
        node: Node,
        robot: RobotSpec,
        limits: Limits,
        controller: str,
        *,
        simulated: bool = False,
        dry_run: bool = False,
    ) -> None:
        """simulated: grippers go with their arms, as simulators take them. dry_run: on shadow topics only."""
        for group in robot.groups:
            _check(robot, group, controller, simulated)
        self._channels = Channels(node, dry_run=dry_run)
        self.names = self._channels.names
        by_velocity = any(is_velocity(controller, group) for group in robot.groups)
        self._servo = VelocityServo(robot, limits) if by_velocity else None
        self._outputs = [placed for group in robot.groups for placed in self._make(robot, group, controller, simulated)]
        self._guard = self._make_guard(robot) if by_velocity and not dry_run else None

    def publish(self, command: Vector, velocity: Vector, measured: Vector | None) -> None:
        """Publishes one command for the whole robot: [dim] each, in the order of the action columns.

        Args:
            command: rad, grippers in runtime units.
            velocity: of the command, per second.
            measured: where the robot is; None while it is to stand.
        """
        if self._servo is not None:
            velocity = np.zeros_like(command) if measured is None else self._servo.speed(command, velocity, measured)
        if self._guard is not None:
            self._guard.tell(bool(velocity.any()))
        for columns, output in self._outputs:
            output.publish(command[columns], velocity[columns])

    def stop(self) -> None:
        """To be called in every tick without a command: ends what would move on by itself."""
        for _, output in self._outputs:
            output.stop()
        if self._guard is not None:
            with contextlib.suppress(RuntimeError):  # the zeros are out
                self._guard.tell(False)

    def close(self) -> None:
        """Releases what is not an entity of the node."""
        self._channels.close()

    def _make_guard(self, robot: RobotSpec) -> VelocityGuard:
        arms = [output for _, output in self._outputs if isinstance(output, VelocityOutput)]
        guard = VelocityGuard({arm.topic: arm.size for arm in arms}, robot.period_ns / 1e9)
        self._channels.resources.callback(guard.close)
        return guard

    def _make(self, robot: RobotSpec, group: Group, controller: str, simulated: bool) -> Iterator[_Placed]:
        columns, names = robot.group_columns(group), list(group.command_joints)
        make_arm = arm_output_class(controller, group)
        channel = _own_channel(group, controller, simulated)
        if group.gripper is None or channel is None:
            yield columns, make_arm(self._channels, robot, group, names)
        else:
            yield columns[:-1], make_arm(self._channels, robot, group, names[:-1])
            yield columns[-1:], make_gripper_output(self._channels, robot, group.gripper, channel)


def _own_channel(group: Group, controller: str, simulated: bool) -> GripperChannel | None:
    """Where the group's gripper is commanded apart from the arm, None where it goes with it."""
    if group.gripper is None or simulated or controller == "interbotix":
        return None
    return group.gripper.channel


def _check(robot: RobotSpec, group: Group, controller: str, simulated: bool) -> None:
    """Raises ValueError where a group cannot be commanded so."""
    if controller not in group.controllers:
        known = ", ".join(group.controllers) or "none"
        raise ValueError(f"Group {group.name!r} of {robot.name} has no controller {controller!r}, but {known}.")
    if is_velocity(controller, group) and simulated:
        raise ValueError(
            f"Group {group.name!r} of {robot.name} has a 'forward' controller of velocities, but simulators take "
            "positions; choose joint_trajectory."
        )
    if is_velocity(controller, group) and group.gripper is not None and group.gripper.channel is None:
        raise ValueError(
            f"Group {group.name!r} of {robot.name} is commanded by velocities, which a gripper's units are not; give "
            "its gripper a `channel` in the robot's YAML."
        )
