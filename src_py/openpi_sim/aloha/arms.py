"""The two ViperX 300s of the simulated ALOHA: joint names, start pose, gripper units."""

import numpy as np
from jaxtyping import Float

SIDES = ("left", "right")
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
"""The driver's names, from the base to the hand."""

ARM_DIM = len(ARM_JOINTS) + 1
STATE_DIM = len(SIDES) * ARM_DIM
"""Left arm (6 joints in rad, gripper), then right arm."""

FINGER_CLOSED_M = 0.01844
FINGER_OPEN_M = 0.05800
"""Positions of the joint `left_finger` at gripper 0 and 1; `right_finger` is its mirror image."""

GRIPPER_MOTOR_CLOSED_RAD = -0.6213
GRIPPER_MOTOR_OPEN_RAD = 1.4910
"""Angles of the driver's `gripper` joint (the motor) at gripper 0 and 1."""

MOTOR_RAD_PER_M = (GRIPPER_MOTOR_OPEN_RAD - GRIPPER_MOTOR_CLOSED_RAD) / (FINGER_OPEN_M - FINGER_CLOSED_M)

GRASP_POINT = np.array([0.14, 0.0, 0.0])
"""The point between the fingertips, in m in the gripper link's frame (x out of the hand, y across the fingers)."""

_START_ARM = (0.0, -0.96, 1.16, 0.0, -0.3, 0.0)
_START_FINGER_M = 0.02239


def finger_to_gripper(finger_m: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Finger position in m to runtime units: 0 closed, 1 open."""
    return (np.asarray(finger_m) - FINGER_CLOSED_M) / (FINGER_OPEN_M - FINGER_CLOSED_M)


def gripper_to_finger(gripper: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Runtime units to finger position in m."""
    return np.asarray(gripper) * (FINGER_OPEN_M - FINGER_CLOSED_M) + FINGER_CLOSED_M


def gripper_to_motor(gripper: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Runtime units to the angle in rad that the driver reports for its joint `gripper`."""
    return np.asarray(gripper) * (GRIPPER_MOTOR_OPEN_RAD - GRIPPER_MOTOR_CLOSED_RAD) + GRIPPER_MOTOR_CLOSED_RAD


def start_state() -> Float[np.ndarray, "14"]:
    """The state every episode starts from."""
    return np.tile([*_START_ARM, finger_to_gripper(np.array(_START_FINGER_M)).item()], len(SIDES))
