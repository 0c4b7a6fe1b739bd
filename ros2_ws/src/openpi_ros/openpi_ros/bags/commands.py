"""Recorded commands as what was asked of each joint, in runtime units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from openpi_runtime.robots import Column, Group, RobotSpec

Joint = tuple[str, str]
"""Group and joint, as in the action columns."""
Decoder = Callable[[Any], dict[Joint, float]]


def decoders(robot: RobotSpec) -> dict[str, Decoder]:
    """How to read each topic that may carry commands of positions; relative names. Velocities are no positions."""
    return {topic: decode for group in robot.groups for topic, decode in _of_group(robot, group)}


def _of_group(robot: RobotSpec, group: Group) -> Iterator[tuple[str, Decoder]]:
    def named(names: Sequence[str], values: Sequence[float]) -> dict[Joint, float]:
        return {(group.name, name): float(value) for name, value in zip(names, values, strict=False)}

    def gripper(position: float) -> dict[Joint, float]:
        assert group.gripper is not None
        opening = group.gripper.calibration.joint.fraction(position)
        return {(group.name, group.gripper.name): robot.gripper_convention.at(opening)}

    for controller, fields in group.controllers.items():
        if controller == "joint_trajectory":
            yield fields["topic"], lambda message: named(message.joint_names, message.points[-1].positions)
        elif controller == "franka":
            yield fields["topic"], lambda message: named(message.name, message.position)
        elif controller == "forward" and fields.get("interface") != "velocity":
            yield fields["topic"], lambda message: named(group.command_joints, message.data)
        elif controller == "interbotix":
            yield fields["group_topic"], lambda message: named(group.joints, message.cmd)
            yield fields["single_topic"], lambda message: gripper(message.cmd)
    if group.gripper is not None and group.gripper.channel is not None:
        yield group.gripper.channel.topic, lambda message: gripper(message.data[0])


def action_values(
    robot: RobotSpec, column: Column, commanded: Float64[np.ndarray, " n"], measured: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """An action column from commands and measured positions of its joint: what a policy would have had to say."""
    if robot.is_gripper(column) or column.kind in ("absolute", "delta"):
        return commanded
    distance = commanded - measured
    return distance / robot.velocity_step if column.kind == "velocity" else distance
