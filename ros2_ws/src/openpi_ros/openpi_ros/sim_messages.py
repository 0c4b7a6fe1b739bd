"""What a simulated robot reports, as the messages its real drivers publish."""

from collections.abc import Iterable

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, PoseStamped, Quaternion
from jaxtyping import Float
from sensor_msgs.msg import CameraInfo, JointState

from openpi_ros.conversions import to_time
from openpi_sim.world import Intrinsics, JointReading


def joint_state(reading: JointReading, stamp_ns: int) -> JointState:
    """What a driver reads, with its own names and units."""
    message = JointState(name=list(reading.names))
    message.header.stamp = to_time(stamp_ns)
    message.position, message.velocity = reading.position.tolist(), reading.velocity.tolist()
    message.effort = reading.effort.tolist()
    return message


def camera_info(camera: Intrinsics, stamp_ns: int, frame_id: str) -> CameraInfo:
    """Calibration of an ideal camera: no distortion, nothing to rectify."""
    matrix = camera.matrix
    message = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    message.k = matrix.ravel().tolist()
    message.r = np.eye(3).ravel().tolist()
    message.p = np.hstack([matrix, np.zeros((3, 1))]).ravel().tolist()
    return message


def poses(objects: Iterable[Float[np.ndarray, "7"]], stamp_ns: int, frame_id: str) -> PoseArray:
    """True poses of objects (m, quaternion w x y z)."""
    message = PoseArray(poses=[_pose(values) for values in objects])
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    return message


def pose_stamped(hand: Float[np.ndarray, "7"], stamp_ns: int, frame_id: str) -> PoseStamped:
    """The pose of an end effector (m, quaternion w x y z)."""
    message = PoseStamped(pose=_pose(hand))
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame_id
    return message


def _pose(values: Float[np.ndarray, "7"]) -> Pose:
    x, y, z, qw, qx, qy, qz = values.tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=qw, x=qx, y=qy, z=qz))


def objects(message: PoseArray) -> list[Float[np.ndarray, "7"]]:
    """The poses of a message: the inverse of `poses`."""
    return [
        np.array([p.position.x, p.position.y, p.position.z, *_wxyz(p.orientation)], np.float64) for p in message.poses
    ]


def _wxyz(quaternion: Quaternion) -> tuple[float, float, float, float]:
    return quaternion.w, quaternion.x, quaternion.y, quaternion.z
