"""DROID: a Franka arm with 7 joints and a gripper; joint velocities and gripper position as actions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openpi import transforms
from openpi.models import model as _model
from openpi.policies import arrays

JOINTS = 7
ACTION_DIM = 8
EXTERIOR_CAMERA = "observation/exterior_image_1_left"
WRIST_CAMERA = "observation/wrist_image_left"


def make_droid_example() -> dict[str, Any]:
    """A random observation in the robot's form: two uint8 [224, 224, 3] images, joints [7], gripper [1], prompt."""
    rng = np.random.default_rng()
    return {
        EXTERIOR_CAMERA: rng.integers(256, size=(224, 224, 3), dtype=np.uint8),
        WRIST_CAMERA: rng.integers(256, size=(224, 224, 3), dtype=np.uint8),
        "observation/joint_position": rng.random(JOINTS),
        "observation/gripper_position": rng.random(1),
        "prompt": "do something",
    }


@dataclasses.dataclass(frozen=True)
class DroidInputs(transforms.DataTransformFn):
    """DROID observation -> model slots.

    Takes one exterior and one wrist image ([h, w, 3] or [3, h, w]), "observation/joint_position" [7] rad,
    "observation/gripper_position" [1] or a scalar (0 open, 1 closed) and, where present, "actions" and "prompt".

    Raises:
        ValueError: a camera or a state part is missing or of wrong dtype, shape or length.
    """

    model_type: _model.ModelType

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        images, masks = self._camera_slots(data)
        inputs = {"state": _state(data), "image": images, "image_mask": masks}
        if "actions" in data:
            inputs["actions"] = np.asarray(data["actions"])
        if "prompt" in data:
            prompt = data["prompt"]
            inputs["prompt"] = prompt.decode() if isinstance(prompt, bytes) else prompt
        return inputs

    def _camera_slots(self, data: transforms.DataDict) -> tuple[dict[str, np.ndarray], dict[str, np.bool_]]:
        base, wrist = arrays.camera_image(data, EXTERIOR_CAMERA), arrays.camera_image(data, WRIST_CAMERA)
        empty = np.zeros_like(base)
        if self.model_type == _model.ModelType.PI0_FAST:  # trained with the empty image left visible
            return {"base_0_rgb": base, "base_1_rgb": empty, "wrist_0_rgb": wrist}, {
                "base_0_rgb": np.True_,
                "base_1_rgb": np.True_,
                "wrist_0_rgb": np.True_,
            }
        return {"base_0_rgb": base, "left_wrist_0_rgb": wrist, "right_wrist_0_rgb": empty}, {
            "base_0_rgb": np.True_,
            "left_wrist_0_rgb": np.True_,
            "right_wrist_0_rgb": np.False_,
        }


@dataclasses.dataclass(frozen=True)
class DroidOutputs(transforms.DataTransformFn):
    """Model actions [h, d >= 8] -> 7 joint velocities and the gripper position [h, 8]."""

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        return {"actions": arrays.leading(data["actions"], ACTION_DIM)}


def _state(data: transforms.DataDict) -> np.ndarray:
    joints = arrays.vector(data, "observation/joint_position", JOINTS)
    key = "observation/gripper_position"
    gripper = arrays.vector({**data, key: np.atleast_1d(data[key])} if key in data else data, key, 1)
    return np.concatenate([joints, gripper], axis=-1)
