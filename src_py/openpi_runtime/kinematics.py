"""Limits and forward kinematics from a URDF or xacro file (pinocchio)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pinocchio
import xacro
from jaxtyping import Float64

from openpi_runtime.robots import Column, RobotSpec
from openpi_runtime.safety import Limits, Vector


def robot_description(path: Path) -> str:
    """The URDF text of a URDF or xacro file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"The robot description {path} does not exist; check `urdf` in the robot's YAML.")
    return str(xacro.process_file(str(path)).toxml())


class Kinematics:
    """A robot's kinematic tree, its joints addressed by their URDF names."""

    def __init__(self, urdf: str) -> None:
        """urdf: the XML text."""
        self._model = pinocchio.buildModelFromXML(urdf)
        self._data = self._model.createData()

    @classmethod
    def from_file(cls, path: Path) -> Kinematics:
        """Reads a URDF, or expands a xacro. Raises FileNotFoundError if there is no such file."""
        return cls(robot_description(path))

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The moving joints."""
        return tuple(self._model.names)[1:]

    def limits(self, joints: list[str]) -> tuple[Vector, Vector, Vector]:
        """Lower and upper position (rad or m) and velocity (per second) of each joint named."""
        at = [self._index(joint) for joint in joints]
        model = self._model
        return model.lowerPositionLimit[at], model.upperPositionLimit[at], model.velocityLimit[at]

    def forward(self, positions: dict[str, float], frame: str) -> Float64[np.ndarray, "4 4"]:
        """Pose of a frame in the root frame, as a homogeneous matrix in metres; joints not given are at neutral.

        Raises:
            KeyError: the URDF has no such joint or frame.
        """
        q = pinocchio.neutral(self._model)
        for joint, value in positions.items():
            q[self._index(joint)] = value
        if not self._model.existFrame(frame):
            raise KeyError(f"The robot description has no frame {frame!r}.")
        pinocchio.framesForwardKinematics(self._model, self._data, q)
        return self._data.oMf[self._model.getFrameId(frame)].homogeneous.copy()

    def _index(self, joint: str) -> int:
        if not self._model.existJointName(joint):
            raise KeyError(f"The robot description has no joint {joint!r}; it has {', '.join(self.joint_names)}.")
        return int(self._model.joints[self._model.getJointId(joint)].idx_q)


def command_limits(spec: RobotSpec, kinematics: Kinematics) -> Limits:
    """Limits of every action column: the URDF's within the spec's margin; grippers by their convention; deltas +-1."""
    rules = spec.limits
    gripper = np.array([spec.is_gripper(column) for column in spec.action])
    delta = np.array([column.kind == "delta" for column in spec.action])
    joint = ~(gripper | delta)
    ends = sorted((spec.gripper_convention.closed, spec.gripper_convention.open))
    lower, upper = np.where(delta, -1.0, ends[0]), np.where(delta, 1.0, ends[1])
    velocity = np.where(delta, np.inf, rules.gripper_velocity)
    acceleration = np.where(joint, rules.acceleration, np.inf)
    urdf_lower, urdf_upper, urdf_velocity = kinematics.limits(_urdf_joints(spec))
    lower[joint] = urdf_lower + rules.position_margin
    upper[joint] = urdf_upper - rules.position_margin
    velocity[joint] = urdf_velocity * rules.velocity_scale
    return Limits(
        names=spec.action_names,
        lower=lower,
        upper=upper,
        velocity=velocity,
        acceleration=acceleration,
        gripper=gripper,
        delta=delta,
    )


class EndEffectors:
    """Forward kinematics of every group's end effector from action columns."""

    def __init__(self, spec: RobotSpec, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._joints = _urdf_joints(spec)
        self._columns = [i for i, column in enumerate(spec.action) if _has_urdf_joint(spec, column)]
        self._frames = {g.name: g.end_effector for g in spec.groups if g.end_effector and not g.pose}

    def __call__(self, command: Vector) -> dict[str, Float64[np.ndarray, 3]]:
        """Group name -> position in metres in the URDF's root frame."""
        positions = dict(zip(self._joints, command[self._columns], strict=True))
        return {name: self._kinematics.forward(positions, frame)[:3, 3] for name, frame in self._frames.items()}


def _urdf_joints(spec: RobotSpec) -> list[str]:
    """URDF names of the joints behind the action columns, grippers and deltas left out."""
    return [spec.group(c.group).urdf_prefix + c.joint for c in spec.action if _has_urdf_joint(spec, c)]


def _has_urdf_joint(spec: RobotSpec, column: Column) -> bool:
    return column.kind != "delta" and not spec.is_gripper(column)
