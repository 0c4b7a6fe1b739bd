"""The simulated Panda: joint names, start pose and gripper units."""

import numpy as np
from jaxtyping import Float

ARM_JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
STATE_DIM = 8
"""Seven joints in rad, then the gripper (0 open, 1 closed)."""

START_ARM = np.array([0.0, -np.pi / 5, 0.0, -4 * np.pi / 5, 0.0, 3 * np.pi / 5, 0.0])
FINGER_OPEN_M = 0.04


def finger_to_gripper(finger_m: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Position of one finger in m to DROID's units: 0 open, 1 closed."""
    return 1.0 - np.asarray(finger_m) / FINGER_OPEN_M


def gripper_to_finger(gripper: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """DROID's gripper units to the position of one finger in m."""
    return (1.0 - np.asarray(gripper)) * FINGER_OPEN_M
