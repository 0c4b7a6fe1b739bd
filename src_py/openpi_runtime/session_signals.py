"""A robot as a session server's codecs speak of it: signals by name, whatever the layout of its own policies.

Signals: `robot_state.ee_pose` [7] position [m] in the URDF's root frame and unit quaternion, `robot_state.q` [7] rad,
`grip` [1] from 0 open to 1 closed, `image.wrist`, `image.exterior` [H, W, 3], `task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from openpi_runtime.kinematics import Kinematics
from openpi_runtime.robots import Camera, Column, RobotSpec
from openpi_runtime.rotations import quaternion

EE_POSE, JOINTS, GRIP, TASK = "robot_state.ee_pose", "robot_state.q", "grip", "task"
WRIST_IMAGE, EXTERIOR_IMAGE = "image.wrist", "image.exterior"
TARGET_POSE, TARGET_JOINTS, TARGET_GRIP = "robot_command.pose", "robot_command.joints", "target_grip"

_KINDS = ("absolute", "velocity")
_ROUNDING = 1e-3  # of a step's displacement


class ArmSignals:
    """A robot's state, targets and cameras as these signals.

    Raises:
        ValueError: the robot has not the one arm of seven joints, the gripper or the cameras that they describe.
    """

    def __init__(self, spec: RobotSpec, kinematics: Kinematics, quaternion_order: str = "wxyz") -> None:
        check_robot(spec)
        self._spec, self._kinematics, self._order = spec, kinematics, quaternion_order
        self._group = spec.groups[0]
        self.state_columns = [_place(spec.state, joint) for joint in self._group.command_joints]
        self.action_columns = [_place(spec.action, joint) for joint in self._group.command_joints]
        self.cameras = {WRIST_IMAGE: camera_of(spec, "wrist").name, EXTERIOR_IMAGE: camera_of(spec, "base").name}

    def state(self, state: Float64[np.ndarray, " s"]) -> dict[str, np.ndarray]:
        """Pose, joints and grip of a state, float32."""
        return dict(zip((EE_POSE, JOINTS, GRIP), self._signals(state[self.state_columns]), strict=True))

    def target(self, target: Float64[np.ndarray, " a"]) -> dict[str, np.ndarray]:
        """The same of a target: joints in rad and the gripper in runtime units, in the action columns' order."""
        values = self._signals(target[self.action_columns])
        return dict(zip((TARGET_POSE, TARGET_JOINTS, TARGET_GRIP), values, strict=True))

    def _signals(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        *joints, gripper = values
        grip = 1.0 - self._spec.gripper_convention.fraction(gripper)
        return self._pose(joints), np.asarray(joints, np.float32), np.array([grip], np.float32)

    def _pose(self, joints: list[float]) -> Float[np.ndarray, 7]:
        names = [self._group.urdf_prefix + joint for joint in self._group.joints]
        pose = self._kinematics.forward(dict(zip(names, joints, strict=True)), self._group.end_effector)
        turned = quaternion(pose[:3, :3])
        ordered = turned if self._order == "xyzw" else np.roll(turned, 1)
        return np.concatenate([pose[:3, 3], ordered]).astype(np.float32)


class SessionSignals:
    """What a robot sends to a session with a certain codec, and what it makes of the answers.

    Joint targets become the robot's action: as they are in absolute columns, as the difference to the step before
    (the first: to the measured joints) in velocity columns. Poses are refused: nothing here solves for joints.
    """

    def __init__(self, spec: RobotSpec, kinematics: Kinematics, codec: Mapping[str, Any]) -> None:
        """codec: `codec_info` of the server's greeting.

        Raises:
            ValueError: this robot cannot work with this codec; says why, and which would do.
        """
        self._spec = spec
        self._arm = ArmSignals(spec, kinematics, codec.get("quaternion_order", "wxyz"))
        self._wanted = tuple(codec["observation"])
        self._check(codec)

    def observation(
        self, state: Float64[np.ndarray, " s"], pictures: Mapping[str, np.ndarray], prompt: str
    ) -> dict[str, Any]:
        """The signals that the codec reads.

        Raises:
            ValueError: a camera that it needs has no picture.
        """
        seen = {name: pictures[camera] for name, camera in self._arm.cameras.items() if camera in pictures}
        signals = self._arm.state(state) | seen | {TASK: prompt}
        for name in self._wanted:
            if name not in signals:
                camera = self._arm.cameras[name]
                raise ValueError(f"the session needs {name}, but camera {camera} is not among the cameras used")
        return {name: signals[name] for name in self._wanted}

    def actions(self, result: Mapping[str, Any], state: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, "h d"]:
        """A chunk in the robot's action layout from an answer to the observation of this state.

        Raises:
            ValueError: the answer has no joint targets of this robot, or one that is further than a step reaches.
        """
        targets = _matrix(result, TARGET_JOINTS, len(self._arm.action_columns) - 1)
        opening = 1.0 - _matrix(result, TARGET_GRIP, 1)[:, 0]
        convention = self._spec.gripper_convention
        actions = np.zeros((len(targets), len(self._spec.action)))
        for values, column, place in zip(targets.T, self._arm.action_columns, self._arm.state_columns, strict=False):
            actions[:, column] = self._joint_action(self._spec.action[column], values, state[place])
        actions[:, self._arm.action_columns[-1]] = convention.closed + opening * (convention.open - convention.closed)
        return actions

    def _joint_action(self, column: Column, target: np.ndarray, measured: float) -> np.ndarray:
        if column.kind == "absolute":
            return target
        velocity = np.diff(target, prepend=measured) / self._spec.velocity_step
        if np.abs(velocity).max() > 1 + _ROUNDING:
            step = int(np.abs(velocity).argmax())
            reach = self._spec.velocity_step
            raise ValueError(
                f"step {step} of the answer turns {column.joint} by {velocity[step] * reach:.3f} rad; "
                f"{self._spec.name} turns a joint by at most {reach} rad a step"
            )
        return velocity

    def _check(self, codec: Mapping[str, Any]) -> None:
        spec, name = self._spec, codec.get("name", "?")
        unknown = set(self._wanted) - {EE_POSE, JOINTS, GRIP, TASK, *self._arm.cameras}
        kinds = {spec.action[column].kind for column in self._arm.action_columns[:-1]}
        if unknown:
            raise ValueError(f"codec '{name}' needs {', '.join(sorted(unknown))}, which no robot here sends")
        if any(str(column).startswith(TARGET_POSE) for column in codec["action_names"]):
            raise ValueError(
                f"codec '{name}' answers with poses of the end effector, but robot {spec.name} takes joints; "
                "serve a checkpoint with the codec joints_traj or droid"
            )
        if not kinds <= set(_KINDS):
            raise ValueError(f"robot {spec.name} has {', '.join(sorted(kinds))} actions; a session has joint targets")
        rate_hz = float(codec.get("fps", spec.rate_hz))
        if rate_hz != spec.rate_hz:
            raise ValueError(
                f"codec '{name}' has {rate_hz:g} steps a second, but robot {spec.name} runs at {spec.rate_hz:g}"
            )


def check_robot(spec: RobotSpec) -> None:
    """Find out whether a robot has the one arm of seven joints, the gripper and the cameras that the signals describe.

    Raises:
        ValueError: it has not.
    """
    group = spec.groups[0]
    if len(spec.groups) != 1 or len(group.joints) != 7 or group.gripper is None or not group.end_effector:
        raise ValueError(
            f"a session server's signals describe one arm of seven joints with a gripper, which robot {spec.name} "
            "is not; use protocol policy"
        )
    for role in ("wrist", "base"):
        camera_of(spec, role)


def _place(columns: tuple[Column, ...], joint: str) -> int:
    return [column.joint for column in columns].index(joint)


def camera_of(spec: RobotSpec, role: str) -> Camera:
    """The first camera whose role has this word in it. Raises ValueError where there is none."""
    found = next((camera for camera in spec.cameras if role in camera.role), None)
    if found is None:
        raise ValueError(f"robot {spec.name} has no camera of the role {role}, which a session server's signals need")
    return found


def _matrix(result: Mapping[str, Any], name: str, width: int) -> Float64[np.ndarray, "h n"]:
    values = np.asarray(result.get(name, ()), np.float64)
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise ValueError(f"the session answered with {name} of shape {list(values.shape)}, expected [horizon, {width}]")
    return values
