"""LIBERO: a simulated arm with an end-effector pose as state and pose changes as actions.

Also the starting point for other single-arm robots with one exterior and one wrist camera.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openpi import transforms
from openpi.models import model as _model
from openpi.policies import arrays

STATE_DIM = 8
ACTION_DIM = 7


def make_libero_example() -> dict[str, Any]:
    """A random observation in the simulator's form: two uint8 [224, 224, 3] images, state [8], prompt."""
    rng = np.random.default_rng()
    return {
        "observation/state": rng.random(STATE_DIM),
        "observation/image": rng.integers(256, size=(224, 224, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(256, size=(224, 224, 3), dtype=np.uint8),
        "prompt": "do something",
    }


@dataclasses.dataclass(frozen=True)
class LiberoInputs(transforms.DataTransformFn):
    """LIBERO observation -> model slots.

    Takes "observation/image" and "observation/wrist_image" ([h, w, 3] or [3, h, w]), "observation/state" (for
    LIBERO: position 3, axis-angle 3, gripper 2) and, where present, "actions" and "prompt". The length of the state
    is left to the robot; a policy holds it against its normalisation statistics.

    Raises:
        ValueError: a camera or the state is missing or of wrong dtype or shape.
    """

    model_type: _model.ModelType

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        base = arrays.camera_image(data, "observation/image")
        wrist = arrays.camera_image(data, "observation/wrist_image")
        # pi0-FAST was trained with the empty image left visible.
        third_visible = np.bool_(self.model_type == _model.ModelType.PI0_FAST)
        inputs = {
            "state": arrays.vector(data, "observation/state"),
            "image": {"base_0_rgb": base, "left_wrist_0_rgb": wrist, "right_wrist_0_rgb": np.zeros_like(base)},
            "image_mask": {
                "base_0_rgb": np.True_,
                "left_wrist_0_rgb": np.True_,
                "right_wrist_0_rgb": third_visible,
            },
        }
        if "actions" in data:
            inputs["actions"] = np.asarray(data["actions"])
        return {**inputs, **arrays.pass_through(data, ("prompt",))}


@dataclasses.dataclass(frozen=True)
class LiberoOutputs(transforms.DataTransformFn):
    """Model actions [h, d >= 7] -> pose change and gripper [h, 7]."""

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        return {"actions": arrays.leading(data["actions"], ACTION_DIM)}
