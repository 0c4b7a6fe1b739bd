"""Episodes as DROID records them, made up, for tests that have no `tensorflow-datasets`."""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image


@functools.cache
def jpeg(level: int) -> bytes:
    """A grey picture of 18 x 32."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((18, 32, 3), level, np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def episode(number: int, length: int, *, success: bool = True) -> dict[str, Any]:
    """Joints targets are `number` + step / 100, joints the step; the two exterior cameras differ in brightness."""
    kind = "success" if success else "failure"
    return {
        "episode_metadata": {"recording_folderpath": b"r", "file_path": f"{kind}/{number}".encode()},
        "steps": [_step(number, step) for step in range(length)],
    }


def _step(number: int, step: int) -> dict[str, Any]:
    return {
        "action_dict": {
            "joint_position": np.full(7, number + step / 100),
            "joint_velocity": np.full(7, -1.0),
            "gripper_position": np.array([float(step % 2)]),
        },
        "observation": {
            "exterior_image_1_left": jpeg(50),
            "exterior_image_2_left": jpeg(100),
            "wrist_image_left": jpeg(200),
            "joint_position": np.full(7, float(step)),
            "gripper_position": np.array([0.5]),
        },
        "language_instruction": f"task {number}".encode(),
        "language_instruction_2": b"",
    }
