"""What measures a robot: joint states, and poses of end effectors, as one kind of reading."""

from collections.abc import Sequence
from typing import TypeAlias

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from openpi_runtime.robots import POSE_AXES, RobotSpec
from openpi_runtime.rotations import axis_angle

StateMessage: TypeAlias = JointState | PoseStamped


def state_topics(robot: RobotSpec) -> dict[str, type]:
    """Topic -> message type of everything that measures the robot's state."""
    joints: dict[str, type] = dict.fromkeys(robot.joint_topics, JointState)
    return joints | dict.fromkeys(robot.pose_topics, PoseStamped)


def reading(message: StateMessage) -> tuple[Sequence[str], Sequence[float]]:
    """Names and positions: a pose's are `POSE_AXES`, in m and as axis-angle in rad. Any class of message will do."""
    if hasattr(message, "name"):
        return message.name, message.position
    at, turn = message.pose.position, message.pose.orientation
    return POSE_AXES, [at.x, at.y, at.z, *axis_angle([turn.x, turn.y, turn.z, turn.w])]
