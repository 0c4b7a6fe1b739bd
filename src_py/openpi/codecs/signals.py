"""The robot's signals: their names on the wire and in recordings, and how they are read and checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from openpi_client import image_tools

EE_POSE, JOINTS, GRIP = "robot_state.ee_pose", "robot_state.q", "grip"
TARGET_POSE, TARGET_JOINTS, TARGET_GRIP = "robot_command.pose", "robot_command.joints", "target_grip"
WRIST_IMAGE, EXTERIOR_IMAGE, TASK = "image.wrist", "image.exterior", "task"

SIZES = {EE_POSE: 7, JOINTS: 7, GRIP: 1, TARGET_POSE: 7, TARGET_JOINTS: 7, TARGET_GRIP: 1}
POSES = (EE_POSE, TARGET_POSE)
IMAGE_SIZE = 224
NORM_TOLERANCE = 0.05  # of a quaternion's length; beyond it, the numbers are no rotation

QuaternionOrder = Literal["wxyz", "xyzw"]


@dataclasses.dataclass(frozen=True)
class Signals:
    """Reads named signals out of an observation (vectors [n]) or a recording ([t, n]).

    `quaternion_order` is the robot's; inside a codec, and so in training data and for the model, it is w x y z.
    `sizes`: numbers of values of further signals, or of a robot that differs, such as one with six joints.
    """

    quaternion_order: QuaternionOrder = "wxyz"
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def size(self, key: str) -> int:
        """Number of values of a signal. Raises ValueError for one that nothing is known of."""
        size = self.sizes.get(key, SIZES.get(key))
        if size is None:
            raise ValueError(f"Nothing is known of signal '{key}': give its codec sizes={{'{key}': number of values}}.")
        return size

    def names(self, key: str) -> tuple[str, ...]:
        """Names of a signal's values, for data sets and messages."""
        if key in POSES:
            return tuple(f"{key}.{part}" for part in ("x", "y", "z", "qw", "qx", "qy", "qz"))
        size = self.size(key)
        return (key,) if size == 1 else tuple(f"{key}.{number}" for number in range(size))

    def vector(self, data: Mapping[str, Any], key: str) -> np.ndarray:
        """float32 [..., size of the signal]; quaternions w x y z, of length one.

        Raises:
            ValueError: the key is missing, or its value is of another size, not finite, or no rotation.
        """
        values, size = np.asarray(_present(data, key), np.float32), self.size(key)
        values = values[..., None] if size == 1 and (values.ndim == 0 or values.shape[-1] != 1) else values
        if values.shape[-1:] != (size,):
            raise ValueError(f"'{key}' has shape {list(values.shape)}, expected {size} values.")
        if not np.isfinite(values).all():
            raise ValueError(f"'{key}' holds NaN or infinity.")
        return self._pose_in(values, key) if key in POSES else values

    def pose_out(self, pose: np.ndarray) -> np.ndarray:
        """A pose [..., 7] with quaternion w x y z as the robot wants it, of length one."""
        quaternion = pose[..., 3:] / np.maximum(np.linalg.norm(pose[..., 3:], axis=-1, keepdims=True), 1e-9)
        if self.quaternion_order == "xyzw":
            quaternion = np.roll(quaternion, -1, axis=-1)
        return np.concatenate([pose[..., :3], quaternion], axis=-1)

    def _pose_in(self, pose: np.ndarray, key: str) -> np.ndarray:
        norm = np.linalg.norm(pose[..., 3:], axis=-1, keepdims=True)
        if (np.abs(norm - 1) > NORM_TOLERANCE).any():
            raise ValueError(
                f"'{key}' must be position (3) and unit quaternion (4, {' '.join(self.quaternion_order)}); "
                f"the quaternion has length {float(norm.flat[np.abs(norm - 1).argmax()]):.3f}."
            )
        quaternion = pose[..., 3:] / norm
        if self.quaternion_order == "xyzw":
            quaternion = np.roll(quaternion, 1, axis=-1)
        return np.concatenate([pose[..., :3], quaternion], axis=-1)


def image(data: Mapping[str, Any], key: str) -> np.ndarray:
    """uint8 [..., 224, 224, 3], padded to a square with black.

    Raises:
        ValueError: the key is missing, or its value is no image [h, w, 3].
    """
    pixels = np.asarray(_present(data, key))
    if pixels.ndim < 3 or pixels.shape[-1] != 3 or not pixels.size or pixels.dtype.kind not in "uif":
        raise ValueError(f"'{key}' is {pixels.dtype} {list(pixels.shape)}, expected an image [h, w, 3] of uint8.")
    pixels = image_tools.convert_to_uint8(pixels).astype(np.uint8, copy=False)
    return image_tools.resize_with_pad(pixels, IMAGE_SIZE, IMAGE_SIZE)


def _present(data: Mapping[str, Any], key: str) -> Any:
    if key not in data:
        raise ValueError(f"'{key}' is missing; there are {', '.join(sorted(map(str, data))) or 'no keys at all'}.")
    return data[key]
