"""ALOHA: two 6-joint arms with grippers, 14 values; joint targets as actions.

State and actions are (6 joints [rad], gripper) left, then right. The released weights were trained in another
convention ("pi space"): some joints are counted the other way round, and grippers are angles.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openpi import transforms
from openpi.policies import arrays

DIM = 14
GRIPPERS = [6, 13]
# Slot of the model <- camera of the robot. cam_low is accepted, as recordings have it, and not used.
CAMERAS = {"base_0_rgb": "cam_high", "left_wrist_0_rgb": "cam_left_wrist", "right_wrist_0_rgb": "cam_right_wrist"}
KNOWN_CAMERAS = (*CAMERAS.values(), "cam_low")

# Joints (1 shoulder, 2 elbow of each arm) whose sign differs between the robot and pi space.
JOINT_SIGNS = np.array([1, -1, -1, 1, 1, 1, 1] * 2)

# Geometry of the ViperX gripper: finger travel [m] closed and open, length of the rod and of the horn [m].
FINGER_CLOSED, FINGER_OPEN = 0.01844, 0.05800
ROD_LENGTH, HORN_RADIUS = 0.036, 0.022
# Servo angles [rad] that pi space maps to 0 and 1, and those of the ALOHA runtime's closed and open gripper.
PI_CLOSED, PI_OPEN = 0.5476, 1.6296
RUNTIME_CLOSED, RUNTIME_OPEN = -0.6213, 1.4910


def make_aloha_example() -> dict[str, Any]:
    """A random observation in the robot's form: four uint8 [3, 224, 224] images, state [14], prompt."""
    rng = np.random.default_rng()
    images = {name: rng.integers(256, size=(3, 224, 224), dtype=np.uint8) for name in KNOWN_CAMERAS}
    return {"state": np.ones(DIM), "images": images, "prompt": "do something"}


@dataclasses.dataclass(frozen=True)
class AlohaInputs(transforms.DataTransformFn):
    """ALOHA observation -> model slots.

    Takes "images" {camera: [3, h, w]}, "state" [14] and, where present, "actions" [h, 14] and "prompt". Wrist
    cameras may be missing: their slots are black and masked out. With `adapt_to_pi`, state and actions go from
    the robot's convention to pi space.

    Raises:
        ValueError: no cam_high, an unknown camera, an image of wrong dtype or shape, not 14 values.
    """

    adapt_to_pi: bool = True

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        images, masks = _camera_slots(data.get("images", {}))
        inputs = {"image": images, "image_mask": masks, "state": self._encode_state(data)}
        if "actions" in data:
            inputs["actions"] = self._encode_actions(data)
        return {**inputs, **arrays.pass_through(data, ("prompt",))}

    def _encode_state(self, data: transforms.DataDict) -> np.ndarray:
        state = arrays.vector(data, "state", DIM)
        return _convert(state, gripper_to_angular) if self.adapt_to_pi else state

    def _encode_actions(self, data: transforms.DataDict) -> np.ndarray:
        actions = arrays.vector(data, "actions", DIM)
        return _convert(actions, gripper_from_angular_inverse) if self.adapt_to_pi else actions


@dataclasses.dataclass(frozen=True)
class AlohaOutputs(transforms.DataTransformFn):
    """Model actions [h, d >= 14] -> ALOHA joint targets [h, 14], from pi space with `adapt_to_pi`."""

    adapt_to_pi: bool = True

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        actions = arrays.leading(data["actions"], DIM)
        return {"actions": _convert(actions, gripper_from_angular) if self.adapt_to_pi else actions}


def gripper_to_angular(opening: np.ndarray) -> np.ndarray:
    """Runtime gripper state (0 closed, 1 open) -> pi space (0 -> about -1.08, 1 -> about 0.95).

    The finger's travel gives the horn's angle by the law of cosines on rod and horn.
    """
    travel = opening * (FINGER_OPEN - FINGER_CLOSED) + FINGER_CLOSED
    sine = (HORN_RADIUS**2 + travel**2 - ROD_LENGTH**2) / (2 * HORN_RADIUS * travel)
    return (np.arcsin(np.clip(sine, -1.0, 1.0)) - PI_CLOSED) / (PI_OPEN - PI_CLOSED)


def gripper_from_angular(value: np.ndarray) -> np.ndarray:
    """Model gripper action -> runtime gripper command.

    Not the inverse of `gripper_to_angular`, and without pi space's scale: published weights were trained so.
    """
    return (value + PI_CLOSED - RUNTIME_CLOSED) / (RUNTIME_OPEN - RUNTIME_CLOSED)


def gripper_from_angular_inverse(command: np.ndarray) -> np.ndarray:
    """Runtime gripper command -> model gripper action."""
    return command * (RUNTIME_OPEN - RUNTIME_CLOSED) + RUNTIME_CLOSED - PI_CLOSED


def _convert(values: np.ndarray, gripper_curve: Any) -> np.ndarray:
    converted = JOINT_SIGNS * values
    converted[..., GRIPPERS] = gripper_curve(converted[..., GRIPPERS])
    return converted


def _camera_slots(images: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.bool_]]:
    if unknown := sorted(set(images) - set(KNOWN_CAMERAS)):
        raise ValueError(f"Unknown ALOHA cameras {unknown}; the known ones are {sorted(KNOWN_CAMERAS)}.")
    base = arrays.camera_image(images, CAMERAS["base_0_rgb"])
    slots, masks = {}, {}
    for slot, camera in CAMERAS.items():
        present = camera in images
        slots[slot] = arrays.camera_image(images, camera) if present else np.zeros_like(base)
        masks[slot] = np.bool_(present)
    return slots, masks
