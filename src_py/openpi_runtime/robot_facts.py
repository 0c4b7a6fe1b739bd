"""What a robot description says, as `openpi info` shows it; whatever it names in the URDF is looked up."""

from __future__ import annotations

from typing import Any

import numpy as np

from openpi_runtime.briefing import limit_texts
from openpi_runtime.kinematics import EndEffectors, command_limits
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import Camera, Group, RobotSpec


def robot_facts(robot: RobotSpec) -> dict[str, Any]:
    """Facts by name, nested.

    Raises:
        SpecError: the description does not fit its URDF.
    """
    kinematics = robot_kinematics(robot)
    limits = command_limits(robot, kinematics)
    hands = EndEffectors(robot, kinematics)(_at_rest(robot))
    return {
        "robot": robot.name,
        "description": robot.description,
        "rate": f"{robot.rate_hz:g} Hz, {robot.executed_steps} steps of a chunk",
        "prompt": robot.default_prompt,
        "controllers": {group.name: _controllers(robot, group) for group in robot.groups},
        "commands": limit_texts(robot, limits),
        "cameras": {camera.name: _camera(camera) for camera in robot.cameras},
        "state": ", ".join(robot.state_names),
        "actions": ", ".join(robot.action_names),
        "end effectors at rest": {name: ", ".join(f"{x:.4f}" for x in place) + " m" for name, place in hands.items()},
    }


def _at_rest(robot: RobotSpec) -> np.ndarray:
    places = {(column.group, column.joint): value for column, value in zip(robot.state, robot.rest, strict=True)}
    return np.array([places.get((column.group, column.joint), 0.0) for column in robot.action])


def _controllers(robot: RobotSpec, group: Group) -> str:
    chosen = [f"{name} (used)" if name == robot.controller else name for name in group.controllers]
    channel = group.gripper.channel if group.gripper else None
    return ", ".join(chosen) + (f"; gripper by {channel.action or channel.topic}" if channel else "")


def _camera(camera: Camera) -> str:
    notes = [camera.role, *(["compressed"] if camera.compressed else []), *([] if camera.required else ["optional"])]
    return f"{camera.topic} ({', '.join(notes)})"
