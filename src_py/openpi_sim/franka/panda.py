"""The simulated Panda: joint names, start pose, gripper units and the DROID action convention."""

import numpy as np
from jaxtyping import Float

ARM_JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
STATE_DIM = 8
"""Seven joints in rad, then the gripper (0 open, 1 closed)."""

START_ARM = np.array([0.0, -np.pi / 5, 0.0, -4 * np.pi / 5, 0.0, 3 * np.pi / 5, 0.0])
FINGER_OPEN_M = 0.04

MAX_JOINT_DELTA = 0.2
"""Joint displacement in rad that a DROID velocity of 1 asks for in one step of 1/15 s."""

GRIPPER_THRESHOLD = 0.5


def finger_to_gripper(finger_m: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Position of one finger in m to DROID's units: 0 open, 1 closed."""
    return 1.0 - np.asarray(finger_m) / FINGER_OPEN_M


def gripper_to_finger(gripper: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """DROID's gripper units to the position of one finger in m."""
    return (1.0 - np.asarray(gripper)) * FINGER_OPEN_M


def joint_target(action: Float[np.ndarray, "8"], measured: Float[np.ndarray, "8"]) -> Float[np.ndarray, "8"]:
    """Command that a DROID action asks for: q + 0.2 v, and the gripper open or closed.

    If any velocity exceeds 1 in magnitude, all of them are scaled so that the largest is 1: the direction of motion
    stays. The gripper counts as closed above 0.5.

    Args:
        action: seven joint velocities as fractions of 0.2 rad a step, then the gripper.
        measured: seven joint angles in rad (the gripper entry is not used).
    """
    velocity = action[:7] / max(1.0, float(np.abs(action[:7]).max()))
    gripper = float(action[7] > GRIPPER_THRESHOLD)
    return np.append(measured[:7] + MAX_JOINT_DELTA * velocity, gripper)


def velocity_action(target: Float[np.ndarray, "8"], measured: Float[np.ndarray, "8"]) -> Float[np.ndarray, "8"]:
    """The DROID action that `joint_target` turns into `target`, as far as velocities up to 1 reach."""
    return np.append((target[:7] - measured[:7]) / MAX_JOINT_DELTA, target[7])
