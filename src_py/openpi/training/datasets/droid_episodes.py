"""From an episode of DROID, as it is recorded, to the samples that a model learns from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from openpi.training.datasets.errors import BadSampleError

Episode = Mapping[str, Any]
EXTERIOR = ("exterior_image_1_left", "exterior_image_2_left")
WRIST = "wrist_image_left"
_INSTRUCTIONS = ("language_instruction", "language_instruction_2", "language_instruction_3")
_METADATA = ("recording_folderpath", "file_path")
_JOINTS = 7
# In place of images that are not wanted.
_BLANK = np.zeros((8, 8, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Cutter:
    """Cuts the episodes of one dataset into samples.

    Attributes:
        name: the dataset's.
        chunk: actions a sample.
        action_key: which of the recorded actions.
        kept: steps to keep, by episode; None is all.
        images: whether images are wanted.
    """

    name: str
    chunk: int
    action_key: str
    kept: Mapping[str, Any] | None = None
    images: bool = True

    def samples(
        self, number: int, episode: Episode, rng: np.random.Generator
    ) -> Iterator[dict[str, Any] | BadSampleError]:
        """One sample, or what is wrong with it, for each kept step of a successful episode.

        Images stay as they are stored. `number` names an episode that does not say which it is.
        """
        try:
            folder, path = (_text(_entry(episode["episode_metadata"], key)) for key in _METADATA)
            steps = list(_entry(episode, "steps"))
        except Exception as error:  # TensorFlow's errors have nothing in common
            yield BadSampleError(self.name, number, None, f"it cannot be read: {error}")
            return
        name = f"{folder}--{path}"
        if "success" not in path:
            return
        if not steps:
            yield BadSampleError(self.name, name, None, "the episode is empty.")
            return
        yield from self._of_steps(name, steps, rng)

    def _of_steps(self, name: str, steps: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> Iterator[Any]:
        actions = [_attempt(_action, step, self.action_key) for step in steps]
        camera = EXTERIOR[rng.integers(len(EXTERIOR))]
        prompts = [text for key in _INSTRUCTIONS if (text := _text(steps[0].get(key, b"")))]
        prompt = prompts[rng.integers(len(prompts))] if prompts else ""
        for start, end in [(0, len(steps))] if self.kept is None else self.kept.get(name, []):
            for index in range(start, min(end, len(steps))):
                ahead = np.minimum(np.arange(index, index + self.chunk), len(steps) - 1).tolist()
                observation = _attempt(_observation, steps[index], camera, self.images)
                parts = [(index, observation), *((frame, actions[frame]) for frame in ahead)]
                bad = [(frame, part) for frame, part in parts if isinstance(part, ValueError)]
                if bad:
                    frame, error = bad[0]
                    yield BadSampleError(self.name, name, frame, str(error))
                    continue
                yield {
                    "actions": np.stack([actions[frame] for frame in ahead]),
                    "observation": observation,
                    "prompt": prompt,
                    "dataset": self.name,
                    "episode": name,
                    "frame": index,
                }


def _attempt(make: Callable[..., Any], *args: Any) -> Any:
    """What `make` returns, or the ValueError that it raises."""
    try:
        return make(*args)
    except ValueError as error:
        return error


def _action(step: Mapping[str, Any], key: str) -> np.ndarray:
    parts = _entry(step, "action_dict")
    if key not in parts:
        raise ValueError(f"action_space {key!r} is not recorded; the steps have {sorted(parts)}.")
    return np.concatenate([_vector(parts, key, _JOINTS), _vector(parts, "gripper_position", 1)])


def _observation(step: Mapping[str, Any], camera: str, images: bool) -> dict[str, Any]:
    observation = _entry(step, "observation")
    return {
        "image": _entry(observation, camera) if images else _BLANK,
        "wrist_image": _entry(observation, WRIST) if images else _BLANK,
        "joint_position": _vector(observation, "joint_position", _JOINTS),
        "gripper_position": _vector(observation, "gripper_position", 1),
    }


def _entry(tree: Mapping[str, Any], key: str) -> Any:
    if key not in tree:
        raise ValueError(f"there is no {key!r}; there are {sorted(tree)}.")
    return tree[key]


def _vector(tree: Mapping[str, Any], key: str, size: int) -> np.ndarray:
    values = np.ravel(np.asarray(_entry(tree, key), np.float32))
    if values.shape != (size,):
        raise ValueError(f"{key!r} has {values.size} values; expected {size}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{key!r} is not finite: {values.tolist()}.")
    return values


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def decoded(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with its images as uint8 [H, W, 3].

    Raises:
        BadSampleError: one of them is broken.
    """
    images = {}
    for key in ("image", "wrist_image"):
        try:
            images[key] = _image(sample["observation"][key])
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of them at broken files
            reason = f"{key!r} cannot be decoded: {error}"
            raise BadSampleError(sample["dataset"], sample["episode"], sample["frame"], reason) from error
    return sample | {"observation": sample["observation"] | images}


def _image(stored: Any) -> np.ndarray:
    """uint8 [H, W, 3] from an encoded image, or as it is."""
    if isinstance(stored, bytes):
        return np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    return np.asarray(stored)
