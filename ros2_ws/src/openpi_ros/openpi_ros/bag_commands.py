"""What recorded commands mean: `openpi_ros.outputs` read backwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from openpi_ros.outputs.arms import is_velocity
from openpi_runtime.grippers import Gripper
from openpi_runtime.robots import Group, RobotSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandSource:
    """A topic of commands: which action columns its values are for, and how they are read from a message."""

    topic: str
    columns: tuple[int, ...]
    values: Callable[[Any], np.ndarray]


def command_sources(robot: RobotSpec, has: Callable[[str], bool]) -> Iterator[CommandSource]:
    """Where a robot's commands were recorded; `has` tells whether a topic holds anything.

    Raises:
        ValueError: a group was commanded by velocities, from which its targets do not follow.
    """
    for group in robot.groups:
        columns = tuple(robot.group_columns(group))
        for controller in sorted(group.controllers, key=lambda name: name != robot.controller):
            found = [source for source in _sources(robot, group, controller, columns) if has(source.topic)]
            if found and is_velocity(controller, group):
                raise ValueError(f"Group {group.name!r} of {robot.name} was commanded by velocities; record positions.")
            yield from found
            if found:
                break
        gripper = group.gripper
        if gripper is not None and gripper.channel is not None and has(gripper.channel.topic):
            yield CommandSource(
                topic=gripper.channel.topic, columns=columns[-1:], values=_gripper_reader(robot, gripper, "data")
            )


def _sources(robot: RobotSpec, group: Group, controller: str, columns: tuple[int, ...]) -> list[CommandSource]:
    topics = group.controllers[controller]
    if controller == "interbotix":
        arm = CommandSource(topic=topics["group_topic"], columns=columns, values=lambda message: message.cmd)
        if group.gripper is None:
            return [arm]
        grip = _gripper_reader(robot, group.gripper, "cmd")
        return [arm, CommandSource(topic=topics["single_topic"], columns=columns[-1:], values=grip)]
    read = {"joint_trajectory": _trajectory, "franka": _joint_state}.get(controller)
    if read is None:
        return [CommandSource(topic=topics["topic"], columns=columns, values=lambda message: message.data)]
    return [
        CommandSource(topic=topics["topic"], columns=columns, values=lambda message: _ordered(group, *read(message)))
    ]


def _trajectory(message: Any) -> tuple[list[str], np.ndarray]:
    return message.joint_names, message.points[-1].positions


def _joint_state(message: Any) -> tuple[list[str], np.ndarray]:
    return message.name, message.position


def _ordered(group: Group, names: list[str], values: np.ndarray) -> np.ndarray:
    """In the order of the group; the gripper may go on a topic of its own."""
    given = dict(zip(names, values, strict=True))
    return np.array([given[name] for name in group.command_joints if name in given])


def _gripper_reader(robot: RobotSpec, gripper: Gripper, field: str) -> Callable[[Any], np.ndarray]:
    """From the driver's scale to runtime units."""

    def read(message: Any) -> np.ndarray:
        opening = gripper.calibration.joint.fraction(float(np.ravel(getattr(message, field))[0]))
        return np.array([robot.gripper_convention.at(opening)])

    return read
