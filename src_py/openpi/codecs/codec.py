"""One object for both directions of both uses: training data and inference."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from openpi.codecs import signals
from openpi.codecs.actions import ActionForm
from openpi.codecs.signals import QuaternionOrder, Signals

STATE_COLUMN, ACTION_COLUMN = "observation.state", "action"
IMAGE_COLUMNS = {signals.WRIST_IMAGE: "observation.images.left", signals.EXTERIOR_IMAGE: "observation.images.side"}
GENERIC_IMAGES = {
    signals.WRIST_IMAGE: "observation/wrist_image",
    signals.EXTERIOR_IMAGE: "observation/image",
}
GENERIC_STATE = {"observation/state": None}


@dataclasses.dataclass(frozen=True)
class Codec:
    """How a robot's signals become a policy's observation, and its actions the robot's commands.

    Attributes:
        name: what it is called on the command line.
        state: signals that make up the state, in this order.
        action: form of the actions.
        fps: rate of the training data.
        image_keys: wire signal -> key of the policy's observation.
        state_keys: key of the policy's observation -> signals in it (None: the whole state).
        quaternion_order: of the robot's poses on the wire and in its recordings.
        sizes: numbers of values of signals that are not ours, or of a robot with other than seven joints.
    """

    name: str
    state: tuple[str, ...]
    action: ActionForm
    fps: float = 15.0
    image_keys: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(GENERIC_IMAGES))
    state_keys: Mapping[str, tuple[str, ...] | None] = dataclasses.field(default_factory=lambda: dict(GENERIC_STATE))
    quaternion_order: QuaternionOrder = "wxyz"
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def with_quaternion_order(self, order: QuaternionOrder) -> "Codec":
        """The same codec for robots that write quaternions in this order; the model's order stays w x y z."""
        return dataclasses.replace(self, quaternion_order=order)

    def encode(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """A robot's observation as the policy takes it.

        Raises:
            ValueError: a signal is missing, or of wrong size; the message names it.
        """
        states = {key: self._state(observation, parts or self.state) for key, parts in self.state_keys.items()}
        images = {key: signals.image(observation, signal) for signal, key in self.image_keys.items()}
        prompt = {"prompt": str(observation[signals.TASK])} if signals.TASK in observation else {}
        return {**states, **images, **prompt}

    def decode(self, result: Mapping[str, Any], observation: Mapping[str, Any]) -> dict[str, Any]:
        """A policy's result as commands by name ([h, n] each), with "actions" [h, d] as the codec's vector.

        Raises:
            ValueError: the result's actions are not [h, d] of this codec.
        """
        actions, size = np.asarray(result["actions"], np.float32), len(self.action.names(self._signals))
        if actions.ndim != 2 or actions.shape[1] < size:
            raise ValueError(
                f"Codec '{self.name}' decodes actions [horizon, {size}], got {list(actions.shape)}; "
                "the checkpoint was trained with another codec."
            )
        actions = actions[:, :size]
        commands = self.action.to_robot(actions, observation, self._signals)
        return {**commands, "actions": actions}

    def training_columns(self, recording: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of one recorded episode (signals [t, ...], "task" a string): state, images, action.

        Raises:
            ValueError: a signal is missing, of wrong size, or of another length than the others.
        """
        columns = {
            STATE_COLUMN: self._state(recording, self.state),
            **{image_column(signal): signals.image(recording, signal) for signal in self.image_keys},
            ACTION_COLUMN: self.action.from_recording(recording, self._signals),
        }
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The episode's signals differ in length: {lengths}.")
        return columns

    def features(self) -> dict[str, dict[str, Any]]:
        """The columns as a LeRobot data set declares them."""
        read = self._signals
        picture = {"dtype": "video", "shape": [224, 224, 3], "names": ["height", "width", "channels"]}
        return {
            STATE_COLUMN: _vector([name for signal in self.state for name in read.names(signal)]),
            **dict.fromkeys(map(image_column, self.image_keys), picture),
            ACTION_COLUMN: _vector(list(self.action.names(read))),
        }

    def metadata(self) -> dict[str, Any]:
        """What a session server tells about it; plain data."""
        return {
            "name": self.name,
            "observation": [*self.state, *self.image_keys, signals.TASK],
            "action_names": list(self.action.names(self._signals)),
            "fps": self.fps,
            "quaternion_order": self.quaternion_order,
        }

    def example(self) -> dict[str, Any]:
        """An observation of the right form, as a robot would send it: to warm up, and for tests."""
        poses = np.array([0.4, 0, 0.3, *self._signals.pose_out(np.array([0, 0, 0, 1.0, 0, 0, 0]))[3:]], np.float32)
        vectors = {key: poses if key in signals.POSES else np.zeros(self._signals.size(key)) for key in self._inputs()}
        pictures = {key: np.zeros((signals.IMAGE_SIZE, signals.IMAGE_SIZE, 3), np.uint8) for key in self.image_keys}
        return {**vectors, **pictures, signals.TASK: "do something"}

    @property
    def _signals(self) -> Signals:
        return Signals(self.quaternion_order, self.sizes)

    def _inputs(self) -> list[str]:
        return list(dict.fromkeys([*self.state, *(key for parts in self.state_keys.values() for key in parts or ())]))

    def _state(self, data: Mapping[str, Any], parts: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([self._signals.vector(data, part) for part in parts], axis=-1)


def image_column(signal: str) -> str:
    """The training column of a camera's signal: those of ours by the published names, `image.top` by its own."""
    return IMAGE_COLUMNS.get(signal, f"observation.images.{signal.rpartition('.')[2]}")


def _vector(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": names}
