"""Limits and forward kinematics from a URDF or xacro file (pinocchio)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        raise FileNotFoundError(f"The robot description {path} does not exist.")
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

    def unit(self, joint: str) -> str:
        """What a joint's position is measured in: rad, or m where it slides."""
        return "m" if self._joint(joint).shortname().startswith("JointModelP") else "rad"

    def has_frame(self, name: str) -> bool:
        """Whether there is a link, or a joint, of that name."""
        return bool(self._model.existFrame(name))

    def limits(self, joints: list[str]) -> tuple[Vector, Vector, Vector]:
        """Lower and upper position (rad or m) and velocity (per second) of each joint named.

        A continuous joint has no ends: -inf and inf.
        """
        model, named = self._model, [self._joint(joint) for joint in joints]
        endless = np.array([joint.nq > joint.nv for joint in named], dtype=bool)
        at = [joint.idx_q for joint in named]
        lower, upper = model.lowerPositionLimit[at], model.upperPositionLimit[at]
        velocity = model.velocityLimit[[joint.idx_v for joint in named]]
        return np.where(endless, -np.inf, lower), np.where(endless, np.inf, upper), velocity

    def forward(self, positions: dict[str, float], frame: str) -> Float64[np.ndarray, "4 4"]:
        """Pose of a frame in the root frame, as a homogeneous matrix in metres; joints not given are at neutral.

        Raises:
            KeyError: the URDF has no such joint or frame.
        """
        q = pinocchio.neutral(self._model)
        for joint, value in positions.items():
            self._set(q, joint, value)
        if not self.has_frame(frame):
            raise KeyError(f"The robot description has no frame {frame!r}.")
        pinocchio.framesForwardKinematics(self._model, self._data, q)
        return self._data.oMf[self._model.getFrameId(frame)].homogeneous.copy()

    def _set(self, q: Vector, name: str, value: float) -> None:
        joint = self._joint(name)
        if joint.nq > joint.nv:  # pinocchio keeps a continuous joint as the cosine and sine of its angle
            q[joint.idx_q : joint.idx_q + 2] = np.cos(value), np.sin(value)
        else:
            q[joint.idx_q] = value

    def _joint(self, name: str) -> Any:
        if not self._model.existJointName(name):
            raise KeyError(f"The robot description has no joint {name!r}; it has {', '.join(self.joint_names)}.")
        return self._model.joints[self._model.getJointId(name)]


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
    urdf_lower, urdf_upper, urdf_velocity = kinematics.limits(urdf_joints(spec))
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
        self._joints = urdf_joints(spec)
        self._columns = [i for i, column in enumerate(spec.action) if _has_urdf_joint(spec, column)]
        self._frames = {g.name: g.end_effector for g in spec.groups if g.end_effector and not g.pose}

    def __call__(self, command: Vector) -> dict[str, Float64[np.ndarray, 3]]:
        """Group name -> position in metres in the URDF's root frame."""
        positions = dict(zip(self._joints, command[self._columns], strict=True))
        return {name: self._kinematics.forward(positions, frame)[:3, 3] for name, frame in self._frames.items()}


def urdf_joints(spec: RobotSpec) -> list[str]:
    """URDF names of the joints behind the action columns, grippers and deltas left out."""
    return [spec.group(c.group).urdf_prefix + c.joint for c in spec.action if _has_urdf_joint(spec, c)]


def _has_urdf_joint(spec: RobotSpec, column: Column) -> bool:
    return column.kind != "delta" and not spec.is_gripper(column)
